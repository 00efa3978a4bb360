"""What `sweeps export` does."""

from pathlib import Path

import click

from sweeps.commands.places import ledger_to_read
from sweeps.search.export import export_csv, export_optuna
from sweeps.store import Store


def export_action(
    name: str,
    store_root: Path,
    ledger_url: str | None,
    optuna_target: str | None,
    force: bool,
    csv_path: Path | None,
) -> None:
    """Do `sweeps export`; the arguments are the command's."""
    with ledger_to_read(Store.at(store_root), ledger_url) as ledger:
        if optuna_target is not None:
            click.echo(export_optuna(ledger, name, optuna_target, force=force))
        if csv_path is not None:
            export_csv(ledger, name, csv_path)
            click.echo(csv_path)
