"""`sweeps reproduce`: a trial trained again from its MLflow run."""

from pathlib import Path

import click

from segda.cli_command import Command
from sweeps.cli.options import examples, options
from sweeps.defaults import TRACKING_VARIABLE


@click.command(
    "reproduce",
    cls=Command,
    action="sweeps.cli.actions.reproduce:reproduce_action",
    epilog=examples(
        "sweeps reproduce 4f1c0e6b2d... --data-root camvid=/data/camvid",
        "sweeps reproduce 4f1c0e6b2d... --tracking http://mlflow:5000 --keep runs/again",
    ),
)
@click.argument("run_id")
@click.option(
    "--tracking",
    envvar=TRACKING_VARIABLE,
    metavar="URI",
    help="MLflow server or store that has the run, or the variable SWEEPS_TRACKING.  [default: mlflow.db in the store]",
)
@options("store", "roots")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to train in and to keep.  [default: a temporary one]",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="Largest difference of a metric, absolute up to values of 1 and relative above.  "
    "[default: 0 on a CPU, 0.01 on a GPU, whose kernels add in changing order]",
)
def reproduce_command(**_: object) -> None:
    """Train the trial of the MLflow run RUN_ID again, from that run alone, and compare.

    Configuration, seed, number of threads and way of computing are the run's, and the data must be what it read. Every metric of
    every report is compared except times and what the machine did meanwhile, and the weights if the run has a checkpoint. What
    differs between the run's machine and this one is listed first.

    Exit codes: 0 reproduced, 1 a metric differs, 2 something to correct.
    """
