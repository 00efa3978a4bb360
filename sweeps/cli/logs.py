"""`sweeps logs`: what happens to a trial, as it happens."""

import sys
from functools import partial
from pathlib import Path

import click

from segda.streams import is_read
from sweeps.cli.options import examples, options


@click.command(
    "logs",
    epilog=examples(
        "sweeps logs camvid_day_to_dusk 12",
        "sweeps logs camvid_day_to_dusk 12 -f",
        "sweeps logs camvid_day_to_dusk 12 --lines 50",
    ),
)
@click.argument("name")
@click.argument("trial", type=click.IntRange(min=0))
@click.option(
    "-f", "--follow", "is_followed", is_flag=True, help="Go on until the trial or its sweep has ended, or Ctrl-C."
)
@click.option("--lines", type=click.IntRange(min=0), metavar="N", help="Begin with the last N lines.  [default: all]")
@options("store", "ledger")
def logs_command(
    name: str, trial: int, is_followed: bool, lines: int | None, store_root: Path, ledger_url: str | None
) -> None:
    """Show the log of the trial number TRIAL of the sweep NAME: attempts, reports, warnings, what was printed, the last traceback.

    The log lies in the trial's folder, two files of at most 1 MB of which the older is replaced, and can be followed from every
    machine that sees the store. Where a sweep names a storage address and the trial ran elsewhere, it is read from there, up to the
    last report. Metrics that are made from target labels are not in it.
    """
    from sweeps.commands.following import follow, logs  # takes seconds

    note = partial(click.echo, err=True)
    if not is_followed:
        click.echo(last_lines(logs(name, trial, store=store_root, ledger=ledger_url, note=note), lines), nl=False)
        return
    try:
        for new in follow(name, trial, store=store_root, ledger=ledger_url, note=note):
            click.echo(last_lines(new, lines), nl=False)
            lines = None  # all that comes from now on
            if not is_read(sys.stdout):
                return
    except KeyboardInterrupt:
        return  # the trial goes on; only looking at it has ended


def last_lines(text: str, number: int | None) -> str:
    r"""Return the last lines of a text; all for None.

    Example:
        >>> last_lines("a\nb\nc\n", 2)
        'b\nc\n'
    """
    if number is None:
        return text
    return "".join(text.splitlines(keepends=True)[-number:]) if number else ""
