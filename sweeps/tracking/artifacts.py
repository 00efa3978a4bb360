"""Whether MLflow has the files of a sweep's trials, in this store and in no other one, as the trainings left them. Only reads."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient
from mlflow.entities import Run

from sweeps.execution.digests import file_digest
from sweeps.findings import Check, check
from sweeps.ledger.proofs import Proof
from sweeps.store import Store
from sweeps.suggestions import suggest
from sweeps.tracking.runs import DONE
from sweeps.tracking.trial_run import FILES
from sweeps.trial import TrialRecord, TrialState

_CHECKPOINT = "checkpoint.pt"


def check_artifacts(
    pairs: Mapping[int, tuple[TrialRecord, Run]],
    client: MlflowClient,
    *,
    store: Store,
    proofs: Mapping[int, Proof],
    is_own: bool,
) -> Check:
    """Compare the files of runs to which everything was sent with those that trials left.

    Args:
        pairs: number of a trial -> the trial and its run.
        client: MLflow; files at a server are only listed, since they may be large.
        store: where MLflow's files must be, if its database is the store's.
        proofs: have the digests of the trials' files.
        is_own: whether MLflow's database is the store's.
    """
    count = 0

    def problems() -> Iterator[str]:
        nonlocal count
        for number, (record, run) in pairs.items():
            if record.state is not TrialState.COMPLETE or DONE not in run.data.tags or number not in proofs:
                continue
            wanted = {name: digest for name, digest in proofs[number].files.items() if name in FILES}
            count += len(wanted)
            folder = _folder_of(run)
            if folder is None:
                there = {item.path for item in client.list_artifacts(run.info.run_id)}
                missing = sorted(wanted.keys() - there)
                yield from (f"trial {number}: MLflow lacks its {name}" for name in missing)
            elif is_own and not folder.is_relative_to(store.mlartifacts):
                sync = (
                    f"{suggest('sync', record.sweep)} corrects what a store that was moved or copied says of its files"
                )
                yield f"trial {number}: MLflow has its files in {folder}, which is not in this store; {sync}"
            else:
                yield from (
                    f"trial {number}: {problem}" for problem in _losses(folder, wanted, proofs[number], record.sweep)
                )

    found = tuple(problems())
    return check("MLflow has the files of complete trials, as they were left", count, found)


def _folder_of(run: Run) -> Path | None:
    """Return where a run's files lie; None: at a server or in a bucket."""
    parts = urlsplit(run.info.artifact_uri)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def _losses(folder: Path, wanted: Mapping[str, str], proof: Proof, sweep: str) -> Iterator[str]:
    for name, digest in wanted.items():
        if not (folder / name).is_file():
            yield f"{folder / name} is missing; {suggest('sync', sweep)} sends it again"
        elif file_digest(folder / name) != digest:
            yield f"{folder / name} is not what its training left"
    # That of the picked trial is sent too.
    checkpoint = folder / _CHECKPOINT
    if checkpoint.is_file() and _CHECKPOINT in proof.files and file_digest(checkpoint) != proof.files[_CHECKPOINT]:
        yield f"{checkpoint} is not what its training left"
