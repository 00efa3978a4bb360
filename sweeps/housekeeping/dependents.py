"""Which other sweeps of a ledger need one: they learn from it, read its files, or took results over."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segda.errors import ConfigError
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import is_alive
from sweeps.ledger.records import SweepRecord, SweepState
from sweeps.ledger.sweep_rows import learned_from
from sweeps.store import Store
from sweeps.suggestions import suggest


@dataclass(frozen=True)
class Dependent:
    """A sweep that cannot go on without another one.

    Attributes:
        record: the sweep.
        why: what it takes from the other one, for people.
    """

    record: SweepRecord
    why: str


def dependents(ledger: Ledger, store: Store, name: str) -> list[Dependent]:
    """Return the sweeps that cannot go on without another one.

    Args:
        ledger: where all are.
        store: has the files of the other one.
        name: the other one.
    """
    found = []
    for record in ledger.sweeps():
        if record.name == name:
            continue
        read = next(iter(files_named(record.spec, store.sweep(name))), None)
        if read is not None:
            found.append(Dependent(record, f"reads {read}"))
        elif name in learned_from(record.spec):
            found.append(Dependent(record, f"begins with what {name!r} has learned (sampler.warm_start)"))
    return found


def refuse_if_driven(found: list[Dependent], name: str) -> None:
    """Refuse to change a sweep under a driver that reads it.

    Args:
        found: the sweeps that need it.
        name: the sweep.

    Raises:
        ConfigError: one of them is running.
    """
    for item in found:
        if is_alive(item.record.driver, item.record.driver_seen):
            raise ConfigError(
                f"sweep {item.record.name!r}, which is running, {item.why}; wait until it has ended, or "
                f"{suggest('stop', item.record.name)}, before {name!r} is changed"
            )


def refuse_if_unfinished(found: list[Dependent], name: str) -> None:
    """Refuse to take a sweep away from one that is not finished.

    Args:
        found: the sweeps that need it.
        name: the sweep.

    Raises:
        ConfigError: one of them is not finished.
    """
    for item in found:
        if item.record.state is not SweepState.FINISHED:
            raise ConfigError(
                f"sweep {item.record.name!r}, which is not finished, {item.why}; finish it with "
                f"{suggest('resume', item.record.name)} or {suggest('delete', item.record.name)} before {name!r} is deleted"
            )


def files_named(plain: Any, folder: Path) -> Iterator[str]:
    """Yield the texts in plain data that name a file in a folder.

    Args:
        plain: e.g. a sweep file.
        folder: absolute.
    """
    if isinstance(plain, Mapping):
        for value in plain.values():
            yield from files_named(value, folder)
    elif isinstance(plain, list | tuple):
        for value in plain:
            yield from files_named(value, folder)
    elif isinstance(plain, str) and plain.startswith(f"{folder}/"):
        yield plain
