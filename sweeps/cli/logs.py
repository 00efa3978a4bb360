"""`sweeps logs`: what happens to a trial, as it happens."""

import click

from segda.cli_command import Command
from sweeps.cli.options import examples, options


@click.command(
    "logs",
    cls=Command,
    action="sweeps.cli.actions.logs:logs_action",
    epilog=examples(
        "sweeps logs camvid_day_to_dusk 12",
        "sweeps logs camvid_day_to_dusk 12 -f",
        "sweeps logs camvid_day_to_dusk 12 --lines 50",
    ),
)
@options("name")
@click.argument("trial", type=click.IntRange(min=0))
@click.option(
    "-f", "--follow", "is_followed", is_flag=True, help="Go on until the trial or its sweep has ended, or Ctrl-C."
)
@click.option("--lines", type=click.IntRange(min=0), metavar="N", help="Begin with the last N lines.  [default: all]")
@options("store", "ledger")
def logs_command(**_: object) -> None:
    """Show the log of the trial number TRIAL of the sweep NAME: attempts, reports, warnings, what was printed, the last traceback.

    The log lies in the trial's folder, two files of at most 1 MB of which the older is replaced, and can be followed from every
    machine that sees the store. Where a sweep names a storage address and the trial ran elsewhere, it is read from there, up to the
    last report. Metrics that are made from target labels are not in it.
    """
