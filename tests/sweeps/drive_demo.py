"""A driver that can be killed: `python drive_demo.py STORE TRAIN NUM_TRIALS`; begins the sweep or goes on with it."""

import sys

import click
import fakes

from segda.cli_errors import run_cli
from sweeps.cli.actions.run import conclude
from sweeps.commands.driving import begin, drive
from sweeps.execution import cluster
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.store import Store


def no_measuring(architectures, **_):
    return ((architecture, fakes.profile(architecture)) for architecture in architectures)


@click.command()
@click.argument("root")
@click.argument("train")
@click.argument("trials", type=int)
@click.pass_context
def main(context, root, train, trials):
    store = Store.at(root)
    cluster.profile_all = no_measuring
    spec = SweepSpec.model_validate(fakes.plain_spec(budget={"trials": trials, "concurrency": 2}))
    with Ledger.open(store.ledger) as ledger:
        if not ledger.sweeps():
            begin(spec, ledger=ledger, source="test")
        code = conclude(
            lambda: drive(spec, ledger=ledger, store=store, train=train, fingerprint=fakes.fingerprint),
        )
    context.exit(code)


if __name__ == "__main__":
    run_cli(main, sys.argv[1:])
