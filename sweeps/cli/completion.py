"""`sweeps completion`, and what it completes by looking into a store."""

import sqlite3
from contextlib import closing

import click
from click.shell_completion import CompletionItem

from segda.cli.completion import completion_command as command_of
from segda.errors import SegdaError
from sweeps.defaults import DEFAULT_STORE
from sweeps.store import Store

_PATIENCE = 0.2  # seconds; who writes just now is not waited for any longer


def sweep_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Return the sweeps whose names begin so, of the file that is the ledger of a store; of no database elsewhere."""
    try:
        file = Store.at(context.params.get("store_root") or DEFAULT_STORE).ledger
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=_PATIENCE)) as connection:
            rows = connection.execute("SELECT name FROM sweep ORDER BY name").fetchall()
    except (sqlite3.Error, SegdaError):
        return []
    return [CompletionItem(name) for (name,) in rows if name.startswith(incomplete)]


completion_command = command_of("sweeps")
