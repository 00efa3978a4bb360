"""The log of a trial, as it is and as it grows."""

from collections.abc import Callable, Iterator
from pathlib import Path

import click

from segda.errors import ConfigError
from sweeps.commands.places import ledger_to_read
from sweeps.defaults import DEFAULT_STORE
from sweeps.reports.trial_logs import followed, read_log, why_no_log
from sweeps.store import Store


def logs(
    name: str,
    trial: int,
    *,
    store: Path | str = DEFAULT_STORE,
    ledger: str | None = None,
    note: Callable[[str], None] = click.echo,
) -> str:
    """Return the log of a trial so far: what its attempts reported, logged, printed and failed by.

    Args:
        name: the sweep.
        trial: number of the trial.
        store: folder of ledger and trials.
        ledger: URL of the ledger's database; unset: the variable SWEEPS_LEDGER, else a file in the store.
        note: is told where it was read if that is not the trial's folder.

    Raises:
        ConfigError: there is no such sweep or trial, or no log of it here; the message says why.
        StorageError: the sweep's storage address did not answer.
    """
    place = Store.at(store)
    with ledger_to_read(place, ledger) as opened:
        storage = opened.sweep(name).spec.get("storage")
        record = opened.trial(name, trial)
    found = read_log(record, store=place, storage=storage)
    if not found.text:
        raise ConfigError(why_no_log(record, store=place))
    if found.origin:
        note(f"read from {found.origin}")
    return found.text


def follow(
    name: str,
    trial: int,
    *,
    store: Path | str = DEFAULT_STORE,
    ledger: str | None = None,
    note: Callable[[str], None] = click.echo,
) -> Iterator[str]:
    """Yield the log of a trial as it grows, through new attempts, until the trial or its sweep has ended.

    Args:
        name: as in `logs`.
        trial: as in `logs`.
        store: as in `logs`.
        ledger: as in `logs`.
        note: is told what is not of the log, e.g. that no worker has begun yet.

    Yields:
        Whole lines: first all that is there, then what is new.

    Raises:
        ConfigError: there is no such sweep or trial.
        StorageError: the sweep's storage address did not answer.
    """
    place = Store.at(store)
    with ledger_to_read(place, ledger) as opened:
        yield from followed(opened, place, name, trial, note=note)
