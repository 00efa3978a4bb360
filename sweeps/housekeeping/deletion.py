"""A sweep deleted: out of MLflow if that is wanted, the storage address, the store, and at last the ledger.

In this order a sweep that is half deleted is still in the ledger, which knows that it is (`SweepInfo.pending`): nobody drives it or
takes its name, and the same command finds what is left and goes on.
"""

from dataclasses import dataclass
from pathlib import Path

from segda.masking import masked
from sweeps.execution.remote import sweep_at
from sweeps.housekeeping.dependents import dependents, refuse_if_driven, refuse_if_unfinished
from sweeps.housekeeping.disk import files_below, freed_bytes, no_deployment, remove_folder
from sweeps.labelling.folder import ANSWERS
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import Lease
from sweeps.ledger.records import DELETE, SweepRecord
from sweeps.reports.formats import count
from sweeps.store import Store

_TRIALS, _DEPLOYMENT, _REST, _STORAGE = "trials", "deployment", "report, plan and the like", "storage address"


@dataclass(frozen=True)
class Part:
    """Files that go.

    Attributes:
        what: they are, for people.
        where: folder or address.
        files: how many.
        num_bytes: that are free afterwards; what other sweeps share is not.
    """

    what: str
    where: str
    files: int
    num_bytes: int


@dataclass(frozen=True)
class Deletion:
    """What the deletion of a sweep takes away.

    Attributes:
        sweep: its name.
        trials: how many the ledger has of it.
        reports: how many the ledger has of these.
        parts: files, those that there are.
        notes: what becomes of others, one line each.
        mlflow: what becomes of its runs there, in one line.
    """

    sweep: str
    trials: int
    reports: int
    parts: tuple[Part, ...]
    notes: tuple[str, ...]
    mlflow: str

    @property
    def num_bytes(self) -> int:
        """Bytes that are free afterwards."""
        return sum(part.num_bytes for part in self.parts)


def planned_deletion(name: str, *, ledger: Ledger, store: Store, mlflow: bool) -> Deletion:
    """Return what the deletion of a sweep would take away; nothing is changed.

    Args:
        name: the sweep.
        ledger: where it is.
        store: where its files are.
        mlflow: whether its runs in MLflow are to go too.

    Raises:
        ConfigError: there is no such sweep, or another one that is not finished needs it.
        StorageError: the sweep's storage address did not answer.
    """
    record = ledger.sweep(name)
    needed = dependents(ledger, store, name)
    refuse_if_unfinished(needed, name)
    parts = _parts(record, store)
    notes = [f"sweep {item.record.name!r} cannot go on without it: it {item.why}" for item in needed]
    taken = [trial for other in ledger.sweeps() for trial in _taken(ledger, other.name, name)]
    if taken:
        notes.append(f"{count(len(taken), 'trial')} of other sweeps took results over and keep them, with their files")
    if not parts and ledger.trials(name):
        notes.append(f"there are no files of it in {store.root}; if they are elsewhere, name that folder with --store")
    answers = store.labels(name) / ANSWERS
    if files_below(answers):
        notes.append(f"labels that somebody has made are in {answers}; copy them first if they shall stay")
    where = _where(record, store)
    told = f"its runs in {where} go too" if mlflow else f"its runs in {where} stay; --mlflow deletes them too"
    counts = len(ledger.trials(name)), len(ledger.points(name))
    return Deletion(name, *counts, parts, tuple(notes), told)


def delete_sweep(name: str, *, ledger: Ledger, store: Store, mlflow: bool) -> Deletion:
    """Delete a sweep, or what an earlier call left of it.

    Args:
        name: as in `planned_deletion`.
        ledger: as in `planned_deletion`.
        store: as in `planned_deletion`.
        mlflow: as in `planned_deletion`.

    Returns:
        What was taken away.

    Raises:
        ConfigError: there is no such sweep, somebody drives or deploys it, another one needs it, or files cannot be removed.
        StorageError: the sweep's storage address did not answer.
        TrackingError: MLflow cannot be reached.
    """
    record = ledger.sweep(name)
    with Lease(ledger, name, chore=(DELETE,)).held(lambda: record.seconds), no_deployment(store, name):
        refuse_if_driven(dependents(ledger, store, name), name)
        found = planned_deletion(name, ledger=ledger, store=store, mlflow=mlflow)
        if mlflow:
            from sweeps.tracking.removal import RunRemoval  # takes seconds

            removal = RunRemoval(record, store=store)  # before anything goes: MLflow may be away
        ledger.update_info(name, pending=(DELETE,))
        if mlflow:
            removal.remove()
        if record.spec.get("storage") is not None:
            sweep_at(str(record.spec["storage"]), name).clear()
        remove_folder(store.sweep(name))
        ledger.delete_sweep(name)
    return found


def _parts(record: SweepRecord, store: Store) -> tuple[Part, ...]:
    folder = store.sweep(record.name)
    groups: dict[str, list[Path]] = {_TRIALS: [], _DEPLOYMENT: [], _REST: []}
    places = {_TRIALS: folder / "trials", _DEPLOYMENT: store.deployment(record.name), _REST: folder}
    for path in files_below(folder):
        groups[next(what for what, place in places.items() if path.is_relative_to(place))].append(path)
    parts = [Part(what, str(places[what]), len(files), freed_bytes(files)) for what, files in groups.items() if files]
    if record.spec.get("storage") is not None:
        there = sweep_at(str(record.spec["storage"]), record.name)
        sizes = there.sizes()
        parts += [Part(_STORAGE, str(there), len(sizes), sum(sizes.values()))] if sizes else []
    return tuple(parts)


def _taken(ledger: Ledger, other: str, name: str) -> list[int]:
    if other == name:
        return []
    return [trial.number for trial in ledger.trials(other) if (trial.reused or "").rpartition("/")[0] == name]


def _where(record: SweepRecord, store: Store) -> str:
    uri = (record.spec.get("tracking") or {}).get("uri")
    return f"MLflow ({masked(str(uri)) if uri else store.mlflow})"
