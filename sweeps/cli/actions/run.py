"""What `sweeps run` and `sweeps resume` do."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from sweeps.checks.changes import Change, Effect
from sweeps.commands.cut_short import CutShortError
from sweeps.commands.driving import SweepEnd
from sweeps.commands.running import resume, run
from sweeps.exit_codes import STOPPED
from sweeps.reports.summary import summary
from sweeps.reports.terminal import console, print_whole, width_of


def run_action(
    file: Path,
    store_root: Path,
    ledger_url: str | None,
    address: str | None,
    roots: dict[str, Path],
    changes: dict[str, Any],
    trials: int | None,
    hours: float | None,
    gpu_hours: float | None,
    cost: float | None,
    tracking: str | None,
    name: str | None,
) -> int:
    """Do `sweeps run`; the arguments are the command's. Returns the exit code."""
    return conclude(
        partial(
            run,
            file,
            changes=changes,
            name=name,
            store=store_root,
            ledger=ledger_url,
            address=address,
            data_roots=roots,
            trials=trials,
            hours=hours,
            gpu_hours=gpu_hours,
            cost=cost,
            tracking=tracking,
        ),
    )


def resume_action(
    name: str,
    store_root: Path,
    ledger_url: str | None,
    address: str | None,
    roots: dict[str, Path],
    trials: int | None,
    hours: float | None,
    gpu_hours: float | None,
    cost: float | None,
    tracking: str | None,
    file: Path | None,
    accept_changes: bool,
) -> int:
    """Do `sweeps resume`; the arguments are the command's. Returns the exit code."""
    return conclude(
        partial(
            resume,
            name,
            sweep=file,
            accept_changes=accept_changes,
            store=store_root,
            ledger=ledger_url,
            address=address,
            data_roots=roots,
            trials=trials,
            hours=hours,
            gpu_hours=gpu_hours,
            cost=cost,
            tracking=tracking,
            show_changes=_show,
        ),
    )


def conclude(start: Callable[[], SweepEnd]) -> int:
    """Drive a sweep, say how that ended, and return the exit code."""
    try:
        end = start()
    except CutShortError as error:
        click.echo(str(error), err=True)
        return STOPPED
    shown = console()
    print_whole(shown, summary(end.view, width=width_of(shown)))
    for line in end.places():
        click.echo(line)
    for line in end.notices():
        click.echo(line, err=True)
    if end.outcome.is_lost:
        # Python's own end would wait for what Ray's core waits for.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.exit_code)
    return end.exit_code


def _show(changes: Sequence[Change]) -> None:
    if changes:
        table = Table("key", "as it began", "now", "effect", title="changes of the sweep file", title_justify="left")
        effects = {
            Effect.NONE: "takes effect",
            Effect.RULES: "other trials from now on",
            Effect.RESULTS: "other results",
        }
        for change in changes:
            table.add_row(change.path, change.before, change.after, effects[change.effect])
        console().print(table)
