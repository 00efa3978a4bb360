"""How much training does a search need until it has found what a full grid would have found?

    python benchmarks/search.py --table search_table.json   # first trains the table for ten minutes; later runs replay it

First every combination of a small real task is trained once, with `segda.train`: procedural rural scenes to urban ones at
64 x 64 pixels, a BiSeNet-ResNet-18 for 120 steps, plain or adversarial, over learning rate, augmentation and weight of the
adversarial loss. Their learning curves are the table. Then `sweeps` searches the same space again and again, with its own
coordinator, ledger, samplers and early stopping, but instead of training, a trial reports what the table says it would have (as
in NAS-Bench-101, Ying et al., ICML 2019). So five seeds of each strategy cost seconds, and all meet the same trainings.

One trial runs at a time. Counted is the compute, in training steps of all trials so far, until a trial was trained in full that is
as good as the best of the grid, to 1 %. Three questions:

- What does a criterion know? Over the grid: its rank correlation with the target's mean IoU, and what its own choice is worth.
- The source steers and judges: how well does it search?
- The target judges: how soon is the network there that is best on it? Source validation and the validators steer without a label of
  the target, so where a criterion disagrees with it this is luck; the oracle says what labels would be worth to the search.

A strategy that stops trials early may stop the best one for good: then it never gets there, and the table says how often it did.
Agreement with the other candidates (`ensv`) is no figure of one training, so no search can be steered by it.
"""

import argparse
import itertools
import math
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from scenes_table import scenes_base, train_table
from scipy.stats import spearmanr

from segda.config import TrainConfig
from segda.validators import USUAL_VALIDATORS
from sweeps.checks.makers import spec_from
from sweeps.execution.coordinator import Coordinator, Wait
from sweeps.file.space import identity
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.metrics import CRITERIA
from sweeps.planning.machines import stated
from sweeps.planning.profiles import Architecture, Profile
from sweeps.store import Store
from sweeps.trial import TrialState

SOURCE, TARGET = CRITERIA["source_validation"], CRITERIA["oracle"]
STEERING = {name: CRITERIA[name] for name in ("source_validation", *USUAL_VALIDATORS, "oracle")}
WITHIN = 0.01  # of the best value, relative
STRATEGIES: dict[str, dict[str, Any]] = {
    "grid": {"sampler": {"name": "grid"}},
    "random": {"sampler": {"name": "random"}},
    "TPE": {"sampler": {"name": "tpe", "startup_trials": 6}},
    "TPE + ASHA": {
        "sampler": {"name": "tpe", "startup_trials": 6},
        "scheduler": {"name": "asha", "min_steps": 40, "reduction_factor": 3},
    },
}


def spec_of(root: Path, *, steps: int, **changes: Any) -> SweepSpec:
    """The task as a sweep."""
    plain = {
        "name": "search",
        "base": scenes_base(
            root,
            steps=steps,
            model={"name": "bisenet_v1", "backbone": "resnet18", "pretrained": "none"},
            optimizer={"name": "sgd", "weight_decay": 1e-4},
            oracle="always",
        ),
        "search": {
            "method.name": ["source_only", "adversarial"],
            "optimizer.lr": [0.003, 0.01, 0.03, 0.1],
            "data.augmentation": ["none", "nadir_color"],
            "method.lambda_adv": {"choices": [0.001, 0.01, 0.1], "when": {"method.name": "adversarial"}},
        },
        "budget": {"trials": 1000, "concurrency": 1},
        "reuse": False,
    }
    return spec_from(plain | changes, where="the benchmark's sweep")


def search(
    curves: list[dict[str, Any]], steps: int, seed: int, steers: str, changes: Mapping[str, Any]
) -> list[tuple[dict[str, float], int, bool]]:
    """Search once with one strategy, steered by a criterion; see `replay`."""
    metric = STEERING[steers]
    changes = {"objectives": [{"metric": metric, "direction": "maximize"}], "selection": steers} | dict(changes)
    if "scheduler" in changes:
        changes["scheduler"] = changes["scheduler"] | {"metric": metric}
    with tempfile.TemporaryDirectory() as folder:
        return replay(spec_of(Path("scenes"), steps=steps, seed=seed, **changes), curves, Path(folder))


def replay(spec: SweepSpec, curves: list[dict[str, Any]], folder: Path) -> list[tuple[dict[str, float], int, bool]]:
    """Search once; return each trial's last figures in the table, the steps that it took, and whether it was trained in full."""
    by_params = {identity(curve["params"]): curve for curve in curves}
    profiles = {
        Architecture.of(spec.train_config(params, seed=0)): Profile(metrics={"macs": 1.0})
        for params in spec.space.combinations()
    }
    with Ledger.open(folder / "ledger.db") as ledger:
        ledger.create_sweep(spec.name, spec=spec.canonical())
        coordinator = Coordinator(
            spec,
            allotment=stated(spec),
            ledger=ledger,
            store=Store.at(folder),
            profiles=profiles,
            fingerprint=_no_fingerprint,
        )
        while not isinstance(task := coordinator.next_task(), Wait):
            curve = by_params[identity(coordinator.records[task.number].params)]
            messages = [{"event": "point", "step": step, "metrics": metrics} for step, metrics in curve["points"]]
            for message in [{"event": "started", "worker": "table"}, *messages, {"event": "finished"}]:
                if coordinator.on_message(task.number, task.attempt, message):
                    break
        return [
            (by_params[identity(record.params)]["points"][-1][1], record.step, record.state is TrialState.COMPLETE)
            for record in coordinator.records
        ]


def _no_fingerprint(config: TrainConfig) -> str:
    return "table"


def steps_until(trials: list[tuple[dict[str, float], int, bool]], metric: str, best: float) -> float:
    """Return the steps of all trials up to the first fully trained one that is as good as the best; infinite if there is none."""
    spent = itertools.accumulate(steps for _, steps, _ in trials)
    reached = (
        total
        for (figures, _, is_complete), total in zip(trials, spent, strict=True)
        if is_complete and figures[metric] >= (1 - WITHIN) * best
    )
    return next(reached, math.inf)


def shown(values: list[float], steps: int) -> str:
    """Median in full trainings, smallest to largest, and how often it got there."""
    median = statistics.median_low(values) / steps
    reached = [value / steps for value in values if math.isfinite(value)]
    if not reached:
        return "never"
    middle = f"{median:.1f}" if math.isfinite(median) else "never"
    return f"{middle} [{min(reached):.1f}, {max(reached):.1f}] {len(reached)}/{len(values)}"


def knowledge(last: list[dict[str, float]]) -> Table:
    """What each criterion knows of the target over the grid."""
    table = Table("criterion", "rank correlation with the target", "target mIoU of its choice", title="over the grid")
    for criterion, metric in STEERING.items():
        agreement = spearmanr([figures[metric] for figures in last], [figures[TARGET] for figures in last]).statistic
        choice = max(last, key=lambda figures: figures[metric])
        table.add_row(criterion, f"{agreement:.2f}", f"{choice[TARGET]:.4f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=Path("search_table.json"), help="file of the trained grid")
    parser.add_argument("--steps", type=int, default=120, help="of a full training; a multiple of 20, more than 40")
    parser.add_argument("--seeds", type=int, default=5, help="searches of each strategy")
    options = parser.parse_args()
    torch.set_num_threads(1)
    curves = train_table(
        options.table,
        lambda root: spec_of(root, steps=options.steps),
        steps=options.steps,
        metrics=STEERING.values(),
    )
    if any(curve["points"][-1][1].keys() != set(STEERING.values()) for curve in curves):
        raise SystemExit(
            f"{options.table} was trained with other criteria than {', '.join(STEERING)}; name another file"
        )
    last = [curve["points"][-1][1] for curve in curves]
    best = {metric: max(figures[metric] for figures in last) for metric in (SOURCE, TARGET)}
    console = Console(width=120)
    for metric, name in ((SOURCE, "source"), (TARGET, "target")):
        good = sum(figures[metric] >= (1 - WITHIN) * best[metric] for figures in last)
        middle = statistics.median(figures[metric] for figures in last)
        console.print(f"{name}: best {best[metric]:.4f}, {good} of {len(last)} within 1 %, median {middle:.4f}")
    console.print(knowledge(last))
    table = Table(
        "steers",
        "judges",
        *STRATEGIES,
        title=f"full trainings until the grid's best was there: median \\[least, most] of {options.seeds} seeds, "
        "how many got there",
    )
    for steers, judges in (("source_validation", SOURCE), *((criterion, TARGET) for criterion in STEERING)):
        cells = []
        for changes in STRATEGIES.values():
            found = [search(curves, options.steps, seed, steers, changes) for seed in range(options.seeds)]
            cells.append(shown([steps_until(trials, judges, best[judges]) for trials in found], options.steps))
        table.add_row(steers, "source" if judges == SOURCE else "target", *cells)
    console.print(table)


if __name__ == "__main__":
    main()
