"""Where a store and its ledger are, unless somebody says so."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from segda.errors import ConfigError
from segda.files import expanded
from segda.masking import reason
from sweeps.defaults import DEFAULT_STORE, LEDGER_VARIABLE
from sweeps.ledger.database import Ledger
from sweeps.store import Store
from sweeps.suggestions import Place, remember


def open_ledger(store: Store, ledger: Path | str | None, *, create: bool = True) -> Ledger:
    """Open the ledger of a store.

    Args:
        store: the folder of all sweeps.
        ledger: URL of its database, or a SQLite file; unset: what the variable SWEEPS_LEDGER says, else `ledger.db` in the store.
        create: whether to make it where there is none.

    Raises:
        ConfigError: there is none, or it cannot be opened.
    """
    return Ledger.open(_place(store, ledger), create=create)


@contextlib.contextmanager
def ledger_to_read(store: Store, ledger: Path | str | None) -> Iterator[Ledger]:
    """Open the ledger of a store for a block that only reads it; see `Ledger.to_read`.

    Args:
        store: as in `open_ledger`.
        ledger: as in `open_ledger`.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    with Ledger.to_read(_place(store, ledger)) as opened:
        try:
            yield opened
        except sa.exc.DBAPIError as error:
            raise ConfigError(
                f"the ledger cannot be read any further ({reason(error.orig or error)}); try again, or see to its disk"
            ) from error


def _place(store: Store, ledger: Path | str | None) -> Path | str:
    remember_place(store, ledger)
    return ledger or os.environ.get(LEDGER_VARIABLE) or store.ledger


def remember_place(store: Store, ledger: Path | str | None) -> None:
    """Let commands that are suggested from now on name a store and a ledger, where the next command would not find them itself.

    Args:
        store: as in `open_ledger`.
        ledger: as in `open_ledger`.
    """
    is_usual = ledger is None or str(ledger) == os.environ.get(LEDGER_VARIABLE)
    named = None if is_usual else str(ledger if "://" in str(ledger) else expanded(str(ledger)).absolute())
    remember(Place(store=None if store == Store.at(DEFAULT_STORE) else store.root, ledger=named))
