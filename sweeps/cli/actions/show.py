"""What `sweeps show` does."""

import json
from pathlib import Path

import click

from segda.documents import as_json
from sweeps.commands.showing import ShownTrial, show
from sweeps.reports.details_table import next_lines, render_sweep, render_trial
from sweeps.reports.terminal import console


def show_action(
    name: str,
    trial: int | None,
    store_root: Path,
    ledger_url: str | None,
    is_config: bool,
    as_document: bool,
    oracle: bool,
) -> None:
    """Do `sweeps show`; the arguments are the command's."""
    found = show(name, trial, store=store_root, ledger=ledger_url)
    if as_document:
        click.echo(as_json(found.document(oracle=oracle)))
        return
    if isinstance(found, ShownTrial):
        if is_config:
            click.echo(json.dumps(found.config, indent=2))
            return
        console().print(render_trial(found, oracle=oracle))
    else:
        console().print(render_sweep(found))
    click.echo("\n".join(next_lines(found)))
