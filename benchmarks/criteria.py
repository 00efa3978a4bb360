"""Which criterion chooses best without target labels?

    python benchmarks/criteria.py runs                         # every sweep of a store
    python benchmarks/criteria.py runs:methods_camvid other    # one sweep of a store, and all of another
    python benchmarks/criteria.py runs --json all.json         # for later: a place may be such a file, too

Reads the ledgers and the small files of sweeps that were run with target scores (`oracle: end`), and trains nothing. For each
sweep and criterion: the weighted Spearman correlation with the target's mean IoU (exponent 2), within one method at a time and
across all, and what the choice loses on the best candidate. Guards stand before every criterion, as when a sweep chooses.

Then the default. In hindsight: the mean regret of each criterion over the tasks (pairs of domains). And fairly: for each task the
criterion with the smallest mean regret on the other tasks, and its regret on this one.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from segda.errors import SegdaError
from segda.files import write_json
from sweeps.checks.makers import stored_spec
from sweeps.commands.places import ledger_to_read
from sweeps.execution.predictions import compared
from sweeps.selection.study import CriterionScore, SweepScores, leave_one_task_out, mean_regrets, sweep_scores
from sweeps.store import Store


def read(place: str) -> Iterator[SweepScores]:
    """Read the sweeps of a store, or one of them, `STORE` or `STORE:SWEEP`; or what was written with `--json` before."""
    if place.endswith(".json"):
        yield from kept(Path(place))
        return
    root, _, wanted = place.partition(":")
    store = Store.at(root)
    with ledger_to_read(store, None) as ledger:
        for name in [wanted] if wanted else [record.name for record in ledger.sweeps()]:
            spec = stored_spec(ledger.sweep(name))
            found = sweep_scores(compared(ledger.trials(name), store=store, storage=spec.storage), spec)
            if found is None:
                print(f"{place}: {name} has no fully trained candidate with a target score")
            else:
                yield found


def kept(path: Path) -> Iterator[SweepScores]:
    """Read the sweeps of a file that was written with `--json`."""
    try:
        for sweep in json.loads(path.read_text(encoding="utf-8"))["sweeps"]:
            yield SweepScores(**{**sweep, "scores": tuple(CriterionScore(**score) for score in sweep["scores"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SystemExit(f"error: {path} is no file of this program: {error}") from error


def shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def of_sweep(sweep: SweepScores) -> Table:
    """What each criterion is worth in one sweep."""
    table = Table(
        "criterion",
        "across methods",
        "within methods",
        "regret (points)",
        title=f"{sweep.sweep}: {sweep.task}, {sweep.candidates} candidates, best {100 * sweep.best:.1f} %",
    )
    for score in sweep.scores:
        table.add_row(_name(score), shown(score.across), shown(score.within), _points(score.regret))
    return table


def of_all(sweeps: list[SweepScores]) -> Table:
    """Mean regret of each criterion over the tasks, and the largest of any sweep."""
    table = Table("criterion", "mean regret (points)", "largest", "refused", title="over all tasks, in hindsight")
    means = mean_regrets(sweeps)
    for criterion in sorted(means, key=means.__getitem__):
        scores = [score for sweep in sweeps for score in sweep.scores if score.criterion == criterion]
        largest = max(score.regret for score in scores if score.regret is not None)
        refused = sum(score.used != score.criterion for score in scores)
        table.add_row(criterion, _points(means[criterion]), _points(largest), f"{refused} of {len(scores)}")
    return table


def of_defaults(sweeps: list[SweepScores]) -> Table:
    """The default that the other tasks suggest for each task."""
    table = Table("task", "default of the others", "its regret (points)", title="one task left out at a time")
    for held in leave_one_task_out(sweeps):
        table.add_row(held.task, held.default, _points(held.regret))
    return table


def _name(score: CriterionScore) -> str:
    return score.criterion if score.used == score.criterion else f"{score.criterion} (refused: {score.used})"


def _points(regret: float | None) -> str:
    return "-" if regret is None else f"{100 * regret:.2f}"


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "places", nargs="+", metavar="STORE[:SWEEP]", help="folder of a store, and one of its sweeps; or a file"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures into this file, too")
    options = parser.parse_args(None if words is None else list(words))
    try:
        sweeps = [sweep for place in options.places for sweep in read(place)]
    except SegdaError as error:
        raise SystemExit(f"error: {error}") from error
    if not sweeps:
        raise SystemExit("error: no sweep has figures to compare")
    console = Console(width=120)
    for sweep in sweeps:
        console.print(of_sweep(sweep))
    console.print(of_all(sweeps))
    console.print(of_defaults(sweeps))
    if options.json is not None:
        held = [asdict(item) for item in leave_one_task_out(sweeps)]
        each = [asdict(sweep) for sweep in sweeps]
        write_json(options.json, {"sweeps": each, "means": mean_regrets(sweeps), "left_out": held})


if __name__ == "__main__":
    main()
