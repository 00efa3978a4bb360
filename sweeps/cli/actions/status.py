"""What `sweeps status` does."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live

from segda.documents import as_json
from segda.streams import is_read
from sweeps.commands.places import ledger_to_read
from sweeps.documents.status import overview_document, status_document
from sweeps.ledger.database import Ledger
from sweeps.reports.status import EVERY_TRIAL, MOST_ROWS, read_overview, read_status
from sweeps.reports.status_table import overview, render
from sweeps.reports.terminal import console, print_whole, width_of
from sweeps.store import Store

_LINES_AROUND = 8  # of the terminal that the table of trials does not have


def status_action(
    name: str | None,
    watch: float | None,
    store_root: Path,
    ledger_url: str | None,
    as_document: bool,
    oracle: bool,
) -> None:
    """Do `sweeps status`; the arguments are the command's."""
    store = Store.at(store_root)
    with ledger_to_read(store, ledger_url) as ledger:
        if as_document:
            click.echo(as_json(_document(ledger, name, oracle=oracle)))
            return
        shown = console()
        if watch is None:
            print_whole(shown, _look(ledger, name, width=width_of(shown), rows=MOST_ROWS)[0])
            return
        try:
            _watch(lambda: _look(ledger, name, width=width_of(shown), rows=_rows(shown)), every=watch, shown=shown)
        except KeyboardInterrupt:
            return  # the sweep goes on; only looking at it has ended


def _document(ledger: Ledger, name: str | None, *, oracle: bool) -> dict[str, Any]:
    if name is None:
        return overview_document(read_overview(ledger), now=time.time())
    return status_document(read_status(ledger, name, rows=EVERY_TRIAL), oracle=oracle)


def _rows(shown: Console) -> int:
    return max(1, shown.height - _LINES_AROUND) if shown.is_terminal else MOST_ROWS


def _look(ledger: Ledger, name: str | None, *, width: int, rows: int) -> tuple[Group, bool]:
    """Return what to show, and whether there is nothing more to come."""
    if name is None:
        return overview(ledger, width=width), False
    status = read_status(ledger, name, rows=rows)
    return render(status, width=width), status.has_ended


def _watch(look: Callable[[], tuple[Group, bool]], *, every: float, shown: Console) -> None:
    """Redraw in place on a terminal; print again and again elsewhere."""
    if not shown.is_terminal:
        while True:
            picture, is_over = look()
            shown.print(time.strftime("%Y-%m-%d %H:%M:%S"), highlight=False)
            print_whole(shown, picture)
            if is_over or not is_read(shown.file):
                return
            time.sleep(every)
    with Live(console=shown, auto_refresh=False) as live:
        while True:
            picture, is_over = look()
            live.update(picture, refresh=True)
            if is_over or not is_read(shown.file):
                return
            time.sleep(every)
