"""`sweeps rename`: a sweep under another name."""

from pathlib import Path

import click

from sweeps.cli.options import examples, options


@click.command(
    "rename",
    epilog=examples(
        "sweeps rename first_try camvid_day_to_dusk",
        "sweeps rename first_try camvid_day_to_dusk --ledger postgresql+psycopg2://user@host/db",
    ),
)
@click.argument("name", metavar="OLD")
@click.argument("new")
@options("store", "ledger")
def rename_command(name: str, new: str, store_root: Path, ledger_url: str | None) -> None:
    """Rename the sweep OLD to NEW, in ledger, store, storage address, report and MLflow; other sweeps that learn from it follow.

    It is refused while a driver is at work. Whatever ends it in the middle, the same command goes on.
    """
    from sweeps.commands.tidying import rename  # takes seconds

    rename(name, new, store=store_root, ledger=ledger_url)
    click.echo(f"renamed {name} to {new}")
