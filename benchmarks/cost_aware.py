"""Is a search better that weighs what a proposal promises by the time that its trial takes?

    python benchmarks/cost_aware.py                      # a made-up table, minutes
    python benchmarks/cost_aware.py --table fronts.json  # the table of `fronts.py`, trained once for half an hour

`sweeps` searches a table with its own coordinator and ledger; instead of training, a trial reports what the table says, and takes
as long as it says by a simulated clock. One search weighs by time (`sampler.cost_aware`), one does not; seed by seed they begin
with the same random trials. Both may compute equally long: `budget.hours`, a share of what the whole table takes.

The objective is one: the mean IoU. What a search is worth is the regret of the best trial that was done in time: by how much it is
below the best of the table, in percentage points, at the end of the budget and averaged over it. The difference is
taken seed by seed; its interval is a bootstrap over seeds.

In made-up tables, a new one for each seed, networks are better the dearer they are, worse, or neither: weighing by time should gain
where the best is cheap and may lose where it is dear.
"""

import argparse
import functools
import json
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from fronts import NETWORKS, QUALITY, with_macs
from rich.console import Console
from rich.table import Table
from scenes_table import coordinator_over, scenes_base

from sweeps.checks.makers import spec_from
from sweeps.execution.coordinator import Wait
from sweeps.file.space import identity
from sweeps.file.spec import SweepSpec

STARTUP = 6  # random trials at the beginning
FINE_RATES = [0.0001 * 10 ** (index / 4) for index in range(12)]
DEAREST = 12.0  # times the cheapest, of the made-up table
Run = list[tuple[float, float]]  # seconds of compute spent until a trial was done, its mean IoU


def spec_of(*, steps: int, rates: Sequence[float], **changes: Any) -> SweepSpec:
    """The task as a sweep."""
    plain = {
        "name": "cost-aware",
        "base": scenes_base(
            Path("scenes"),
            steps=steps,
            model={"name": "bisenet_v1", "pretrained": "none"},
            method={"name": "source_only"},
            optimizer={"name": "adamw", "weight_decay": 0.01},
        ),
        "search": {"model.name": list(NETWORKS), "optimizer.lr": list(rates)},
        "objectives": [{"metric": QUALITY, "direction": "maximize"}],
        "selection": "source_validation",
        "budget": {"trials": 1000, "concurrency": 1},
        "reuse": False,
    }
    return spec_from(plain | changes, where="the benchmark's sweep")


def made_up(dear: str, seed: int) -> list[dict[str, Any]]:
    """Return a table: networks from cheap to dear, each with a best rate.

    Args:
        dear: how good dear networks are: `better`, `worse`, or `alike`, where good ones lie anywhere.
        seed: of what is drawn.
    """
    draws = random.Random(seed)
    curves = []
    for index, name in enumerate(NETWORKS):
        share = index / (len(NETWORKS) - 1)
        worth = {"better": share, "worse": 1 - share, "alike": draws.random()}[dear]
        optimum = draws.uniform(-3.2, -2.2)
        macs = 1e8 * DEAREST ** (0.7 * share) * math.exp(draws.gauss(0, 0.3))  # a hint of the time, as of real networks
        for rate in FINE_RATES:
            miss = math.log10(rate) - optimum
            value = 0.45 + 0.2 * worth - 0.12 * miss**2 + draws.gauss(0, 0.01)
            seconds = 10 * DEAREST**share * math.exp(draws.gauss(0, 0.1))
            curves.append(
                {
                    "params": {"model.name": name, "optimizer.lr": rate},
                    "points": [(20, {QUALITY: max(0.0, value)})],
                    "seconds": seconds,
                    "macs": macs,
                }
            )
    return curves


def search(curves: Sequence[Mapping[str, Any]], *, steps: int, seed: int, seconds: float, cost_aware: bool) -> Run:
    """Search once by a simulated clock.

    Args:
        curves: the table.
        steps: of a full training.
        seed: of the search.
        seconds: of compute that it may spend.
        cost_aware: whether it weighs by time.
    """
    rates = sorted({curve["params"]["optimizer.lr"] for curve in curves})
    sampler = {"name": "tpe", "startup_trials": STARTUP, "cost_aware": cost_aware}
    budget = {"trials": len(curves), "concurrency": 1, "hours": seconds / 3600}
    spec = spec_of(steps=steps, rates=rates, seed=seed, sampler=sampler, budget=budget)
    by_params = {identity(curve["params"]): curve for curve in curves}
    clock, done = [0.0], Run()
    with coordinator_over(spec, curves, clock=lambda: clock[0]) as coordinator:
        while not isinstance(task := coordinator.next_task(), Wait):
            curve = by_params[identity(coordinator.records[task.number].params)]
            coordinator.on_message(task.number, task.attempt, {"event": "started", "worker": "table"})
            clock[0] += float(curve["seconds"])
            if clock[0] > seconds:
                break  # the driver would end it here
            metrics = curve["points"][-1][1]
            coordinator.on_message(task.number, task.attempt, {"event": "point", "step": steps, "metrics": metrics})
            coordinator.on_message(task.number, task.attempt, {"event": "finished"})
            done.append((clock[0], metrics[QUALITY]))
    return done


def regrets(run: Run, *, seconds: float, best: float, worst: float) -> tuple[float, float]:
    """Return what is missing to the best, in percentage points: at the end, and averaged over the compute.

    Example:
        >>> regrets([(1.0, 0.4), (2.0, 0.5)], seconds=4.0, best=0.5, worst=0.3)
        (0.0, 7.5)
    """
    total, before, reached = 0.0, 0.0, worst
    for spent, value in run:
        total += (spent - before) * (best - reached)
        before, reached = spent, max(reached, value)
    total += (seconds - before) * (best - reached)
    return round(100 * (best - reached), 6), round(100 * total / seconds, 6)


def compare(table_of: Callable[[int], list[dict[str, Any]]], *, steps: int, seeds: int, share: float) -> list[str]:
    """Return the cells of a row: both searches, and the second less the first seed by seed."""
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    counts: dict[bool, list[int]] = {False: [], True: []}
    for seed in range(seeds):
        curves = table_of(seed)
        ends = [float(curve["points"][-1][1][QUALITY]) for curve in curves]
        seconds, best, worst = share * sum(float(curve["seconds"]) for curve in curves), max(ends), min(ends)
        for cost_aware in found:
            run = search(curves, steps=steps, seed=seed, seconds=seconds, cost_aware=cost_aware)
            found[cost_aware].append(regrets(run, seconds=seconds, best=best, worst=worst))
            counts[cost_aware].append(len(run))
    cells = [f"{statistics.fmean(counts[False]):.0f}, {statistics.fmean(counts[True]):.0f}"]
    for index in range(2):
        plain, weighed = ([item[index] for item in found[kind]] for kind in (False, True))
        change = [second - first for first, second in zip(plain, weighed, strict=True)]
        cells += [f"{statistics.fmean(plain):.2f}", f"{statistics.fmean(weighed):.2f}", _interval(change)]
    return cells


def _interval(change: Sequence[float]) -> str:
    """Mean and 95 % interval, with two digits behind the point."""
    generator = random.Random(0)
    means = sorted(statistics.fmean(generator.choices(change, k=len(change))) for _ in range(2000))
    return f"{statistics.fmean(change):+.2f} \\[{means[50]:+.2f}, {means[1949]:+.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, help="file of a trained grid; unset: made-up tables")
    parser.add_argument("--seeds", type=int, default=20, help="searches of each kind")
    parser.add_argument("--share", type=float, nargs="+", default=[0.2], help="of the table's compute, each a budget")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tables: dict[str, tuple[int, Callable[[int], list[dict[str, Any]]]]] = {}
    if options.table is None:
        tables = {
            f"made up, dear ones {dear}": (20, functools.partial(made_up, dear))
            for dear in ("better", "alike", "worse")
        }
    else:
        trained = json.loads(options.table.read_text())
        curves = with_macs(trained["curves"], steps=trained["steps"])
        tables = {options.table.stem: (trained["steps"], lambda seed: curves)}
    columns = [
        f"{what} {kind}" for what in ("at the end:", "over the budget:") for kind in ("EI", "EI-cool", "difference")
    ]
    shown = Table(
        "table", "budget", "trials", *columns, title=f"regret, percentage points of mean IoU, {options.seeds} seeds"
    )
    for name, (steps, table_of) in tables.items():
        for share in options.share:
            shown.add_row(name, f"{share:.0%}", *compare(table_of, steps=steps, seeds=options.seeds, share=share))
    Console(width=150).print(shown)


if __name__ == "__main__":
    main()
