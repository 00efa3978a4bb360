"""`sweeps run` and `sweeps resume`."""

from pathlib import Path

import click

from segda.cli_command import Command
from sweeps.cli.options import examples, options


@click.command(
    "run",
    cls=Command,
    action="sweeps.cli.actions.run:run_action",
    epilog=examples(
        "sweeps run my_sweep.yaml --data-root camvid=/data/camvid",
        "sweeps run my_sweep.yaml --address auto --store /shared/runs",
        "sweeps run my_sweep.yaml name=first_try trials=4",
        "sweeps run my_sweep.yaml name=longer steps=600 'search.batch_size=[4, 8]'",
    ),
)
@options("file")
@options("store", "ledger", "address", "roots", "changes", "trials", "hours", "gpu_hours", "cost", "tracking")
@click.option("--name", help="Replace the name in the sweep file, e.g. to run it a second time.")
def run_command(**_: object) -> None:
    """Run the sweep that FILE describes.

    Words KEY=VALUE after the file replace or add single values of it, as if it said so; the end of a key is enough where no other
    key ends so.

    Ctrl-C stops it and keeps every checkpoint; `sweeps resume` goes on.
    """


@click.command(
    "resume",
    cls=Command,
    action="sweeps.cli.actions.run:resume_action",
    epilog=examples(
        "sweeps resume camvid_day_to_dusk",
        "sweeps resume camvid_day_to_dusk --trials 24 --hours 12",
        "sweeps resume camvid_day_to_dusk --file my_sweep.yaml --accept-changes",
    ),
)
@options("name")
@options("store", "ledger", "address", "roots", "trials", "hours", "gpu_hours", "cost", "tracking")
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    help="Go on under this version of the sweep file instead of the one that it began with.",
)
@click.option(
    "--accept-changes",
    is_flag=True,
    help="Go on although FILE changes what is searched or how trials are judged from now on.",
)
def resume_command(**_: object) -> None:
    """Go on with the sweep NAME after Ctrl-C, a crash, a reboot, or with a larger budget.

    Finished trials are not run again; unfinished ones continue from their checkpoints.

    With --file, what differs from the sweep as it began is shown. Budget, resources and places change freely; changes of the
    search or of its rules want --accept-changes; changes of what trials compute are refused. A sweep without trials takes any.
    """
