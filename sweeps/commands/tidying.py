"""Sweeps deleted, renamed and cleaned: what `sweeps delete`, `sweeps rename` and `sweeps clean` do."""

from collections.abc import Callable
from pathlib import Path

import click

from segda.errors import SegdaError
from sweeps.checks.makers import stored_spec
from sweeps.commands.places import ledger_to_read, open_ledger
from sweeps.defaults import DEFAULT_STORE
from sweeps.housekeeping.cleaning import Cleaning, clean_sweep, planned_cleaning
from sweeps.housekeeping.deletion import Deletion, delete_sweep, planned_deletion
from sweeps.housekeeping.renaming import rename_sweep
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import driven_elsewhere, is_alive, is_driven
from sweeps.reports.sweep_report import write_report
from sweeps.store import Store
from sweeps.suggestions import suggest


def check_idle(name: str, *, store: Path | str = DEFAULT_STORE, ledger: str | None = None) -> None:
    """Refuse a sweep that a process drives, before anybody is asked about it.

    Args:
        name: the sweep.
        store: folder of its ledger.
        ledger: URL of the ledger's database; unset: the variable SWEEPS_LEDGER, else a file in the store.

    Raises:
        ConfigError: there is no such sweep, or it is driven.
    """
    with ledger_to_read(Store.at(store), ledger) as opened:
        record = opened.sweep(name)
    if is_alive(record.driver, record.driver_seen):
        raise driven_elsewhere(name, record)


def delete(
    name: str,
    *,
    mlflow: bool = False,
    dry_run: bool = False,
    store: Path | str = DEFAULT_STORE,
    ledger: str | None = None,
) -> Deletion:
    """Delete a sweep: its rows in the ledger, its folder in the store, and what it has at its storage address.

    Whatever is ended in the middle, the same call goes on. Figures of architectures stay, since sweeps share them, and so do trials
    of other sweeps that took its results over. Nobody is asked.

    Args:
        name: the sweep.
        mlflow: whether its runs in MLflow go too, with the experiment if that holds no others.
        dry_run: whether to return only what would go.
        store: folder of ledger and trials.
        ledger: URL of the ledger's database; unset: the variable SWEEPS_LEDGER, else a file in the store.

    Returns:
        What was there of it.

    Raises:
        ConfigError: there is no such sweep, a process drives or deploys it, or another sweep needs it.
        SegdaError: its storage address or MLflow do not answer.
    """
    place = Store.at(store)
    if dry_run:
        with ledger_to_read(place, ledger) as opened:
            return planned_deletion(name, ledger=opened, store=place, mlflow=mlflow)
    with open_ledger(place, ledger, create=False) as opened:
        return delete_sweep(name, ledger=opened, store=place, mlflow=mlflow)


def rename(
    name: str,
    new: str,
    *,
    store: Path | str = DEFAULT_STORE,
    ledger: str | None = None,
    note: Callable[[str], None] = lambda line: click.echo(line, err=True),
) -> None:
    """Give a sweep another name, in the ledger, the store, its storage address, its report and MLflow.

    Whatever is ended in the middle, the same call goes on.

    Args:
        name: the sweep.
        new: its new name, as a sweep file may have it.
        store: folder of ledger and trials.
        ledger: URL of the ledger's database; unset: the variable SWEEPS_LEDGER, else a file in the store.
        note: is told what follows from the ledger and could not be brought up to date, one line each.

    Raises:
        ConfigError: there is no such sweep, the new name is none or taken, or a process drives or deploys the sweep.
        StorageError: its storage address does not answer.
    """
    place = Store.at(store)
    with open_ledger(place, ledger, create=False) as opened:
        rename_sweep(name, new, ledger=opened, store=place)
        try:
            if place.report(new).is_file():
                write_report(opened, place, new)
        except (SegdaError, OSError) as error:
            note(f"the report still has the old name ({error}); {suggest('report', new)} writes it anew")
        try:
            _tell_mlflow(new, ledger=opened, store=place)
        except SegdaError as error:
            note(f"MLflow still has the old name ({error}); {suggest('sync', new)} brings it up to date")


def _tell_mlflow(name: str, *, ledger: Ledger, store: Store) -> None:
    spec = stored_spec(ledger.sweep(name))
    if spec.tracking.uri is None and not store.mlflow.is_file():
        return  # it never heard of the sweep
    from sweeps.tracking import Tracker  # takes seconds

    tracker = Tracker(spec.tracking.uri, experiment=spec.tracking.experiment, ledger=ledger, spec=spec, store=store)
    tracker.connect()
    tracker.send(final=not is_driven(ledger, name), again=False)


def clean(
    *names: str,
    dry_run: bool = False,
    store: Path | str = DEFAULT_STORE,
    ledger: str | None = None,
    note: Callable[[str], None] = lambda line: click.echo(line, err=True),
) -> list[Cleaning]:
    """Remove what sweeps can do without: checkpoints that nobody picks or goes on from, and leftovers of what was killed.

    `resume`, `report`, `audit` and `deploy` do afterwards what they did before. Nobody is asked.

    Args:
        *names: the sweeps; none: all of the ledger that nobody drives.
        dry_run: whether to return only what would go.
        store: folder of ledger and trials.
        ledger: URL of the ledger's database; unset: the variable SWEEPS_LEDGER, else a file in the store.
        note: is told which of all sweeps are left out, one line each.

    Returns:
        What was removed of each, in the order of the names or, of all, oldest first.

    Raises:
        ConfigError: there is no such sweep, a process drives or deploys one of them, or a file cannot be removed.
        StorageError: a storage address does not answer.
    """
    place = Store.at(store)
    with ledger_to_read(place, ledger) if dry_run else open_ledger(place, ledger, create=False) as opened:
        chosen = [opened.sweep(name).name for name in dict.fromkeys(names)]  # none is cleaned if one is not there
        for record in () if names else opened.sweeps():
            if is_driven(opened, record.name):
                note(f"{record.name} is being run, and stays as it is")
            else:
                chosen.append(record.name)
        what = planned_cleaning if dry_run else clean_sweep
        return [what(name, ledger=opened, store=place) for name in chosen]
