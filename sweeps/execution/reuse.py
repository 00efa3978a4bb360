"""Results that are there already: the same code, data, configuration and seed is not trained twice, also across sweeps."""

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

from segda.checkpoint import verify_checkpoint
from segda.errors import WeightsError
from segda.files import write_text
from sweeps.execution.attempts import ATTEMPT
from sweeps.execution.remote import CHECKPOINT, fetch, keep
from sweeps.execution.remote_folder import StorageError
from sweeps.execution.task import DEFAULT_TRAIN
from sweeps.execution.trial_log import LOG_FILES
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import Point
from sweeps.store import Store
from sweeps.trial import TrialRecord, TrialState

log = logging.getLogger(__name__)

# What a trial must have left to be of use: its figures and its network.
_NEEDED = ("result.json", CHECKPOINT)


def take_over(
    record: TrialRecord, *, ledger: Ledger, store: Store, train: str
) -> tuple[TrialRecord, list[Point]] | None:
    """Finish a new trial with the result of an identical one, if there is one whose files are to be had.

    Its files become the trial's own (as links where the file system has them), here and at the sweep's storage address, so that
    nothing depends on the other sweep.

    Args:
        record: the new trial, not in the ledger yet; its sweep is.
        ledger: knows the trials of all sweeps.
        store: has their files, or gets them from the storage address of the sweep that they belong to.
        train: training function as `module:name`; what a checkpoint of segda's must be is known.

    Returns:
        The trial as fully trained, and its reports; None if it must be trained.
    """
    found = ledger.find_complete(record.key)
    if found is None:
        return None
    finished = replace(
        record,
        state=TrialState.COMPLETE,
        metrics=found.metrics,
        step=found.step,
        micro_batch=found.micro_batch,
        reused=f"{found.sweep}/{found.number}",
        finished=record.created,
    )
    try:
        if not _bring(found, ledger=ledger, store=store):
            return None
        if train == DEFAULT_TRAIN:
            verify_checkpoint(store.trial(found) / CHECKPOINT)
        _copy(store.trial(found), store.trial(finished))
        storage = ledger.sweep(record.sweep).spec.get("storage")
        if storage is not None:
            keep(finished, store=store, storage=storage)
    except (
        StorageError,
        WeightsError,
        FileNotFoundError,
    ) as error:  # the last: somebody deletes or cleans that sweep now
        log.warning("trial %d is trained although %s has its result: %s", record.number, finished.reused, error)
        return None
    return finished, ledger.points(found.sweep, found.number)


def _bring(found: TrialRecord, *, ledger: Ledger, store: Store) -> bool:
    """Have a trial's files in its folder, and tell whether they are all there."""
    storage = ledger.sweep(found.sweep).spec.get("storage")
    if storage is not None:
        fetch(found, store=store, storage=storage, with_checkpoint=True)
    return all((store.trial(found) / name).is_file() for name in _NEEDED)


def _copy(source: Path, destination: Path) -> None:
    destination.mkdir(parents=True, exist_ok=True)
    for path in sorted(path for path in source.iterdir() if path.is_file()):
        # A log tells of another trial's attempts, and is written into.
        if path.name in (ATTEMPT, *LOG_FILES) or path.name.startswith("."):
            continue
        copy = destination / path.name
        copy.unlink(missing_ok=True)
        try:
            # A link costs nothing, and is safe: trainings replace files, they never write into them.
            os.link(path, copy)
        except OSError:
            shutil.copyfile(path, copy)
    # No attempt was made, and the files here are those of the trial.
    write_text(destination / ATTEMPT, "0\n")
