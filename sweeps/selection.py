"""Which trial to use: the choice that a sweep is made for, and the wall between it and the target's labels.

`source_validation`, the default, reads no target label. It ranks fully trained candidates by mean IoU on the source's
validation split, the criterion that Musgrave et al. ("Three New Validators and a Large-Scale Benchmark Ranking for
Unsupervised Domain Adaptation", 2022) found hard to beat across methods. It is blind to one accident: adaptation that
ruins the target while the source stays fine. Guards from label-free figures reject such trials first. They are there to
catch collapse, not to rank, so they are loose:

1. Source validation mean IoU below 0.8 of the best source-only training's: adaptation broke what supervision gives for
   free. The source-only training of the same network is the measure where there is one, otherwise the best of all.
2. One class covers more than 0.95 of the target's pixels.
3. Too many missing classes. `target/missing_classes` counts classes with more than 1 % of the source's pixels that get
   less than 0.1 % of the target's. A class may be rare in the target by nature, and the source-only network shows about
   how many are; a quarter of the classes more than it misses (at least one) is the limit. Without a source-only
   training nature cannot be told from collapse, and half of the classes is the limit.

`oracle` ranks by target mean IoU, needs target labels, and is an upper limit of what choosing can do. It exists to
measure the other criterion, or for sweeps that say `selection: oracle`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from segda.errors import ConfigError
from segda.names import nearest
from sweeps.analysis import (
    SOURCE_MIOU,
    TARGET_MIOU,
    finite,
    is_candidate,
    mean_interval,
    method_label,
    method_name,
    short_params,
)
from sweeps.spec import SweepSpec
from sweeps.trial import TrialKind, TrialRecord, TrialState

Criterion = Literal["source_validation", "oracle"]

# Criterion -> the figure that it maximizes.
CRITERIA: dict[str, str] = {"source_validation": SOURCE_MIOU, "oracle": TARGET_MIOU}

ORACLE_PREFIX = "oracle/"
LARGEST_CLASS_SHARE = "target/largest_class_share"
MISSING_CLASSES = "target/missing_classes"

MIN_SHARE_OF_SOURCE_ONLY = 0.8
MAX_CLASS_SHARE = 0.95
EXTRA_MISSING_SHARE = 0.25
MISSING_SHARE_WITHOUT_BASELINE = 0.5

_CLASS_PREFIX = "source/val/iou/"
_SOURCE_ONLY = "source_only"


@dataclass(frozen=True)
class Selection:
    """A choice and its reasons.

    Attributes:
        criterion: how it was made; `oracle` used target labels.
        picked: the chosen trial, or None if no trial qualifies.
        reason: why, for people: figures, constraints, runner-up and margin.
        rejected: (trial number, why) of fully trained candidates that did not qualify.
        runner_up: the second choice, if any.
    """

    criterion: str
    picked: TrialRecord | None
    reason: str
    rejected: tuple[tuple[int, str], ...]
    runner_up: TrialRecord | None = None


def visible_metrics(metrics: Mapping[str, float], selection: str) -> dict[str, float]:
    """Return the figures that searcher, scheduler and selection may read.

    Args:
        metrics: figures by name.
        selection: the sweep's criterion.

    Returns:
        A copy; without everything made from target labels (`oracle/...`) unless the criterion is `oracle`.

    Example:
        >>> visible_metrics({"source/val/miou": 0.6, "oracle/target/miou": 0.5}, "source_validation")
        {'source/val/miou': 0.6}
    """
    if selection == "oracle":
        return dict(metrics)
    return {name: value for name, value in metrics.items() if not name.startswith(ORACLE_PREFIX)}


def rank(trials: Iterable[TrialRecord], spec: SweepSpec) -> list[TrialRecord]:
    """Return the trials that qualify, best first, under the sweep's own criterion.

    Each trial counts with its own figure; repetitions over seeds do not enter, so that the choice of finalists does not
    move while they are repeated.

    Args:
        trials: records of one sweep.
        spec: the sweep.
    """
    return _ranked(list(trials), spec, spec.selection)[0]


def select(trials: Iterable[TrialRecord], spec: SweepSpec, *, criterion: str | None = None) -> Selection:
    """Choose one trial.

    When all finalists have finished with the same number of seeds, at least two, the one with the best mean over seeds
    wins; otherwise the best rank wins. Of equals the one with fewer multiply-accumulates wins, then the smaller number.

    Args:
        trials: records of one sweep; it may still run.
        spec: the sweep.
        criterion: name in `CRITERIA`; unset: the sweep's own.

    Raises:
        ConfigError: the criterion is unknown.
    """
    criterion = criterion or spec.selection
    if criterion not in CRITERIA:
        known = ", ".join(CRITERIA)
        raise ConfigError(f"unknown selection criterion {criterion!r}{nearest(criterion, CRITERIA)}; known: {known}")
    records = list(trials)
    ranked, rejected = _ranked(records, spec, criterion)
    if not ranked:
        return Selection(criterion, None, _nothing_reason(records, rejected), rejected)
    metric = CRITERIA[criterion]
    scores = _scores(records, ranked[: max(1, spec.finalists)], metric)
    if len(scores) > 1 and min(len(values) for values in scores.values()) > 1:
        finalists = sorted(
            ranked[: len(scores)], key=lambda trial: (-mean_interval(scores[trial.number]).mean, *_tie(trial))
        )
        ranked = [*finalists, *ranked[len(scores) :]]
    picked = ranked[0]
    runner_up = ranked[1] if len(ranked) > 1 else None
    return Selection(
        criterion, picked, _reason(picked, runner_up, len(ranked), scores, spec, criterion), rejected, runner_up
    )


def _tie(trial: TrialRecord) -> tuple[float, int]:
    macs = finite(trial.profile, "macs")
    return (math.inf if macs is None else macs, trial.number)


def _ranked(
    trials: Sequence[TrialRecord], spec: SweepSpec, criterion: str
) -> tuple[list[TrialRecord], tuple[tuple[int, str], ...]]:
    """Split the fully trained candidates into those that qualify, best first, and those that do not, with why."""
    metric = CRITERIA[criterion]
    qualified: list[tuple[float, TrialRecord]] = []
    rejected: list[tuple[int, str]] = []
    for trial in sorted(trials, key=lambda trial: trial.number):
        if not is_candidate(trial):
            continue
        value = finite(visible_metrics(trial.metrics, criterion), metric)
        if value is None:
            why: str | None = f"it has no {metric}"
        else:
            # A network that collapsed on the target cannot hide from target labels: the oracle needs no guard.
            why = broken_constraint(trial, spec) or (None if criterion == "oracle" else collapse(trial, trials))
        if why is None and value is not None:
            qualified.append((value, trial))
        else:
            rejected.append((trial.number, str(why)))
    qualified.sort(key=lambda item: (-item[0], *_tie(item[1])))
    return [trial for _, trial in qualified], tuple(rejected)


def broken_constraint(trial: TrialRecord, spec: SweepSpec) -> str | None:
    """Return which constraint the trial's architecture breaks and by what figure, or None."""
    for constraint in spec.constraints:
        value = finite(trial.profile, constraint.metric)
        if value is None:
            return f"{constraint.metric} was not measured, so the constraint {constraint} cannot be checked"
        if not constraint.holds(value):
            return f"{constraint} is broken: {value:.4g}"
    return None


def source_only_baseline(trials: Iterable[TrialRecord], *, like: TrialRecord | None = None) -> TrialRecord | None:
    """Return the best fully trained source-only network by source validation.

    Args:
        trials: records of one sweep; search trials and references count.
        like: prefer source-only networks of this trial's architecture.
    """
    known = [
        trial
        for trial in trials
        if trial.state is TrialState.COMPLETE
        and trial.kind is not TrialKind.REPLICATE
        and method_name(trial) == _SOURCE_ONLY
        and finite(trial.metrics, SOURCE_MIOU) is not None
    ]
    if like is not None:
        same = [trial for trial in known if trial.config.get("model") == like.config.get("model")]
        known = same or known
    return min(known, key=lambda trial: (-trial.metrics[SOURCE_MIOU], trial.number), default=None)


def collapse(trial: TrialRecord, trials: Iterable[TrialRecord]) -> str | None:
    """Return why a trial looks collapsed, from label-free target figures and labelled source figures, or None.

    Args:
        trial: a fully trained trial.
        trials: all records of the sweep, for the source-only baseline.
    """
    baseline = source_only_baseline(trials, like=trial)
    source = finite(trial.metrics, SOURCE_MIOU)
    if baseline is not None and source is not None:
        limit = MIN_SHARE_OF_SOURCE_ONLY * baseline.metrics[SOURCE_MIOU]
        if source < limit:
            return (
                f"{SOURCE_MIOU} {source:.1%} is below {limit:.1%}, {MIN_SHARE_OF_SOURCE_ONLY:g} of what source-only "
                f"trial {baseline.number} reaches"
            )
    share = finite(trial.metrics, LARGEST_CLASS_SHARE)
    if share is not None and share > MAX_CLASS_SHARE:
        return f"one class covers {share:.1%} of the target's pixels, more than {MAX_CLASS_SHARE:.0%}"
    missing = finite(trial.metrics, MISSING_CLASSES)
    num_classes = sum(name.startswith(_CLASS_PREFIX) for name in trial.metrics)
    if missing is None or num_classes == 0:
        return None
    natural = finite(baseline.metrics, MISSING_CLASSES) if baseline is not None else None
    if natural is None:
        allowed, measure = MISSING_SHARE_WITHOUT_BASELINE * num_classes, "half of the classes"
    else:
        allowed = natural + max(1.0, EXTRA_MISSING_SHARE * num_classes)
        measure = f"{natural:.0f} missing in source-only trial {baseline.number if baseline else 0} plus a quarter"
    if missing > allowed:
        return f"{missing:.0f} of {num_classes} classes are missing in its target predictions; the limit is {measure}"
    return None


def _scores(trials: Sequence[TrialRecord], finalists: Sequence[TrialRecord], metric: str) -> dict[int, list[float]]:
    """Return finalist -> its figure with each seed that finished; empty unless all have the same number of seeds."""
    scores = {trial.number: [trial.metrics[metric]] for trial in finalists}
    for trial in trials:
        is_repetition = trial.kind is TrialKind.REPLICATE and trial.state is TrialState.COMPLETE
        value = finite(trial.metrics, metric)
        if is_repetition and trial.parent in scores and value is not None:
            scores[trial.parent].append(value)
    return scores if len({len(values) for values in scores.values()}) == 1 else {}


def _named(trial: TrialRecord) -> str:
    details = ", ".join(part for part in (method_label(trial), short_params(trial.params)) if part)
    return f"trial {trial.number} ({details})"


def _reason(
    picked: TrialRecord,
    runner_up: TrialRecord | None,
    num_qualified: int,
    scores: Mapping[int, Sequence[float]],
    spec: SweepSpec,
    criterion: str,
) -> str:
    metric = CRITERIA[criterion]

    # A mean over seeds is only set against another mean over as many seeds.
    is_mean = picked.number in scores and (runner_up is None or runner_up.number in scores)

    def figure(trial: TrialRecord) -> float:
        return mean_interval(scores[trial.number]).mean if is_mean else trial.metrics[metric]

    seeds = len(scores[picked.number]) if is_mean else 1
    over = f" as a mean over {seeds} seeds" if seeds > 1 else f" with seed {picked.seed}"
    among = "the only candidate that qualifies" if num_qualified == 1 else f"{num_qualified} candidates that qualify"
    best = "has" if num_qualified == 1 else "has the best"
    name = _named(picked)
    sentences = [f"{name[0].upper()}{name[1:]} {best} {metric}, {figure(picked):.1%}{over}, of {among}."]
    if num_qualified == 1:
        sentences = [f"{name[0].upper()}{name[1:]} is {among}; its {metric} is {figure(picked):.1%}{over}."]
    if not is_mean and len(scores.get(picked.number, ())) > 1:
        repeated = mean_interval(scores[picked.number])
        sentences.append(f"Its mean over {repeated.n} seeds is {repeated.mean:.1%}.")
    kept = [f"{item} (measured {picked.profile[item.metric]:.4g})" for item in spec.constraints]
    if kept:
        sentences.append(f"It keeps {' and '.join(kept)}.")
    if runner_up is not None:
        margin = figure(picked) - figure(runner_up)
        behind = (
            f"{100 * margin:.1f} points behind" if margin > 0 else "level; fewer MACs or the smaller number decided"
        )
        sentences.append(f"The runner-up, {_named(runner_up)}, has {figure(runner_up):.1%}: {behind}.")
    if criterion == "oracle":
        sentences.append("This choice read target labels.")
    else:
        sentences.append("No target label was read to choose.")
        if LARGEST_CLASS_SHARE not in picked.metrics or MISSING_CLASSES not in picked.metrics:
            sentences.append("Collapse on the target could not be checked: its figures are missing.")
    return " ".join(sentences)


def _nothing_reason(trials: Sequence[TrialRecord], rejected: Sequence[tuple[int, str]]) -> str:
    if rejected:
        shown = "; ".join(f"trial {number}: {why}" for number, why in rejected[:3])
        more = f"; and {len(rejected) - 3} more" if len(rejected) > 3 else ""
        return f"No trial can be picked: {len(rejected)} fully trained candidates were rejected ({shown}{more})."
    searched = [trial for trial in trials if trial.kind is TrialKind.SEARCH]
    if not searched:
        return "No trial can be picked: the sweep has no search trial yet."
    counts = {state: sum(trial.state is state for trial in searched) for state in TrialState}
    shown = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count)
    return f"No trial can be picked: none of {len(searched)} search trials is a fully trained candidate ({shown})."
