"""What `sweeps sync` does."""

from pathlib import Path

import click

from sweeps.checks.makers import stored_spec
from sweeps.commands.places import open_ledger
from sweeps.ledger.lease import is_driven
from sweeps.store import Store
from sweeps.tracking import Tracker


def sync_action(name: str, store_root: Path, ledger_url: str | None) -> None:
    """Do `sweeps sync`; the arguments are the command's."""
    store = Store.at(store_root)
    with open_ledger(store, ledger_url, create=False) as ledger:
        spec = stored_spec(ledger.sweep(name))
        tracker = Tracker(spec.tracking.uri, experiment=spec.tracking.experiment, ledger=ledger, spec=spec, store=store)
        tracker.connect()
        tracker.send(final=not is_driven(ledger, name))
        for what, why in tracker.refused.items():
            click.echo(f"MLflow refuses {what}: {why}", err=True)
        click.echo(f"MLflow is up to date: {tracker.where}")
