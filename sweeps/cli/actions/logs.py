"""What `sweeps logs` does."""

import sys
from functools import partial
from pathlib import Path

import click

from segda.streams import is_read
from sweeps.commands.following import follow, logs


def logs_action(
    name: str, trial: int, is_followed: bool, lines: int | None, store_root: Path, ledger_url: str | None
) -> None:
    """Do `sweeps logs`; the arguments are the command's."""
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
