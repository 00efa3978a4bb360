"""Where a store and its ledger are, unless somebody says so."""

import os
from pathlib import Path

from sweeps.ledger.database import Ledger
from sweeps.store import Store

DEFAULT_STORE = "runs"
LEDGER_VARIABLE = "SWEEPS_LEDGER"
TRACKING_VARIABLE = "SWEEPS_TRACKING"


def open_ledger(store: Store, ledger: Path | str | None, *, create: bool = True) -> Ledger:
    """Open the ledger of a store.

    Args:
        store: the folder of all sweeps.
        ledger: URL of its database, or a SQLite file; unset: what the variable SWEEPS_LEDGER says, else `ledger.db` in the store.
        create: whether to make it where there is none.

    Raises:
        ConfigError: there is none, or it cannot be opened.
    """
    return Ledger.open(ledger or os.environ.get(LEDGER_VARIABLE) or store.ledger, create=create)
