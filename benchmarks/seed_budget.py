"""How many further trainings does it take to know the best finalist?

    python benchmarks/seed_budget.py                                            eight made-up finalists
    python benchmarks/seed_budget.py --table docs/results/methods_camvid.csv    those of a sweep, with their own seeds
    python benchmarks/seed_budget.py --table FILE --metric source/val/miou

Finalists have known means; a training gives the mean plus what a seed adds. Of a table, a finalist's mean is that over its further
seeds, and what seeds add is drawn from what they added there, pooled over all finalists (times the square root of n / (n - 1),
since means were taken from the same values). Runs are shared out evenly, or as `seeds: {budget: N}` does, by the functions that the
coordinator calls (`sweeps.selection.seed_budget`). Each is repeated with other luck, the same for both; nothing is trained.

Told are how often the best was picked, and regret: the best mean minus that of the pick, in points. The lines below have how many
runs the second needs for the regret of the first.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from sweeps.file.parts import SeedBudget
from sweeps.selection.seed_budget import Run, next_run, standing

Luck = Callable[[np.random.Generator], float]
BUDGETS = (16, 24, 32, 40, 60, 80)


def made_up() -> tuple[NDArray[np.float64], Luck]:
    """Return means and luck of eight finalists half a point apart, whose seeds scatter by .7 points."""
    return 0.6 - 0.005 * np.arange(8), lambda generator: float(generator.normal(0, 0.007))


def of_table(path: Path, metric: str) -> tuple[NDArray[np.float64], Luck]:
    """Return means and luck of the finalists of a sweep that was exported, without its references."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    searched = {row["number"] for row in rows if row["kind"] == "search"}
    seeds: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        value = row[f"metric.{metric}"]
        if row["parent"] in searched and value:
            seeds[row["parent"]].append(float(value))
    groups = [np.array(values) for values in seeds.values() if len(values) > 1]
    if len(groups) < 2:
        raise SystemExit(f"{path}: expected two finalists of the search with two further seeds each, got {len(groups)}")
    scatter = np.concatenate([(group - group.mean()) * np.sqrt(len(group) / (len(group) - 1)) for group in groups])
    return np.array([group.mean() for group in groups]), lambda generator: float(generator.choice(scatter))


def evenly(finalists: Sequence[int], runs: Sequence[Run], limits: SeedBudget, seed: int) -> tuple[int, int] | None:
    """Return the next run where finalists take turns."""
    return finalists[len(runs) % len(finalists)], 1 + len(runs) // len(finalists)


def by_thompson(finalists: Sequence[int], runs: Sequence[Run], limits: SeedBudget, seed: int) -> tuple[int, int] | None:
    """Return the next run as a sweep decides it."""
    return next_run(finalists, runs, limits, default=None, given_up=(), seed=seed)


RULES = {"evenly": evenly, "top-two Thompson": by_thompson}


def regrets(means: NDArray[np.float64], luck: Luck, rule: str, *, seed: int) -> list[float]:
    """Return the regret of the pick after each budget."""
    generator = np.random.default_rng([seed, 1])
    order = np.random.default_rng(seed).permutation(len(means))
    limits = SeedBudget(budget=max(BUDGETS), confidence=0.999999)
    finalists, runs, found = list(range(len(means))), [], []
    while len(runs) < limits.budget:
        following = RULES[rule](finalists, runs, limits, seed)
        if following is not None:
            number, own = following
            runs.append(Run(number, own, means[order[number]] + luck(generator), is_open=False))
        if following is None or len(runs) in BUDGETS:
            known = standing(finalists, runs, limits, default=None, seed=seed)
            assert known is not None
            found.append(float(means.max() - means[order[known.leader]]))
        if following is None:  # as good as certain: what is left of the budget is not needed
            return [*found[:-1], *[found[-1]] * (len(BUDGETS) - len(found) + 1)]
    return found


def needed(budgets: Sequence[int], mean: NDArray[np.float64], wanted: float) -> float:
    """Return how many runs reach a mean regret, between budgets by a straight line; infinity if none does."""
    for index, value in enumerate(mean):
        if value <= wanted:
            if index == 0 or mean[index - 1] == value:
                return float(budgets[index])
            share = (mean[index - 1] - wanted) / (mean[index - 1] - value)
            return float(budgets[index - 1] + share * (budgets[index] - budgets[index - 1]))
    return float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, help="CSV of `sweeps export`; default: made-up finalists")
    parser.add_argument("--metric", default="oracle/target/miou", help="of the table")
    parser.add_argument("--seeds", type=int, default=200, help="repetitions with other luck")
    options = parser.parse_args()
    means, luck = made_up() if options.table is None else of_table(options.table, options.metric)
    ranked = np.sort(means)[::-1]
    found = {rule: np.array([regrets(means, luck, rule, seed=seed) for seed in range(options.seeds)]) for rule in RULES}
    console = Console()
    what = "made up" if options.table is None else f"{options.table.name}, {options.metric}"
    table = Table(
        title=f"{len(means)} finalists ({what}), best {100 * ranked[0]:.1f}, next {100 * ranked[1]:.1f} %; mean and standard error "
        f"over {options.seeds} repetitions",
        title_justify="left",
    )
    for heading in ("runs", *(f"{rule}: best picked" for rule in RULES), *(f"{rule}: regret" for rule in RULES)):
        table.add_column(heading, justify="right")
    for index, budget in enumerate(BUDGETS):
        if budget < len(means):
            continue
        columns = [values[:, index] for values in found.values()]
        table.add_row(
            str(budget),
            *(f"{np.mean(column == 0):.2f}" for column in columns),
            *(f"{100 * column.mean():.2f} ± {100 * column.std() / np.sqrt(len(column)):.2f}" for column in columns),
        )
    console.print(table)
    even, clever = (values.mean(axis=0) for values in found.values())
    for budget, wanted in zip(BUDGETS, even, strict=True):
        if budget >= len(means):
            runs = needed(BUDGETS, clever, wanted)
            console.print(
                f"the regret of {budget} runs shared out evenly takes {runs:.0f} by top-two Thompson sampling"
            )


if __name__ == "__main__":
    main()
