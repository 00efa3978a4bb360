"""`sweeps rename`: a sweep under another name."""

import click

from segda.cli_command import Command
from sweeps.cli.completion import sweep_names
from sweeps.cli.options import examples, options


@click.command(
    "rename",
    cls=Command,
    action="sweeps.cli.actions.rename:rename_action",
    epilog=examples(
        "sweeps rename first_try camvid_day_to_dusk",
        "sweeps rename first_try camvid_day_to_dusk --ledger postgresql+psycopg2://user@host/db",
    ),
)
@click.argument("name", metavar="OLD", shell_complete=sweep_names)
@click.argument("new")
@options("store", "ledger")
def rename_command(**_: object) -> None:
    """Rename the sweep OLD to NEW, in ledger, store, storage address, report and MLflow; other sweeps that learn from it follow.

    It is refused while a driver is at work. Whatever ends it in the middle, the same command goes on.
    """
