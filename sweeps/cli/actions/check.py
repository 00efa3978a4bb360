"""What `sweeps check` does."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from segda.config import TrainConfig
from segda.datasets.base import resolve_root
from segda.documents import as_json
from segda.errors import ConfigError, SegdaError
from sweeps.checks.makers import load_spec
from sweeps.documents.plans import check_document
from sweeps.file.auto import chosen_sampler
from sweeps.file.prices import prices_of
from sweeps.file.space import SearchSpace
from sweeps.file.spec import SweepSpec
from sweeps.planning.counts import planned_trials
from sweeps.planning.profiles import reachable, sample_config
from sweeps.reports.terminal import console
from sweeps.schedulers.telling import pruning_rule
from sweeps.selection.reasons import too_few_seeds


def check_action(file: Path, roots: dict[str, Path], changes: dict[str, Any], as_document: bool) -> None:
    """Do `sweeps check`; the arguments are the command's."""
    spec = load_spec(file, changes=changes, data_roots=roots)
    sample = sample_config(spec)
    data_sets = _data_sets(sample)
    if as_document:
        click.echo(as_json(check_document(spec, sample, data_sets=data_sets, notes=_notes(spec))))
    else:
        _print(spec, sample, data_sets)
    missing = [str(found["name"]) for found in data_sets if not found["is_there"]]
    if missing:
        raise ConfigError(
            f"{len(missing)} data set{'s are' if len(missing) > 1 else ' is'} missing: {', '.join(missing)}"
        )


def _print(spec: SweepSpec, sample: TrainConfig, data_sets: Sequence[Mapping[str, Any]]) -> None:
    space, shown = spec.space, console()
    shown.print(f"[bold]{spec.name}[/bold]: {escape(spec.question) or 'no question given'}")
    table = Table("parameter", "values", "when", title="search space", title_justify="left")
    for row in space.describe():
        table.add_row(*map(escape, (row.path, row.range, row.condition)))
    shown.print(table)
    for line in _plan(spec, space, sample):
        shown.print(line, markup=False, highlight=False)
    for found in data_sets:
        state = found["problem"] or f"{found['root']} ({'found' if found['is_there'] else 'missing'})"
        shown.print(f"data set {found['name']}: {state}", markup=False, highlight=False)


def _plan(spec: SweepSpec, space: SearchSpace, sample: TrainConfig) -> list[str]:
    combinations = space.num_combinations()
    architectures = [architecture.model.label() for architecture in reachable(spec)]
    trials = planned_trials(spec)
    hours = "no limit of time" if spec.budget.hours is None else f"at most {spec.budget.hours:g} hours"
    prices = prices_of(spec, gpus=spec.resources.num_gpus)
    hours += f", at most {prices.text(spec.budget.cost)}" if prices is not None and spec.budget.cost is not None else ""
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
        pruning_rule(spec.build_scheduler(), spec.costs, objectives=spec.trained_objectives),
    ]
    return lines + [f"note: {line}" for line in _notes(spec)]


def _notes(spec: SweepSpec) -> list[str]:
    """Return what a reader of the file should know."""
    too_few = too_few_seeds(spec)
    notes = [] if too_few is None else [too_few]
    if spec.selection == "oracle":
        notes.append("selection: oracle reads labels of the target domain; its results cannot be had without them")
    return notes


def _data_sets(sample: TrainConfig) -> list[dict[str, Any]]:
    """Return where each data set lies, and whether it is there."""
    listed = []
    domains = (sample.data.source, sample.data.target)
    for domain in {(item.dataset, item.root): item for item in domains}.values():
        try:
            root = resolve_root(domain.dataset, domain.root)
            found = {"root": str(root), "is_there": root.is_dir(), "problem": None}
        except SegdaError as error:
            found = {"root": None, "is_there": False, "problem": str(error)}
        listed.append({"name": domain.dataset, **found})
    return listed
