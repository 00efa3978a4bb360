"""`sweeps profile`: what the networks of a sweep cost, and how far the figures can be believed."""

import click

from segda.cli_command import Command
from sweeps.cli.options import examples, options


@click.command(
    "profile",
    cls=Command,
    action="sweeps.cli.actions.profile:profile_action",
    epilog=examples(
        "sweeps profile my_sweep.yaml",
        "sweeps profile my_sweep --again",
        "sweeps profile my_sweep.yaml --json | jq .networks",
        "sweeps profile my_sweep.yaml --address auto --store /shared/runs",
    ),
)
@click.argument("sweep", metavar="FILE|NAME")
@options("store", "ledger", "address", "roots")
@click.option("--again", is_flag=True, help="Measure also what was measured alone before, and keep the new figures.")
@options("json")
def profile_command(**_: object) -> None:
    """Measure the networks that a sweep can reach, given as FILE or by the NAME of one that was begun.

    Figures that were measured alone are kept for all sweeps of the ledger; others are measured again by whoever needs them. Trials
    of the sweep whose latency is doubtful get the new figures; those that were judged by reliable ones keep them.
    """
