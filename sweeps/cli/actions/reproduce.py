"""What `sweeps reproduce` does."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.table import Table

from segda.progress import progress_columns
from sweeps.audit.repetition import Comparison, Difference
from sweeps.audit.reproduce import check_data, environment_differences, local_config, reproduce
from sweeps.commands.places import remember_place
from sweeps.exit_codes import DIFFERS, DONE
from sweeps.reports.terminal import console
from sweeps.store import Store
from sweeps.tracking import default_uri
from sweeps.tracking.reading import read_run


def reproduce_action(
    run_id: str,
    tracking: str | None,
    store_root: Path,
    roots: dict[str, Path],
    keep: Path | None,
    tolerance: float | None,
) -> int:
    """Do `sweeps reproduce`; the arguments are the command's. Returns the exit code."""
    store = Store.at(store_root)
    remember_place(store, None)
    run = read_run(run_id, uri=tracking or default_uri(store))
    config = local_config(run, roots=roots)
    last = max(run.reports)
    attempts = f", trained in {run.attempts} attempts" if run.attempts > 1 else ""
    click.echo(f"run {run_id} ({run.name}): {len(run.reports)} reports up to step {last}{attempts}")
    knows_data = check_data(run, config, progress=sys.stderr.isatty())
    click.echo(f"data: {'the same' if knows_data else 'unknown, the run was stopped before it wrote what it read'}")
    differences = environment_differences(run, config)
    if differences:
        console().print(_table(differences))
    else:
        click.echo("environment: the same")
    with _folder(keep) as folder, progress_columns() as bar:
        task = bar.add_task("training", total=last)
        comparison = reproduce(
            run,
            config,
            folder=folder,
            tolerance=tolerance,
            on_step=lambda step, _: bar.update(task, completed=step),
            on_report=lambda step: bar.update(task, completed=step),
        )
    for line in describe(comparison):
        click.echo(line)
    return DONE if comparison.holds else DIFFERS


def describe(comparison: Comparison) -> list[str]:
    """Return the outcome in words.

    Args:
        comparison: of a run with its repetition.
    """
    of = f"{comparison.num_figures} metrics of {comparison.num_reports} reports"
    first, largest = comparison.first, comparison.largest
    if first is not None:
        lines = [f"differs first at step {first.step}: {_in_words(first)}"]
        if largest is not None and largest is not first:
            lines.append(f"differs most at step {largest.step}: {_in_words(largest)}")
        lines.append(f"{len(comparison.differences)} of {of} differ; allowed: {comparison.tolerance:g}")
    elif largest is not None:
        lines = [
            f"reproduced within {comparison.tolerance:g}: {len(comparison.differences)} of {of} differ, "
            f"most at step {largest.step}: {_in_words(largest)}"
        ]
    else:
        lines = [f"bit-equal: {of}"]
    if comparison.recorded_weights is not None:
        is_same = comparison.weights == comparison.recorded_weights
        lines.append(f"weights: {'bit-equal' if is_same else 'differ'} (sha256 {str(comparison.weights)[:16]})")
    return lines


def _in_words(item: Difference) -> str:
    if item.again is None:
        return f"{item.metric} was {item.recorded!r}, and was not reported now"
    return f"{item.metric} was {item.recorded!r}, is {item.again!r} (by {item.amount:.3g})"


def _table(differences: list[tuple[str, str, str]]) -> Table:
    table = Table(title="what differs in the environment", title_justify="left")
    for column in ("", "the run's", "here"):
        table.add_column(column)
    for row in differences:
        table.add_row(*row)
    return table


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="sweeps-reproduce-") as folder:
        yield Path(folder)
