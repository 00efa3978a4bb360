"""What a written report is compared with later: the digests of its files, and of the trials that it tells of."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from segda.files import write_text
from sweeps.execution.digests import file_digest
from sweeps.metrics import is_pool
from sweeps.trial import TrialRecord

_SUFFIX = ".proof.json"


def write_proof(paths: Sequence[Path], trials: Iterable[TrialRecord]) -> None:
    """Write the digests beside a report.

    Args:
        paths: its files; the first one's name decides that of the digests.
        trials: what it tells of.
    """
    files = {path.name: file_digest(path) for path in paths}
    write_text(paths[0].with_suffix(_SUFFIX), json.dumps({"files": files, "trials": _digest(trials)}, indent=1) + "\n")


def remove_proof(report: Path) -> None:
    """Remove the digests beside a report that is about to be replaced; nothing happens where there are none."""
    report.with_suffix(_SUFFIX).unlink(missing_ok=True)


def report_problems(report: Path, trials: Iterable[TrialRecord], *, may_be_older: bool) -> list[str] | None:
    """Return what is wrong with a report, one line each; None if no digests lie beside it.

    Args:
        report: its first file.
        trials: as they are now.
        may_be_older: whether trials may have changed since.
    """
    try:
        proof = json.loads(report.with_suffix(_SUFFIX).read_text(encoding="utf-8"))
        files, digest = {str(name): str(value) for name, value in proof["files"].items()}, str(proof["trials"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return [f"{report.with_suffix(_SUFFIX)} cannot be read ({type(error).__name__})"]
    problems = []
    for name, wanted in files.items():
        path = report.with_name(name)
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif file_digest(path) != wanted:
            problems.append(f"{path} is not what was written")
    if digest != _digest(trials) and not may_be_older:
        problems.append(f"{report} is older than what the ledger says")
    return problems


def _digest(trials: Iterable[TrialRecord]) -> str:
    """Return the digest of what reports tell of trials."""
    told = [
        [
            *(trial.number, trial.key, trial.state, trial.attempt, trial.step),
            # What a trial is beside the others is not in the ledger.
            {name: value for name, value in trial.metrics.items() if not is_pool(name)},
            *(trial.profile, trial.error),
        ]
        for trial in trials
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
