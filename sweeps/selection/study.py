"""What criteria are worth where target labels are at hand: over one sweep, over many, and as a default for the next one.

All of it reads target labels (`oracle/...`) and steers nothing. A task is a pair of domains; its sweeps may search what they like.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from sweeps.file.spec import SweepSpec
from sweeps.labels import method_name
from sweeps.metrics import CRITERIA, TARGET_MIOU, finite
from sweeps.paths import value_at
from sweeps.selection.analysis import weighted_rank_correlation
from sweeps.selection.choice import criteria_of, select
from sweeps.trial import TrialRecord


@dataclass(frozen=True)
class CriterionScore:
    """What a criterion is worth in one sweep.

    Attributes:
        criterion: its name.
        used: the one that chose where it was refused.
        across: weighted rank correlation with target mean IoU over all candidates that qualify; None with too few.
        within: the mean of the same over the candidates of one method at a time; None with too few of each.
        regret: target mean IoU of the best candidate that qualifies minus that of the choice, in [0, 1]; None without one of them.
    """

    criterion: str
    used: str
    across: float | None
    within: float | None
    regret: float | None


@dataclass(frozen=True)
class SweepScores:
    """What the criteria are worth in one sweep.

    Attributes:
        sweep: its name.
        task: its pair of domains.
        candidates: how many qualify and have a target mean IoU.
        best: target mean IoU of the best of them.
        scores: one of each criterion that the sweep has.
    """

    sweep: str
    task: str
    candidates: int
    best: float
    scores: tuple[CriterionScore, ...]


@dataclass(frozen=True)
class HeldOut:
    """The default that the other tasks would have suggested, on a task that had no say.

    Attributes:
        task: the one that was left out.
        default: the criterion with the smallest mean regret on the others.
        regret: its mean regret on the sweeps of this task.
    """

    task: str
    default: str
    regret: float


def sweep_scores(trials: Sequence[TrialRecord], spec: SweepSpec) -> SweepScores | None:
    """Return what each criterion is worth in a sweep; None if no candidate that qualifies has a target mean IoU.

    Chosen is by the search's own seed: the first of each ranking, whatever further seeds say.

    Args:
        trials: its records, with their pool figures (`sweeps.selection.pool`).
        spec: the sweep.
    """
    known = {trial.number: trial for trial in trials if finite(trial.metrics, TARGET_MIOU) is not None}
    # Who qualifies does not depend on whether one criterion has a figure for it.
    eligible = [
        known[number] for number in select(trials, spec, criterion="source_validation").ranked if number in known
    ]
    if not eligible:
        return None
    best = max(trial.metrics[TARGET_MIOU] for trial in eligible)
    scores = []
    for criterion in criteria_of(spec):
        if criterion == "oracle":
            continue
        selection = select(trials, spec, criterion=criterion)
        first = next((known[number] for number in selection.ranked[:1] if number in known), None)
        metric = CRITERIA[criterion]
        has_figure = any(finite(trial.metrics, metric) is not None for trial in eligible)
        methods = {method_name(trial) for trial in eligible}
        each = [_correlation([trial for trial in eligible if method_name(trial) == name], metric) for name in methods]
        inside = [value for value in each if value is not None]
        scores.append(
            CriterionScore(
                criterion=criterion,
                used=selection.used,
                across=_correlation(eligible, metric) if has_figure else None,
                within=fmean(inside) if inside else None,
                regret=None if first is None else best - first.metrics[TARGET_MIOU],
            )
        )
    return SweepScores(spec.name, task_of(trials), len(eligible), best, tuple(scores))


def task_of(trials: Sequence[TrialRecord]) -> str:
    """Return the pair of domains of a sweep, e.g. `camvid/day -> camvid/dusk`.

    Args:
        trials: its records, at least one.
    """
    source, target = (
        # A described data set goes by its file, and the same task is one wherever that lies.
        f"{Path(str(value_at(trials[0].config, f'data.{side}.dataset'))).stem}/{value_at(trials[0].config, f'data.{side}.domain')}"
        for side in ("source", "target")
    )
    return f"{source} -> {target}"


def mean_regrets(sweeps: Iterable[SweepScores]) -> dict[str, float]:
    """Return criterion -> mean regret over tasks, of the mean over each task's sweeps; without those that lack one somewhere.

    Args:
        sweeps: of one task or several.
    """
    by_task: dict[str, dict[str, list[float | None]]] = {}
    for sweep in sweeps:
        for score in sweep.scores:
            by_task.setdefault(sweep.task, {}).setdefault(score.criterion, []).append(score.regret)
    means: dict[str, list[float]] = {}
    for criteria in by_task.values():
        for criterion, regrets in criteria.items():
            found = [regret for regret in regrets if regret is not None]
            means.setdefault(criterion, []).append(fmean(found) if len(found) == len(regrets) else math.nan)
    return {
        criterion: fmean(values)
        for criterion, values in means.items()
        if len(values) == len(by_task) and not any(map(math.isnan, values))
    }


def leave_one_task_out(sweeps: Sequence[SweepScores]) -> list[HeldOut]:
    """Return, for each task, the default that the other tasks suggest and what it costs there.

    A default that is chosen on the tasks that it is judged by looks better than it is. Of equal ones the first in the order of the
    criteria is taken.

    Args:
        sweeps: of two tasks at least; with one there is nothing to say.
    """
    held = []
    for task in dict.fromkeys(sweep.task for sweep in sweeps):
        others = mean_regrets(sweep for sweep in sweeps if sweep.task != task)
        own = mean_regrets(sweep for sweep in sweeps if sweep.task == task)
        candidates: Mapping[str, float] = {name: regret for name, regret in others.items() if name in own}
        if candidates:
            default = min(candidates, key=candidates.__getitem__)
            held.append(HeldOut(task, default, own[default]))
    return held


def _correlation(trials: Sequence[TrialRecord], metric: str) -> float | None:
    return weighted_rank_correlation(
        [trial.metrics.get(metric, math.nan) for trial in trials], [trial.metrics[TARGET_MIOU] for trial in trials]
    )
