"""A sweep under another name: its files at the storage address and in the store, then its rows in the ledger, in one transaction.

The ledger knows from the beginning that it is being renamed (`SweepInfo.pending`), so that nobody drives it or takes either
name, and the same command goes on after a kill. What follows from the ledger, the report and MLflow, comes afterwards. MLflow
finds the sweep's runs by an identity that the name does not change (`sweeps.tracking.experiment.sweep_id`).
"""

import json
import shutil
from pathlib import Path

from segda.errors import ConfigError
from segda.files import write_json
from sweeps.execution.remote import sweep_at
from sweeps.file.spec import check_sweep_name
from sweeps.housekeeping.dependents import dependents, refuse_if_driven
from sweeps.housekeeping.disk import no_deployment, remove_folder
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import Lease
from sweeps.ledger.records import RENAME, SweepRecord
from sweeps.planning.plan import plan_path
from sweeps.store import Store

_PLAN = "sweep"  # key of a plan


def rename_sweep(name: str, new: str, *, ledger: Ledger, store: Store) -> bool:
    """Rename a sweep, or go on with what an earlier call began.

    Args:
        name: the sweep.
        new: its new name.
        ledger: where it is.
        store: where its files are.

    Returns:
        Whether there was something to do; not if the sweep has been renamed so already.

    Raises:
        ConfigError: there is no such sweep, the new name is none or taken, somebody drives or deploys the sweep, another one that
            runs needs it, or files cannot be moved.
        StorageError: the sweep's storage address did not answer.
    """
    check_sweep_name(new)
    known = {record.name: record for record in ledger.sweeps()}
    if name not in known and new in known and known[new].info.former_names[-1:] == (name,):
        return False
    record = ledger.sweep(name)
    chore = (RENAME, new)
    with Lease(ledger, name, chore=chore).held(lambda: record.seconds), no_deployment(store, name):
        refuse_if_driven(dependents(ledger, store, name), name)
        if ledger.sweep(name).info.pending != chore:
            _check_free(record, new, ledger=ledger, store=store)
            ledger.update_info(name, pending=chore)
            # From now on nobody can begin a sweep of the new name; one may have begun since we looked.
            if new in {other.name for other in ledger.sweeps()}:
                ledger.update_info(name, pending=())
                raise _taken(new)
        if record.spec.get("storage") is not None:
            _move_at(str(record.spec["storage"]), name, new)
        _move(store.sweep(name), store.sweep(new))
        _rename_in_plan(plan_path(store, new), new)
        ledger.rename_sweep(name, new, folder=str(store.sweep(name)), new_folder=str(store.sweep(new)))
    return True


def _check_free(record: SweepRecord, new: str, *, ledger: Ledger, store: Store) -> None:
    """Refuse a new name that something has already."""
    if new in {other.name for other in ledger.sweeps()}:
        raise _taken(new)
    storage = record.spec.get("storage")
    there = None if storage is None else sweep_at(str(storage), new)
    for place in (store.sweep(new) if store.sweep(new).exists() else None, there if there and there.sizes() else None):
        if place is not None:
            raise ConfigError(
                f"{place} is there already, and no sweep of the ledger has it; move it away or choose another name"
            )


def _taken(new: str) -> ConfigError:
    return ConfigError(f"there is a sweep {new!r} already; choose another name")


def _move_at(storage: str, name: str, new: str) -> None:
    before, after = sweep_at(storage, name), sweep_at(storage, new)
    for path in before.sizes():
        before.move(path, after)
    before.clear()


def _move(before: Path, after: Path) -> None:
    """Move a folder, whole or what is left of it; a report that somebody has had written meanwhile is made anew anyway."""
    if not before.exists():
        return
    try:
        if not after.exists():
            before.rename(after)
            return
        for path in before.iterdir():
            if not (after / path.name).exists():
                shutil.move(path, after / path.name)
            elif path.is_dir():
                raise ConfigError(
                    f"{path} and {after / path.name} are both there; move one away, and the same command goes on"
                )
    except OSError as error:
        raise ConfigError(f"{before} cannot be moved ({error}); see to it, and the same command goes on") from error
    remove_folder(before)


def _rename_in_plan(path: Path, new: str) -> None:
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # there is none, or it is left out wherever it is read
    if isinstance(plan, dict) and plan.get(_PLAN) != new:
        write_json(path, {**plan, _PLAN: new})
