"""What `sweeps ui` does."""

import os
import webbrowser
from pathlib import Path

import click

from segda.masking import masked
from sweeps.commands.places import ledger_to_read
from sweeps.commands.serving import has_screen, pages, served
from sweeps.store import Store

_MOST_LISTED = 10


def ui_action(name: str | None, store_root: Path, ledger_url: str | None, port: int | None, browser: bool) -> None:
    """Do `sweeps ui`; the arguments are the command's."""
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
