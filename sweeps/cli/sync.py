"""`sweeps sync`: MLflow brought up to date from the ledger."""

from pathlib import Path

import click

from sweeps.checks.makers import stored_spec
from sweeps.cli.options import examples, options
from sweeps.commands.places import open_ledger
from sweeps.ledger.lease import is_driven
from sweeps.store import Store


@click.command(
    "sync",
    epilog=examples(
        "sweeps sync camvid_day_to_dusk",
    ),
)
@click.argument("name")
@options("store", "ledger")
def sync_command(name: str, store_root: Path, ledger_url: str | None) -> None:
    """Send everything about the sweep NAME to MLflow again: what is missing there is made, what is double is removed.

    MLflow may have lost runs, the experiment or its whole database. What it has already stays as it is.
    """
    from sweeps.tracking import Tracker

    store = Store.at(store_root)
    with open_ledger(store, ledger_url, create=False) as ledger:
        spec = stored_spec(ledger.sweep(name))
        tracker = Tracker(spec.tracking.uri, experiment=spec.tracking.experiment, ledger=ledger, spec=spec, store=store)
        tracker.connect()
        tracker.send(final=not is_driven(ledger, name))
        for what, why in tracker.refused.items():
            click.echo(f"MLflow refuses {what}: {why}", err=True)
        click.echo(f"MLflow is up to date: {tracker.where}")
