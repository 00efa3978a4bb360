"""`sweeps check`: what a sweep file would do, without doing it."""

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segda.config import TrainConfig
from segda.datasets.base import resolve_root
from segda.errors import ConfigError, SegdaError
from sweeps.checks.makers import load_spec
from sweeps.cli.options import examples, options
from sweeps.file.auto import chosen_sampler
from sweeps.file.space import SearchSpace
from sweeps.file.spec import SweepSpec
from sweeps.planning.counts import planned_trials
from sweeps.planning.profiles import reachable, sample_config
from sweeps.reports.terminal import console
from sweeps.schedulers.rivals import pruning_rule
from sweeps.selection.reasons import too_few_seeds


@click.command(
    "check",
    epilog=examples(
        "sweeps check my_sweep.yaml --data-root camvid=/data/camvid",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@options("roots", "changes")
def check_command(file: Path, roots: dict[str, Path], changes: dict[str, Any]) -> None:
    """Check a sweep file and show what it would do."""
    spec = load_spec(file, changes=changes, data_roots=roots)
    space = spec.space
    sample = sample_config(spec)
    shown = console()
    shown.print(f"[bold]{spec.name}[/bold]: {escape(spec.question) or 'no question given'}")
    table = Table("parameter", "values", "when", title="search space", title_justify="left")
    for row in space.describe():
        table.add_row(*map(escape, (row.path, row.range, row.condition)))
    shown.print(table)
    for line in _plan(spec, space, sample):
        shown.print(line, markup=False, highlight=False)
    missing = _print_roots(sample, shown)
    if missing:
        raise ConfigError(
            f"{len(missing)} data set{'s are' if len(missing) > 1 else ' is'} missing: {', '.join(missing)}"
        )


def _plan(spec: SweepSpec, space: SearchSpace, sample: TrainConfig) -> list[str]:
    combinations = space.num_combinations()
    architectures = [architecture.model.label() for architecture in reachable(spec)]
    trials = planned_trials(spec)
    hours = "no limit of time" if spec.budget.hours is None else f"at most {spec.budget.hours:g} hours"
    chosen = chosen_sampler(spec, space)
    sampler = chosen if chosen == spec.sampler.name else f"{chosen}, chosen by {spec.sampler.name}"
    lines = [
        f"combinations: {combinations if combinations is not None else 'without end (continuous parameters)'}",
        f"architectures: {'; '.join(architectures)}",
        f"trials: {trials.total} ({trials.search} of the search, {trials.references} references, {trials.replicates} replicates)",
        f"steps: {trials.total * sample.steps} at most ({sample.steps} per trial), {hours}, {spec.budget.concurrency} at a time",
        f"each trial takes {spec.resources.cpus:g} CPUs and {spec.resources.gpus} GPUs",
        "objectives: " + ", ".join(f"{item.direction} {item.metric}" for item in spec.objectives),
        "constraints: " + (", ".join(str(item) for item in spec.constraints) or "none"),
        f"sampler: {sampler}; scheduler: {spec.scheduler.name}; selection: {spec.selection}",
        pruning_rule(spec.build_scheduler(), spec.costs),
    ]
    too_few = too_few_seeds(spec)
    if too_few is not None:
        lines.append(f"note: {too_few}")
    if spec.selection == "oracle":
        lines.append("selection: oracle reads labels of the target domain; its results cannot be had without them")
    return lines


def _print_roots(sample: TrainConfig, shown: Console) -> list[str]:
    """Print where each data set lies; return those that are missing."""
    missing = []
    domains = (sample.data.source, sample.data.target)
    for domain in {(item.dataset, item.root): item for item in domains}.values():
        try:
            root = resolve_root(domain.dataset, domain.root)
            state = f"{root} ({'found' if root.is_dir() else 'missing'})"
            found = root.is_dir()
        except SegdaError as error:
            state, found = str(error), False
        shown.print(f"data set {domain.dataset}: {state}", markup=False, highlight=False)
        if not found:
            missing.append(domain.dataset)
    return missing
