"""`sweeps plan`: what a sweep will take, and which of its branches fails, before the night does."""

import click

from segda.cli_command import Command
from sweeps.cli.options import examples, options


@click.command(
    "plan",
    cls=Command,
    action="sweeps.cli.actions.plan:plan_action",
    epilog=examples(
        "sweeps plan my_sweep.yaml --data-root camvid=/data/camvid",
        "sweeps plan my_sweep.yaml --address auto --store /shared/runs",
        "sweeps plan my_sweep.yaml --skip-canary trials=60 hours=12",
        "sweeps plan my_sweep.yaml --json | jq .estimate",
    ),
)
@options("file")
@options("store", "ledger", "address", "roots", "changes", "trials", "hours")
@click.option("--name", help="Replace the name in the sweep file.")
@click.option(
    "--skip-canary",
    is_flag=True,
    help="Train nothing; estimate from what the last plan of the sweep measured, e.g. for another budget.",
)
@options("json")
def plan_command(**_: object) -> None:
    """Try every branch of the sweep in FILE for a moment, and estimate what the sweep will take.

    Each branch, each choice and each architecture is trained for a few steps on the real data, scored and saved, in a process of
    its own. The decoded images stay in the cache, where the sweep finds them. Exit code 2 says that a branch fails.

    Words KEY=VALUE are put over the file, as `sweeps run` does.
    """
