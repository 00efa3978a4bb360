"""What does early stopping cost and save where a whole front is wanted?

    python benchmarks/fronts.py --table fronts.json   # first trains the table for half an hour; later runs replay it

Every combination of a small real task is trained once, with `segda.train`: procedural rural scenes to urban ones at 64 x 64 pixels,
120 steps, nine real-time networks over the learning rate. Their learning curves and MACs are the table. Then
`sweeps` searches it again and again with its own coordinator, ledger and schedulers; instead of training, a trial reports what the
table says, at times that a simulated clock gives it: a step takes as long as it took when the table was trained, in the median over
the trainings of its network.

Objectives are the mean IoU on validation images of the source and MACs. What a search is worth is the hypervolume of the front of
its completed trials, by their values at the end of training, from a reference point that the table gives: the largest MACs and the
smallest mean IoU in it. Regret is what is missing to the hypervolume of the whole table's front, in percent of that. It is averaged
over the compute that was spent, stopped trials included, up to what half of the table costs, so that who gets there sooner is
better. Rules meet the same proposals, seed by seed. A stop is wrong if the trial would have come to lie on the front of all trials
that its search proposed.
"""

import argparse
import functools
import heapq
import random
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from scenes_table import coordinator_over, scenes_base, train_table

from segda.datasets import DATASETS
from segda.efficiency import count_macs
from segda.models import build_segmenter
from sweeps.checks.makers import spec_from
from sweeps.execution.coordinator import Wait
from sweeps.file.space import identity
from sweeps.file.spec import SweepSpec
from sweeps.schedulers.fronts import Standing, front_of
from sweeps.trial import TrialState

QUALITY, COST = "source/val/miou", "macs"
NETWORKS = (
    "bisenet_v1",
    "bisenet_v2",
    "ddrnet_23_slim",
    "efficientvit_seg",
    "fast_scnn",
    "pidnet_s",
    "sctnet",
    "segformer_b0",
    "stdc",
)
FIRST_RUNG, FACTOR = 20, 3
HALVING = {"min_steps": FIRST_RUNG, "reduction_factor": FACTOR}
DOMINANCE = {"name": "dominance", "min_steps": FIRST_RUNG}
RULES: dict[str, dict[str, Any]] = {
    "none": {"name": "none"},
    "ASHA by mean IoU alone": {"name": "asha", **HALVING},
    "ASHA among trials that cost no more": {"name": "asha", **HALVING},
    "MO-ASHA as misranked elsewhere": {"name": "misranked_mo_asha:MisrankedMoAsha", **HALVING},
    "mo_asha": {"name": "mo_asha", **HALVING},
    "dominance .8": {**DOMINANCE, "confidence": 0.8},
    "dominance .9": {**DOMINANCE, "confidence": 0.9},
    "dominance .95": {**DOMINANCE, "confidence": 0.95},
}
Point = tuple[float, float]  # mean IoU, minus MACs


class Searched(NamedTuple):
    """What a search did.

    Attributes:
        completed: seconds of compute spent until then, by all trials -> the trial's end point, of those that were trained in full.
        proposed: trial -> where it would end.
        stopped: trials that were stopped, or not begun.
        steps: of all trials.
    """

    completed: list[tuple[float, Point]]
    proposed: dict[int, Point]
    stopped: list[int]
    steps: int


def spec_of(root: Path, *, steps: int, **changes: Any) -> SweepSpec:
    """The task as a sweep."""
    plain = {
        "name": "fronts",
        "base": scenes_base(
            root,
            steps=steps,
            model={"name": "bisenet_v1", "pretrained": "none"},
            method={"name": "source_only"},
            optimizer={"name": "adamw", "weight_decay": 0.01},
        ),
        "search": {
            "model.name": list(NETWORKS),
            "optimizer.lr": [0.0003, 0.001, 0.003, 0.01],
        },
        "objectives": [
            {"metric": QUALITY, "direction": "maximize"},
            {"metric": COST, "direction": "minimize"},
        ],
        "selection": "source_validation",
        "sampler": {"name": "random"},
        "budget": {"trials": 1000, "concurrency": 1},
        "reuse": False,
    }
    return spec_from(plain | changes, where="the benchmark's sweep")


def with_macs(curves: list[dict[str, Any]], *, steps: int) -> list[dict[str, Any]]:
    """Return the table with what each network costs, in MACs and in seconds."""
    spec = spec_of(Path("scenes"), steps=steps)
    classes = len(DATASETS["scenes"].classes)

    @functools.cache
    def macs(name: str) -> int:
        model = spec.train_config({"model.name": name, "optimizer.lr": 0.001}, seed=0).model
        return count_macs(build_segmenter(model, num_classes=classes, pretrained=False), input_shape=(1, 3, 64, 64))

    times: dict[str, list[float]] = defaultdict(list)
    for curve in curves:
        times[curve["params"]["model.name"]].append(float(curve["seconds"]))
    # What a network takes is the median over its trainings: others may have computed on the machine during some.
    names = [curve["params"]["model.name"] for curve in curves]
    return [
        {**curve, "macs": macs(name), "seconds": statistics.median(times[name])}
        for curve, name in zip(curves, names, strict=True)
    ]


def end_of(curve: Mapping[str, Any]) -> Point:
    """Where a training ends: mean IoU and minus MACs."""
    return curve["points"][-1][1][QUALITY], -float(curve["macs"])


def search(
    curves: list[dict[str, Any]], *, steps: int, seed: int, workers: int, scheduler: Mapping[str, Any], alone: bool
) -> Searched:
    """Search once by a simulated clock.

    Args:
        curves: the table.
        steps: of a full training.
        seed: of the search.
        workers: trials at the same time.
        scheduler: the rule.
        alone: whether the scheduler knows nothing of costs.
    """
    changes: dict[str, Any] = {
        "seed": seed,
        "scheduler": scheduler,
        "budget": {"trials": len(curves), "concurrency": workers},
    }
    if alone:
        changes["objectives"] = [{"metric": QUALITY, "direction": "maximize"}]
    spec = spec_of(Path("scenes"), steps=steps, **changes)
    by_params = {identity(curve["params"]): curve for curve in curves}
    completed: list[tuple[float, Point]] = []
    spent = 0.0
    with coordinator_over(spec, curves) as coordinator:
        clock = 0.0
        running: list[tuple[float, int, int, int]] = []  # time of the next report, trial, attempt, index of the report
        while True:
            while not isinstance(task := coordinator.next_task(), Wait):
                coordinator.on_message(task.number, task.attempt, {"event": "started", "worker": "table"})
                curve = by_params[identity(coordinator.records[task.number].params)]
                heapq.heappush(running, (clock + _seconds(curve), task.number, task.attempt, 0))
            if not running:
                break
            clock, number, attempt, index = heapq.heappop(running)
            curve = by_params[identity(coordinator.records[number].params)]
            spent += _seconds(curve)
            step, metrics = curve["points"][index]
            stops = coordinator.on_message(number, attempt, {"event": "point", "step": step, "metrics": metrics})
            if step == steps:
                coordinator.on_message(number, attempt, {"event": "finished"})
                completed.append((spent, end_of(curve)))
            elif not stops:
                heapq.heappush(running, (clock + _seconds(curve), number, attempt, index + 1))
        records = coordinator.records
        return Searched(
            completed,
            {record.number: end_of(by_params[identity(record.params)]) for record in records},
            [record.number for record in records if record.state in (TrialState.PRUNED, TrialState.INFEASIBLE)],
            sum(record.step for record in records),
        )


def _seconds(curve: Mapping[str, Any]) -> float:
    """Return how long a trial takes from one report to the next."""
    return float(curve["seconds"]) / len(curve["points"])


def hypervolume(points: Sequence[Point], worst: Point) -> float:
    """Return the area that points dominate, from a reference point; larger is better in both coordinates.

    Example:
        >>> hypervolume([(0.5, -1.0), (0.8, -3.0)], (0.0, -4.0))
        1.8
    """
    area, reached = 0.0, worst[1]
    for quality, cost in sorted(points, reverse=True):
        if cost > reached and quality > worst[0]:
            area += (quality - worst[0]) * (cost - reached)
            reached = cost
    return round(area, 12)


def regret(found: Searched, *, budget: float, ideal: float, worst: Point) -> float:
    """Return what is missing to the ideal hypervolume, in percent of it, averaged over the compute up to a budget."""
    events = [(spent, point) for spent, point in sorted(found.completed) if spent <= budget]
    total, before = 0.0, 0.0
    points: list[Point] = []
    for spent, point in [*events, (budget, None)]:
        total += (spent - before) * (ideal - hypervolume(points, worst))
        before = spent
        if point is not None:
            points.append(point)
    return 100 * total / (budget * ideal)


def wrong_stops(found: Searched) -> float | None:
    """Return the share of stops that hit a trial of the front of all that were proposed; None without stops."""
    if not found.stopped:
        return None
    numbers = sorted(found.proposed)
    fronts = dict(zip(numbers, front_of([found.proposed[number] for number in numbers]), strict=True))
    # Two trials with the same settings end alike, and one of them is enough for the front.
    complete = {point for _, point in found.completed}
    wrong = sum(fronts[number] == 0 and found.proposed[number] not in complete for number in found.stopped)
    return wrong / len(found.stopped)


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % interval by a bootstrap over seeds."""
    generator = random.Random(0)
    means = sorted(statistics.fmean(generator.choices(values, k=len(values))) for _ in range(2000))
    return f"{statistics.fmean(values):.1f} \\[{means[50]:.1f}, {means[1949]:.1f}]"


def dominating(rule: str, entries: int, *, repeats: int = 300) -> float:
    """Return how often a trial that dominates all others of a rung is stopped, among so many entries."""
    spec = spec_of(Path("scenes"), steps=120, scheduler=RULES[rule])
    scheduler: Any = spec.build_scheduler()
    generator = random.Random(0)
    stopped = 0
    for _ in range(repeats):
        others = {number: Standing((-generator.random(),), (generator.random(),)) for number in range(entries - 1)}
        stopped += scheduler.compare_fronts(FIRST_RUNG, Standing((0.0,), (1.0,)), others).stop
    return stopped / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=Path("fronts.json"), help="file of the trained grid")
    parser.add_argument("--steps", type=int, default=120, help="of a full training; a multiple of 20, more than 60")
    parser.add_argument("--seeds", type=int, default=20, help="searches by each rule")
    parser.add_argument("--workers", type=int, default=1, help="trials at the same time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table_of = functools.partial(spec_of, steps=options.steps)
    trained = train_table(options.table, table_of, steps=options.steps, metrics=[QUALITY])
    curves = with_macs(trained, steps=options.steps)
    ends = [end_of(curve) for curve in curves]
    worst = min(quality for quality, _ in ends), min(cost for _, cost in ends)
    ideal = hypervolume(ends, worst)
    budget = sum(float(curve["seconds"]) for curve in curves) / 2
    console = Console(width=132)
    on_front = len({point for point, front in zip(ends, front_of(ends), strict=True) if front == 0})
    console.print(
        f"{len(curves)} trainings of {options.steps} steps, {on_front} on the front; "
        f"reference point {worst[0]:.4f}, {-worst[1]:.3g} MACs; "
        f"compute up to {budget:.0f} s; {options.seeds} seeds, {options.workers} at a time"
    )
    table = Table(
        "rule",
        "regret, % of the ideal hypervolume",
        "against none, paired, %",
        "stopped, %",
        "wrong stops, %",
        "completed",
        "compute, % of all in full",
        title="mean [95 % interval over seeds]",
    )
    plain: list[float] = []
    for name, scheduler in RULES.items():
        found = [
            search(
                curves,
                steps=options.steps,
                seed=seed,
                workers=options.workers,
                scheduler=scheduler,
                alone="alone" in name,
            )
            for seed in range(options.seeds)
        ]
        regrets = [regret(item, budget=budget, ideal=ideal, worst=worst) for item in found]
        plain = plain or regrets
        changes = [100 * (value / base - 1) for value, base in zip(regrets, plain, strict=True)]
        wrong = [100 * share for share in map(wrong_stops, found) if share is not None]
        within = [sum(spent <= budget for spent, _ in item.completed) for item in found]
        table.add_row(
            name,
            interval(regrets),
            interval(changes) if name != "none" else "",
            f"{statistics.fmean(100 * len(item.stopped) / len(item.proposed) for item in found):.0f}",
            f"{statistics.fmean(wrong):.1f}" if wrong else "",
            f"{statistics.fmean(within):.1f}",
            f"{statistics.fmean(100 * item.steps / (options.steps * len(item.proposed)) for item in found):.0f}",
        )
    console.print(table)
    chances = Table(
        "rule",
        *map(str, (4, 8, 16, 32)),
        title="how often a trial that dominates its whole rung is stopped, by entries",
    )
    for name in ("MO-ASHA as misranked elsewhere", "mo_asha", "dominance .9"):
        chances.add_row(name, *(f"{dominating(name, entries):.2f}" for entries in (4, 8, 16, 32)))
    console.print(chances)


if __name__ == "__main__":
    main()
