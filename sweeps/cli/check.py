"""`sweeps check`: what a sweep file would do, without doing it."""

import click

from segda.cli_command import Command
from sweeps.cli.options import examples, options


@click.command(
    "check",
    cls=Command,
    action="sweeps.cli.actions.check:check_action",
    epilog=examples(
        "sweeps check my_sweep.yaml --data-root camvid=/data/camvid",
        "sweeps check my_sweep.yaml trials=4 base.batch_size=8",
        "sweeps check my_sweep.yaml --json | jq .planned",
    ),
)
@options("file")
@options("roots", "changes", "json")
def check_command(**_: object) -> None:
    """Check a sweep file and show what it would do.

    Words KEY=VALUE are put over the file, as `sweeps run` does.
    """
