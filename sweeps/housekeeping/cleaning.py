"""A sweep freed of what nothing needs any more: checkpoints that nobody goes on from or picks, leftovers of what was killed.

What the ledger says of a checkpoint is written before it is removed, so a kill leaves nothing that an audit would miss, and the
same command removes the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segda.errors import ConfigError
from segda.rounds import is_round_file
from sweeps.checks.makers import stored_spec
from sweeps.execution.predictions import compared
from sweeps.execution.remote import CHECKPOINT, DAMAGED, needless_at, sweep_at
from sweeps.execution.remote_folder import PARTIAL, RemoteFolder
from sweeps.housekeeping.dependents import files_named
from sweeps.housekeeping.disk import files_below, freed_bytes, no_deployment, remove_folder
from sweeps.housekeeping.needed import needed
from sweeps.labelling.folder import compared_trials
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import Lease
from sweeps.ledger.records import CLEANED
from sweeps.store import Store
from sweeps.trial import TrialRecord, TrialState

# Kind -> why nothing needs it.
KINDS = {
    "checkpoints": "trained in full, but neither picked by any criterion, nor finalist, candidate for deployment, or reference",
    "resume states": "of trials that were stopped early or failed for good: no driver takes them up again",
    "damaged checkpoints": "put aside when they could not be read, by trials that have ended since",
    "files of replaced attempts": "at the storage address, where the newest attempt has its own",
    "unfinished files": "of processes that were killed while they wrote",
    "Ray's files": "of a driver that has ended; nothing reads them",
}
_CHECKPOINTS, _STATES, _DAMAGED, _REPLACED, _UNFINISHED, _RAY = KINDS
# What cannot be done afterwards.
LOST = (
    "`segda evaluate`, `predict` and `export` of the trials whose checkpoints go",
    "deploying one of them, should a longer search pick it: its network has to be trained again, as the trial's own command does",
    "taking their results over in another sweep (reuse), which trains them again",
)


@dataclass(frozen=True)
class Freed:
    """What goes of one kind.

    Attributes:
        kind: one of `KINDS`.
        trials: numbers of the trials that it is of.
        files: in the store.
        remote: paths below the sweep's folder at the storage address.
        num_bytes: that are free afterwards, of both.
    """

    kind: str
    trials: tuple[int, ...]
    files: tuple[Path, ...]
    remote: tuple[str, ...]
    num_bytes: int

    @property
    def why(self) -> str:
        """Why nothing needs it."""
        return KINDS[self.kind]


@dataclass(frozen=True)
class Cleaning:
    """What a sweep can do without.

    Attributes:
        sweep: its name.
        freed: what goes, those kinds that there are.
        kept: trial with a checkpoint that stays -> why.
    """

    sweep: str
    freed: tuple[Freed, ...]
    kept: dict[int, str]

    @property
    def num_bytes(self) -> int:
        """Bytes that are free afterwards."""
        return sum(item.num_bytes for item in self.freed)

    @property
    def lost(self) -> tuple[str, ...]:
        """What cannot be done afterwards; empty if no checkpoint of a trial that was trained in full goes."""
        return LOST if any(item.kind == _CHECKPOINTS for item in self.freed) else ()


def planned_cleaning(name: str, *, ledger: Ledger, store: Store) -> Cleaning:
    """Return what a sweep can do without; nothing is removed.

    Args:
        name: the sweep.
        ledger: where it is.
        store: where its files are.

    Raises:
        ConfigError: there is no such sweep, or an incompatible version wrote it.
        StorageError: the sweep's storage address did not answer.
    """
    record = ledger.sweep(name)
    spec = stored_spec(record)
    trials = ledger.trials(name)
    kept = needed(
        compared(trials, store=store, storage=spec.storage),
        spec,
        state=record.state,
        read=_read_by_others(trials, ledger=ledger, store=store),
        labelled=compared_trials(store.labels(name)),
    )
    remote = None if spec.storage is None else sweep_at(spec.storage, name)
    gone = _Gone()
    for trial in trials:
        if trial.state.is_finished:
            _look(trial, store.trial(trial), gone, is_freed=trial.number not in kept)
    sizes = {} if remote is None else remote.sizes()
    for trial in trials:
        place = "/".join(store.trial(trial).parts[-2:])
        names = [path.removeprefix(f"{place}/") for path in sizes if path.startswith(f"{place}/")]
        for file, what in needless_at(names, is_freed=trial.number not in kept).items():
            kind = {"checkpoint": _kind_of(trial), "replaced": _REPLACED, "partial": _UNFINISHED}[what]
            gone.add(kind, trial, remote=f"{place}/{file}", num_bytes=sizes[f"{place}/{file}"])
    in_ray = files_below(store.executor(name))
    unfinished = [path for path in files_below(store.sweep(name)) if _is_unfinished(path) and path not in in_ray]
    for kind, files in ((_UNFINISHED, unfinished), (_RAY, in_ray)):
        for path in files:
            gone.add(kind, None, file=path)
    with_checkpoint = {trial.number for trial in trials if (store.trial(trial) / CHECKPOINT).is_file()}
    return Cleaning(
        name, gone.freed(), {number: why for number, why in sorted(kept.items()) if number in with_checkpoint}
    )


def clean_sweep(name: str, *, ledger: Ledger, store: Store) -> Cleaning:
    """Remove what a sweep can do without.

    Args:
        name: as in `planned_cleaning`.
        ledger: as in `planned_cleaning`.
        store: as in `planned_cleaning`.

    Returns:
        What was removed.

    Raises:
        ConfigError: there is no such sweep, an incompatible version wrote it, somebody drives or deploys it, or a file cannot be
            removed.
        StorageError: the sweep's storage address did not answer.
    """
    record = ledger.sweep(name)
    with Lease(ledger, name).held(lambda: record.seconds), no_deployment(store, name):
        found = planned_cleaning(name, ledger=ledger, store=store)
        storage = record.spec.get("storage")
        remote = None if storage is None else sweep_at(str(storage), name)
        noted = {event.number for event in ledger.events(name) if event.kind == CLEANED}
        for item in found.freed:
            if item.kind in (_CHECKPOINTS, _STATES):
                for number in set(item.trials) - noted:
                    ledger.add_event(name, CLEANED, f"its checkpoint was removed: {item.why}", number=number)
            _remove(item, remote)
        remove_folder(store.executor(name))
    return found


class _Gone:
    """Collects what goes, by kind."""

    def __init__(self) -> None:
        self._trials: dict[str, set[int]] = {kind: set() for kind in KINDS}
        self._files: dict[str, list[Path]] = {kind: [] for kind in KINDS}
        self._remote: dict[str, list[str]] = {kind: [] for kind in KINDS}
        self._bytes: dict[str, int] = dict.fromkeys(KINDS, 0)

    def add(
        self, kind: str, trial: TrialRecord | None, *, file: Path | None = None, remote: str = "", num_bytes: int = 0
    ) -> None:
        if trial is not None:
            self._trials[kind].add(trial.number)
        self._files[kind] += [] if file is None else [file]
        self._remote[kind] += [remote] if remote else []
        self._bytes[kind] += num_bytes

    def freed(self) -> tuple[Freed, ...]:
        return tuple(
            Freed(
                kind,
                tuple(sorted(self._trials[kind])),
                tuple(files),
                tuple(self._remote[kind]),
                self._bytes[kind] + freed_bytes(files),
            )
            for kind, files in self._files.items()
            if files or self._remote[kind]
        )


def _look(trial: TrialRecord, folder: Path, gone: _Gone, *, is_freed: bool) -> None:
    """Collect what goes of the folder of a trial that has ended."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name == DAMAGED:
            gone.add(_DAMAGED, trial, file=path)
        elif is_freed and (path.name == CHECKPOINT or is_round_file(path.name)):
            gone.add(_kind_of(trial), trial, file=path)


def _kind_of(trial: TrialRecord) -> str:
    return _CHECKPOINTS if trial.state is TrialState.COMPLETE else _STATES


def _is_unfinished(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(PARTIAL)


def _read_by_others(trials: Sequence[TrialRecord], *, ledger: Ledger, store: Store) -> dict[int, str]:
    """Return the trials whose files other sweeps of the ledger name, with one that does."""
    folders = {store.trial(trial): trial.number for trial in trials}
    found = {}
    for other in ledger.sweeps():
        for folder, number in folders.items():
            if next(iter(files_named(other.spec, folder)), None) is not None:
                found[number] = other.name
    return found


def _remove(item: Freed, remote: RemoteFolder | None) -> None:
    """Remove what goes of one kind, in the store and at the storage address."""
    for path in item.files:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"{path} cannot be removed ({error}); see to it, and the same command goes on") from error
    if remote is not None:
        for name in item.remote:
            remote.remove(name)
