"""Whether the files in the trials' folders say what the ledger says."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from segda.checkpoint import verify_checkpoint
from sweeps.execution.attempts import newest_attempt
from sweeps.execution.digests import file_digest
from sweeps.execution.remote import CHECKPOINT, files_of, has_own_files, missing_at
from sweeps.execution.remote_folder import StorageError
from sweeps.execution.system_metrics import PREFIX
from sweeps.execution.task import DEFAULT_TRAIN
from sweeps.findings import TIMES, Check, check, same
from sweeps.ledger.proofs import Proof
from sweeps.ledger.records import Point, SweepState
from sweeps.reports.proof import report_problems
from sweeps.store import Store
from sweeps.suggestions import suggest
from sweeps.trial import TrialRecord, TrialState

Reports = Sequence[tuple[int, Mapping[str, float]]]  # (step, metrics), oldest first
History = Callable[[Path], Reports]
_NAMES = {"metrics.jsonl": "metrics.jsonl", "checkpoint.pt": "checkpoints"}


def segda_history(checkpoint: Path) -> Reports:
    """Return the reports that are kept in a checkpoint of `segda.train`.

    Args:
        checkpoint: the file; of tensors in it only the checksums are compared.

    Raises:
        DamagedCheckpointError: its bytes do not have the checksums that were written with them.
        Exception: whatever `torch.load` raises for a file with other content.
    """
    verify_checkpoint(checkpoint)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    history = _reports(json.loads(state["history"]))
    # At the beginning of a round of pseudo-labels a checkpoint is written between reports.
    if history and (history[-1][0] > state["step"] or (history[-1][0] < state["step"] and state["round"] is None)):
        raise ValueError(f"it is of step {state['step']}, its last report is of step {history[-1][0]}")
    return history


@dataclass
class TrialFiles:
    """What the files of a sweep's trials say.

    Attributes:
        results: trial -> content of `result.json`; empty if there is none.
        reports: name of a file -> trial -> the reports in it; what went wrong if it cannot be read; None if it is missing.
        left: names of files that some training is known to have left.
        lost: what is missing of what trials left, or is not as they left it, one line each.
        unread: why no further files could be looked at; empty if all were.
        cleaned: trials whose checkpoint is not there because it was cleaned away.
    """

    results: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    reports: dict[str, dict[int, Reports | str | None]] = field(default_factory=lambda: {name: {} for name in _NAMES})
    left: set[str] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)
    unread: str = ""
    cleaned: set[int] = field(default_factory=set)


def read_trial_files(
    records: Sequence[TrialRecord],
    store: Store,
    *,
    storage: str | None,
    history: History,
    proofs: Mapping[int, Proof],
    cleaned: Collection[int] = (),
) -> TrialFiles:
    """Read the files of all trials that a worker had, one after the other: those at a storage address are large.

    Args:
        records: trials of a sweep.
        store: has their folders.
        storage: the sweep's storage address, if it has one; counts for trials whose last attempt did not run in this store.
        history: reads the reports out of a checkpoint.
        proofs: have the digests of the files that trials left.
        cleaned: trials whose checkpoints nothing needed any more, so that they may be gone.
    """
    files = TrialFiles()
    readers: dict[str, History] = {"metrics.jsonl": _metrics_reports, "checkpoint.pt": history}
    try:
        for record in records:
            if record.attempt == 0 and record.reused is None:
                continue
            with files_of(record, store=store, storage=storage) as folder:
                files.results[record.number] = _read_json(folder / "result.json")
                for name, read in readers.items():
                    files.reports[name][record.number] = _read(folder / name, read)
                if record.number in cleaned and not (folder / CHECKPOINT).is_file():
                    files.cleaned.add(record.number)
                left = _left(record, proofs)
                files.left |= left.keys()
                files.lost += [f"trial {record.number}: {problem}" for problem in _losses(folder, left)]
            if storage is not None and left and has_own_files(record, store=store):
                wanted = left.keys() - {CHECKPOINT} if record.number in cleaned else left.keys()
                missing = missing_at(storage, record, store=store, names=wanted)
                files.lost += [f"trial {record.number}: {name} is missing under {storage}" for name in missing]
    except StorageError as error:
        files.unread = f"{error}; the files of trial {record.number} and later ones were not looked at"
    return files


def _left(record: TrialRecord, proofs: Mapping[int, Proof]) -> Mapping[str, str]:
    """Return the digests of the files that a trial's training left; of one that goes on they are none any more."""
    proof = proofs.get(record.number)
    return {} if proof is None or record.state is not TrialState.COMPLETE else proof.files


def _losses(folder: Path, left: Mapping[str, str]) -> Iterator[str]:
    for name, digest in left.items():
        try:
            if file_digest(folder / name) != digest:
                yield f"{name} in {folder} is not what its training left"
        except FileNotFoundError:
            if name not in _NAMES:  # which are missed by name already
                yield f"{name} is missing in {folder}"
        except OSError as error:
            yield f"{name} in {folder} cannot be read ({error.strerror})"


def check_files(records: Sequence[TrialRecord], files: TrialFiles, proofs: Mapping[int, Proof]) -> Check:
    """Tell whether the files of complete trials are those that their trainings left, byte by byte.

    Args:
        records: trials of a sweep.
        files: what became of their files.
        proofs: have the digests.
    """
    complete = [record for record in records if record.state is TrialState.COMPLETE]
    counts = [len(_left(record, proofs)) for record in complete]
    note = f"{counts.count(0)} trials of a version that kept no digests" if 0 in counts else ""
    return Check("the files of complete trials are as they were left", sum(counts), tuple(files.lost), note)


def check_report(
    report: Path, records: Sequence[TrialRecord], *, name: str, state: SweepState | None, is_driven: bool
) -> Check:
    """Tell whether a sweep's report is there, as it was written, and tells of the trials as they are.

    Args:
        report: its HTML page.
        records: trials of the sweep.
        name: the sweep.
        state: what its driver last said.
        is_driven: whether a driver works on it.
    """
    has_ended = state is not None and state.has_ended and not is_driven
    problems = report_problems(report, records, may_be_older=not has_ended)
    if problems is None and state is SweepState.FINISHED and has_ended and not report.is_file():
        problems = [f"{report} is missing"]
    remedy = f"; {suggest('report', name)} writes it anew"
    return Check("the report is whole and of today's trials", 1, tuple(f"{line}{remedy}" for line in problems or ()))


def _read(path: Path, read: History) -> Reports | str | None:
    if not path.is_file():
        return None
    try:
        return read(path)
    # Whatever a damaged file makes its reader raise is what the audit has to tell.
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _metrics_reports(path: Path) -> Reports:
    return _reports([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])


def check_folders(records: Sequence[TrialRecord], store: Store) -> Check:
    """Compare the trials' folders with the ledger: none of a foreign trial, none of an attempt that was never made."""

    def problems() -> Iterator[str]:
        known = {store.trial(record) for record in records}
        folder = store.sweep(records[0].sweep) / "trials" if records else None
        if folder is not None and folder.is_dir():
            for path in sorted(folder.iterdir()):
                if path.is_dir() and path not in known:
                    yield f"{path} belongs to no trial of the ledger"
        for record in records:
            made = newest_attempt(store.trial(record))
            if made > record.attempt:
                yield f"trial {record.number}: a worker made attempt {made}, the ledger knows {record.attempt}"

    return check("each folder is that of a trial, and of an attempt that was handed out", len(records), problems())


def check_reports(
    file: str,
    records: Sequence[TrialRecord],
    points: Mapping[int, Sequence[Point]],
    files: TrialFiles,
    store: Store,
    *,
    train: str,
) -> Check:
    """Compare one kind of file with the reports in the ledger: nothing was acknowledged that is not there.

    Args:
        file: `metrics.jsonl` or `checkpoint.pt`.
        records: trials of a sweep.
        points: trial -> its reports in the ledger.
        files: what the files say.
        store: has the trials' folders.
        train: training function as `module:name`; that of segda writes these files, another one may write none.
    """
    found = files.reports[file]
    cleaned = files.cleaned if file == CHECKPOINT else set()
    trained = [record for record in records if record.number in found and record.step and record.number not in cleaned]
    missing = [record for record in trained if found[record.number] is None]
    are_due = train == DEFAULT_TRAIN or file in files.left or len(missing) < len(trained)
    problems = [
        f"trial {record.number}: {file} is missing in {store.trial(record)}; if that is not where the sweep's files are, name "
        "their folder with --store"
        for record in missing
        if are_due
    ]
    compared = 0
    for record in records:
        reports = found.get(record.number)
        if isinstance(reports, str):
            problems.append(f"trial {record.number}: {file} cannot be read ({reports})")
        elif reports is not None:
            compared += len(reports)
            problems += _differences(record, points[record.number], reports, file)
    if files.unread:
        problems.append(files.unread)
    notes = [f"{len(missing)} have none"] if missing and not are_due else []
    notes += [f"{len(cleaned)} were cleaned away"] if cleaned else []
    return Check(f"the trials' {_NAMES[file]} have the same reports", compared, tuple(problems), "; ".join(notes))


def _differences(record: TrialRecord, points: Sequence[Point], reports: Reports, file: str) -> Iterator[str]:
    theirs = dict(reports)
    if len(theirs) < len(reports):
        yield f"trial {record.number}: {file} has a step more than once"
    ahead = [step for step in theirs if step > record.step]
    # A worker writes its files before it reports, and one that was stopped may have reported once more.
    if ahead and record.state is TrialState.COMPLETE:
        yield f"trial {record.number}: {file} has step {ahead[0]}, which the ledger lacks"
    for point in points:
        if point.step not in theirs:
            yield f"trial {record.number}: the ledger has step {point.step}, which {file} lacks"
            continue
        mine = {name: value for name, value in point.metrics.items() if not name.startswith(PREFIX)}
        other = theirs[point.step]
        # A trial whose checkpoint was lost has trained its reported steps once more, at another speed.
        wrong = [name for name in (mine.keys() | other.keys()) - TIMES if not _equal(mine.get(name), other.get(name))]
        if wrong:
            yield f"trial {record.number}, step {point.step}: {file} has other values of {', '.join(sorted(wrong)[:5])}"


def _equal(first: float | None, second: float | None) -> bool:
    return first is not None and second is not None and same(first, second)


def _reports(history: Sequence[Mapping[str, Any]]) -> Reports:
    return [(int(kept["step"]), kept["metrics"]) for kept in history]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content
