"""Results that are there already: the same code, data, configuration and seed is not trained twice, also across sweeps."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from sweeps.ledger.database import Ledger
from sweeps.ledger.records import Point
from sweeps.store import Store
from sweeps.trial import TrialRecord, TrialState

# Written last by a training: with it the folder is whole.
_RESULT = "result.json"


def take_over(record: TrialRecord, *, ledger: Ledger, store: Store) -> tuple[TrialRecord, list[Point]] | None:
    """Finish a new trial with the result of an identical one, if there is one whose files are in this store.

    Its files become the trial's own (as links where the file system has them), so that nothing depends on the other sweep.

    Args:
        record: the new trial, not in the ledger yet.
        ledger: knows the trials of all sweeps.
        store: has their files.

    Returns:
        The trial as fully trained, and its reports; None if it must be trained.
    """
    found = ledger.find_complete(record.key)
    if found is None:
        return None
    folder = store.trial(found)
    if not (folder / _RESULT).is_file():
        return None
    _copy(folder, store.trial(record))
    finished = replace(
        record,
        state=TrialState.COMPLETE,
        metrics=found.metrics,
        step=found.step,
        micro_batch=found.micro_batch,
        reused=f"{found.sweep}/{found.number}",
        finished=record.created,
    )
    return finished, ledger.points(found.sweep, found.number)


def _copy(source: Path, destination: Path) -> None:
    destination.mkdir(parents=True, exist_ok=True)
    for path in sorted(path for path in source.iterdir() if path.is_file() and path.name != "attempt"):
        copy = destination / path.name
        copy.unlink(missing_ok=True)
        try:
            # A link costs nothing, and is safe: trainings replace files, they never write into them.
            os.link(path, copy)
        except OSError:
            shutil.copyfile(path, copy)
