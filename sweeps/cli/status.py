"""`sweeps status`: how far sweeps are."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live

from segda.documents import as_json
from segda.errors import ConfigError
from segda.streams import is_read
from sweeps.cli.options import examples, options
from sweeps.commands.places import ledger_to_read
from sweeps.documents.status import overview_document, status_document
from sweeps.ledger.database import Ledger
from sweeps.reports.status import EVERY_TRIAL, MOST_ROWS, read_overview, read_status
from sweeps.reports.status_table import overview, render
from sweeps.reports.terminal import console, print_whole, width_of
from sweeps.store import Store
from sweeps.suggestions import suggest

_EVERY_SECONDS = 2.0
_DAY = 86_400.0
_LINES_AROUND = 8  # of the terminal that the table of trials does not have


def _parse_seconds(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """Read the seconds between two looks."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < _DAY:
        raise click.BadParameter(
            f"expected seconds, e.g. --watch 10, got {value!r}; the sweep's name stands before --watch"
        )
    return seconds


@click.command(
    "status",
    epilog=examples(
        "sweeps status",
        "sweeps status camvid_day_to_dusk",
        "sweeps status camvid_day_to_dusk --watch",
        "sweeps status camvid_day_to_dusk --json | jq .counts",
        "sweeps status camvid_day_to_dusk --watch 30 --ledger postgresql+psycopg2://user@host/db",
    ),
)
@click.argument("name", required=False)
@click.option(
    "--watch",
    is_flag=False,
    flag_value=str(_EVERY_SECONDS),
    callback=_parse_seconds,
    metavar="[SECONDS]",
    help=f"Refresh every so many seconds ({_EVERY_SECONDS:g}) until the sweep has ended, or Ctrl-C.",
)
@options("store", "ledger", "json", "oracle")
def status_command(
    name: str | None,
    watch: float | None,
    store_root: Path,
    ledger_url: str | None,
    as_document: bool,
    oracle: bool,
) -> None:
    """Show all sweeps of a store, or the trials of the sweep NAME.

    It reads nothing but the ledger, so it works on every machine that reaches that, and disturbs nothing.
    """
    if as_document and watch is not None:
        raise ConfigError("--json prints one document; leave --watch out, and ask again as often as you like")
    if oracle and not as_document:
        raise ConfigError(
            "--oracle is about --json: the table shows no metric of target labels; "
            f"{suggest('show', 'NAME', 'TRIAL', '--oracle')} does"
        )
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
