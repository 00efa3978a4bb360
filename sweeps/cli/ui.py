"""`sweeps ui`: MLflow's page of a store, with every trial in sight."""

import threading
import webbrowser
from pathlib import Path
from urllib.parse import urlsplit

import click

from segda.errors import ConfigError
from segda.masking import masked
from sweeps.cli.options import examples, options
from sweeps.commands.places import ledger_to_read
from sweeps.store import Store

_MOST_LISTED = 10


@click.command(
    "ui",
    epilog=examples(
        "sweeps ui",
        "sweeps ui camvid_day_to_dusk",
        "sweeps ui --store /archive/runs --port 5005 --no-browser",
    ),
)
@click.argument("name", required=False)
@options("store", "ledger")
@click.option(
    "--port", type=click.IntRange(min=1, max=65535), help="Where to serve it.  [default: 5000, or the next free one]"
)
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open the page in a browser.")
def ui_command(name: str | None, store_root: Path, ledger_url: str | None, port: int | None, browser: bool) -> None:
    """Serve MLflow's pages for a store, to this machine alone, and open the sweep NAME, or the one that began last.

    Every trial is a row with what was searched and what came of it; the picked one has a star, and the charts beside the table show
    settings against outcome. A sweep that writes to a server of its own is opened there. Ctrl-C ends it.
    """
    from sweeps.tracking.ui import pages, served  # MLflow takes seconds to import

    store = Store.at(store_root)
    with ledger_to_read(store, ledger_url) as ledger:
        found = pages(ledger, store)
        if name is not None:
            ledger.sweep(name)  # else a typing error would be taken for a sweep that MLflow does not have
    chosen = next((page for page in found if name in (None, page.sweep)), None)
    if chosen is None:
        which = f"sweep {name!r}" if name else "any sweep of this store"
        raise ConfigError(f"MLflow does not have {which} yet; `sweeps sync NAME --store {store.root}` sends it")
    if urlsplit(chosen.uri).scheme in ("http", "https"):
        address = f"{masked(chosen.uri).rstrip('/')}/{chosen.path}"
        click.echo(f"{chosen.sweep} is at its own server: {address}")
        if browser:
            webbrowser.open(address)
        return
    with served(chosen.uri, port=port) as address:
        for page in found[:_MOST_LISTED]:
            if page.uri == chosen.uri:
                click.echo(f"{page.sweep}: {address}/{page.path}")
        click.echo("Ctrl-C ends it.")
        if browser:
            webbrowser.open(f"{address}/{chosen.path}")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return
