"""What `sweeps plan` does."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segda.documents import as_json
from segda.errors import ConfigError
from segda.progress import progress_columns
from segda.splits import data_fingerprint
from sweeps.checks.makers import load_spec
from sweeps.checks.resources import check_price
from sweeps.commands.driving import changed, check_data
from sweeps.commands.machines import machines_at
from sweeps.commands.places import open_ledger
from sweeps.documents.plans import plan_document
from sweeps.file.prices import prices_of
from sweeps.file.spec import SweepSpec
from sweeps.labels import duration, size_label
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import Allotment
from sweeps.planning.coverage import Case, cases
from sweeps.planning.estimate import Estimate, Tried, estimate, shown_span, verdicts
from sweeps.planning.machines import Machines
from sweeps.planning.packing import pack_trials
from sweeps.planning.patience import Patience
from sweeps.planning.plan import as_planned, plan_path, save_plan, saved_costs, try_all
from sweeps.planning.profiles import Architecture, device_of, infeasible, profile_all, reachable, sample_config
from sweeps.reports.terminal import console
from sweeps.store import Store


def plan_action(
    file: Path,
    store_root: Path,
    ledger_url: str | None,
    address: str | None,
    roots: dict[str, Path],
    changes: dict[str, Any],
    trials: int | None,
    hours: float | None,
    name: str | None,
    skip_canary: bool,
    as_document: bool,
) -> None:
    """Do `sweeps plan`; the arguments are the command's."""
    spec = changed(load_spec(file, changes=changes, data_roots=roots), name=name, trials=trials, hours=hours)
    check_data(spec)
    store, shown, say = Store.at(store_root), console(), partial(click.echo, err=as_document)
    with open_ledger(store, ledger_url) as ledger, machines_at(address, spec, say=say) as machines:
        if skip_canary:
            allotment = as_planned(store, spec, machines)
        else:
            check_price(spec, device_of(spec, machines.look, gpus=spec.resources.num_gpus if machines.gpus else 0.0))
            data_fingerprint(sample_config(spec), progress=sys.stderr.isatty())
            allotment = pack_trials(spec, ledger=ledger, machines=machines, say=say)
        banned = _never_trained(spec, ledger, machines, gpus=allotment.gpus, say=say)
        tried = _tried(spec, store, machines, banned, gpus=allotment.gpus, is_new=not skip_canary)
    if not as_document:
        shown.print(_table(tried))
    for item in tried:
        for line in item.doubts:
            say(f"times of {item.case.label} are not reliable: {line}")
    failed = [item for item in tried if item.costs is None]
    found = None
    if any(item.costs is not None and not item.case.is_reference for item in tried):
        found = estimate(spec, tried, allotment=allotment, slots=machines.slots(spec, gpus=allotment.gpus))
    if not skip_canary:
        save_plan(store, spec, found, tried, gpus=allotment.gpus)
    path = plan_path(store, spec.name)
    if as_document:
        plan = plan_document(spec, tried, found, allotment=allotment, never_trained=banned, path=str(path))
        click.echo(as_json(plan))
    else:
        if found is not None:
            _print_estimate(spec, found, shown, allotment=allotment)
        if not skip_canary:
            click.echo(f"kept in {path}")
    if failed:
        listed = "; ".join(f"{item.case.label}: {item.error}" for item in failed)
        raise ConfigError(f"{len(failed)} of {len(tried)} branches fail: {listed}")


def _never_trained(
    spec: SweepSpec, ledger: Ledger, machines: Machines, *, gpus: float, say: Callable[[str], None]
) -> Mapping[Architecture, str]:
    """Return the networks that break a constraint, and why."""
    profiles = {}
    if spec.constraints:
        device = device_of(spec, machines.look, gpus=gpus)
        patience = Patience.of(spec, say=say)
        measured = profile_all(reachable(spec), device=device, ledger=ledger, patience=patience, call=machines.call)
        profiles = dict(measured)
    banned = infeasible(spec, profiles)
    for architecture, why in banned.items():
        say(f"never trained: {architecture}: {why}")
    return banned


def _tried(
    spec: SweepSpec,
    store: Store,
    machines: Machines,
    banned: Mapping[Architecture, str],
    *,
    gpus: float,
    is_new: bool,
) -> list[Tried]:
    """Try what is to be tried, with a progress bar in a terminal and a line for each elsewhere."""
    to_try: Sequence[Case] = cases(spec, infeasible=banned.keys())
    if not is_new:
        return saved_costs(store, spec, to_try, gpus=gpus)
    tried = []
    with progress_columns() as progress:
        bar = progress.add_task("trying branches", total=len(to_try))
        for item in try_all(spec, to_try, gpus=gpus, call=machines.call):
            tried.append(item)
            progress.advance(bar)
            if not progress.console.is_terminal:
                click.echo(f"{len(tried)}/{len(to_try)} {item.case.label}: {item.error or 'ok'}", err=True)
    return tried


def _table(tried: Sequence[Tried]) -> Table:
    table = Table(title="what was tried", title_justify="left")
    table.add_column("branch", overflow="fold")
    for title in ("per step", "per report", "at the end", "to start", "memory", "disk"):
        table.add_column(title, justify="right")
    table.add_column("", overflow="fold")
    for item in tried:
        costs = item.costs
        if costs is None:
            table.add_row(escape(item.case.label), *[""] * 6, f"[red]fails[/red]: {escape(item.error or '')}")
            continue
        times = (costs.seconds_per_step, costs.seconds_per_report, costs.seconds_at_end, costs.seconds_to_start)
        sizes = (costs.memory_bytes, costs.disk_bytes)
        table.add_row(
            escape(item.case.label),
            *(_seconds(value) for value in times),
            *(size_label(value) for value in sizes),
            "ok",
        )
    return table


def _print_estimate(spec: SweepSpec, found: Estimate, shown: Console, *, allotment: Allotment) -> None:
    lines = [
        f"trials: {found.trials}, {found.concurrency} at a time"
        + (f" (budget.concurrency {allotment.concurrency})" if found.concurrency < allotment.concurrency else ""),
        f"steps: {shown_span(found.steps, '{:,.0f}'.format)}",
        f"worker time: {shown_span(found.worker_seconds, duration)}",
        f"wall time: {shown_span(found.wall_seconds, duration)}",
    ]
    if found.gpus_per_trial:
        lines.append(f"GPU hours: {shown_span(found.gpu_seconds, lambda seconds: f'{seconds / 3600:.3g}')}")
    prices = prices_of(spec, gpus=found.gpus_per_trial)
    if prices is not None and found.cost is not None:
        lines.append(f"cost: {shown_span(found.cost, prices.text)}")
    lines += [
        f"disk: {size_label(found.disk_bytes)} for checkpoints, scores and pictures of all trials",
        *verdicts(spec, found),
        f"assumed: {spec.build_scheduler().assumption}; trials cost the mean of what was tried, one at a time on an idle machine",
    ]
    for line in lines:
        shown.print(line, markup=False, highlight=False, soft_wrap=True)


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
