"""`sweeps check`: what a sweep file would do, without doing it."""

from pathlib import Path

import click

from segda.cli_command import Command
from sweeps.cli.options import examples, options


@click.command(
    "check",
    cls=Command,
    action="sweeps.cli.actions.check:check_action",
    epilog=examples(
        "sweeps check my_sweep.yaml --data-root camvid=/data/camvid",
        "sweeps check my_sweep.yaml --json | jq .planned",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@options("roots", "changes", "json")
def check_command(**_: object) -> None:
    """Check a sweep file and show what it would do."""
