"""`sweeps ui`: MLflow's page of a store, with every trial in sight."""

import os
import webbrowser
from pathlib import Path

import click

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
        "ssh -L 5000:127.0.0.1:5000 HOST     then open the link of a sweep there in the browser here",
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
    settings against outcome. A sweep whose runs are at an MLflow server is opened there. Ctrl-C ends it.
    """
    from sweeps.commands.serving import has_screen, pages, served  # MLflow takes seconds to import

    store = Store.at(store_root)
    with ledger_to_read(store, ledger_url) as ledger:
        found = pages(ledger, store, name=name)
    opens = browser and has_screen(os.environ)
    if found[0].is_at_server:
        click.echo(f"The runs of {found[0].sweep} are at a server: {found[0].link(masked(found[0].uri))}")
        if opens:
            webbrowser.open(found[0].link(found[0].uri))
        return
    try:
        with served(found[0].uri, port=port) as server:
            for page in found[:_MOST_LISTED]:
                click.echo(f"{page.sweep}: {page.link(server.address)}")
            if len(found) > _MOST_LISTED:
                click.echo(f"{len(found) - _MOST_LISTED} more sweeps: {server.address}")
            click.echo("Ctrl-C ends it.")
            if opens:
                webbrowser.open(found[0].link(server.address))
            server.wait_for_end()
    except KeyboardInterrupt:
        return
