"""`sweeps sync`: MLflow brought up to date from the ledger."""

import click

from segda.cli_command import Command
from sweeps.cli.options import examples, options


@click.command(
    "sync",
    cls=Command,
    action="sweeps.cli.actions.sync:sync_action",
    epilog=examples(
        "sweeps sync camvid_day_to_dusk",
    ),
)
@options("name")
@options("store", "ledger")
def sync_command(**_: object) -> None:
    """Send everything about the sweep NAME to MLflow again: what is missing there is made, what is double is removed.

    MLflow may have lost runs, the experiment or its whole database. What it has already stays as it is.
    """
