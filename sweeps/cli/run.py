"""`sweeps run` and `sweeps resume`."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from sweeps.checks.changes import Change, Effect
from sweeps.cli.options import examples, options
from sweeps.commands.cut_short import CutShortError
from sweeps.commands.driving import SweepEnd
from sweeps.commands.running import resume, run
from sweeps.exit_codes import STOPPED
from sweeps.reports.summary import summary
from sweeps.reports.terminal import console, print_whole, width_of


@click.command(
    "run",
    epilog=examples(
        "sweeps run my_sweep.yaml --data-root camvid=/data/camvid",
        "sweeps run my_sweep.yaml --address auto --store /shared/runs",
        "sweeps run my_sweep.yaml --trials 4 --name first_try",
        "sweeps run my_sweep.yaml --set base.steps=600 --set 'search.batch_size=[4, 8]' --name longer",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@options("store", "ledger", "address", "roots", "changes", "trials", "hours", "gpu_hours", "tracking")
@click.option("--name", help="Replace the name in the sweep file, e.g. to run it a second time.")
@click.pass_context
def run_command(
    context: click.Context,
    file: Path,
    store_root: Path,
    ledger_url: str | None,
    address: str | None,
    roots: dict[str, Path],
    changes: dict[str, Any],
    trials: int | None,
    hours: float | None,
    gpu_hours: float | None,
    tracking: str | None,
    name: str | None,
) -> None:
    """Run the sweep that FILE describes.

    Ctrl-C stops it and keeps every checkpoint; `sweeps resume` goes on.
    """
    conclude(
        context,
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
            tracking=tracking,
        ),
    )


@click.command(
    "resume",
    epilog=examples(
        "sweeps resume camvid_day_to_dusk",
        "sweeps resume camvid_day_to_dusk --trials 24 --hours 12",
        "sweeps resume camvid_day_to_dusk --file my_sweep.yaml --accept-changes",
    ),
)
@click.argument("name")
@options("store", "ledger", "address", "roots", "trials", "hours", "gpu_hours", "tracking")
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
@click.pass_context
def resume_command(
    context: click.Context,
    name: str,
    store_root: Path,
    ledger_url: str | None,
    address: str | None,
    roots: dict[str, Path],
    trials: int | None,
    hours: float | None,
    gpu_hours: float | None,
    tracking: str | None,
    file: Path | None,
    accept_changes: bool,
) -> None:
    """Go on with the sweep NAME after Ctrl-C, a crash, a reboot, or with a larger budget.

    Finished trials are not run again; unfinished ones continue from their checkpoints.

    With --file, what differs from the sweep as it began is shown. Budget, resources and places change freely; changes of the
    search or of its rules want --accept-changes; changes of what trials compute are refused. A sweep without trials takes any.
    """
    conclude(
        context,
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
            tracking=tracking,
            show_changes=_show,
        ),
    )


def conclude(context: click.Context, start: Callable[[], SweepEnd]) -> None:
    """Drive a sweep, say how that ended, and exit."""
    try:
        end = start()
    except CutShortError as error:
        click.echo(str(error), err=True)
        context.exit(STOPPED)
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
    context.exit(end.exit_code)


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
