"""What `sweeps rename` does."""

from pathlib import Path

import click

from sweeps.commands.tidying import rename


def rename_action(name: str, new: str, store_root: Path, ledger_url: str | None) -> None:
    """Do `sweeps rename`; the arguments are the command's."""
    rename(name, new, store=store_root, ledger=ledger_url)
    click.echo(f"renamed {name} to {new}")
