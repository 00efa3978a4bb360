"""`sweeps stop`: end a running sweep from any machine."""

import click

from segda.cli_command import Command
from sweeps.cli.options import examples, options


@click.command(
    "stop",
    cls=Command,
    action="sweeps.cli.actions.stop:stop_action",
    epilog=examples(
        "sweeps stop camvid_day_to_dusk",
        "sweeps stop camvid_day_to_dusk --ledger postgresql+psycopg2://user@host/db",
    ),
)
@options("name")
@click.option("--no-wait", is_flag=True, help="Do not wait until its driver has ended.")
@options("store", "ledger")
def stop_command(**_: object) -> None:
    """Ask the driver of the sweep NAME, on whatever machine it runs, to end as after Ctrl-C.

    Its trials keep their checkpoints, and `sweeps resume NAME` goes on. The driver's exit code is 0, so whatever starts interrupted
    sweeps again (Slurm, Kubernetes, Docker Compose) leaves it stopped.
    """
