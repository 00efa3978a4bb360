"""Which trial to use: the choice that a sweep is made for.

`ensv`, the default, ranks fully trained candidates by agreement with the majority of them on unlabelled target images
(`sweeps.selection.pool`), which is not a figure of one network: who selects adds it to the trials first
(`sweeps.execution.predictions`). Of all criteria that read no target label it lost least over the pairs of domains in
`docs/RESULTS.md`. Where the vote is refused, `source_validation` chooses, and the reason says so.

`source_validation` ranks by mean IoU on the source's validation split, the criterion that Musgrave et al. ("Three New Validators
and a Large-Scale Benchmark Ranking for Unsupervised Domain Adaptation", 2022) found hard to beat across methods in classification.
It chooses whoever has adapted least. The validators (`segda.validators`) rank by what a network's predictions on the target look
like. Each can be fooled, and none wins everywhere, so the guards of `sweeps.selection.guards` reject collapsed trials before any
criterion ranks.

`oracle` ranks by target mean IoU, needs target labels and knows no guard. It exists to measure the others, or for sweeps that say
`selection: oracle`. The regret of a criterion is told against what it could have picked: candidates that no guard rejects.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from segda.errors import ConfigError
from segda.names import nearest
from segda.validators import USUAL_VALIDATORS
from sweeps.file.spec import SweepSpec
from sweeps.metrics import CRITERIA, finite, visible_metrics
from sweeps.paths import value_at
from sweeps.selection.analysis import is_candidate
from sweeps.selection.finalists import finalists_of, settle
from sweeps.selection.guards import Guard
from sweeps.selection.pool import pool_fault
from sweeps.selection.reasons import choice_reason, nothing_reason
from sweeps.selection.seed_budget import Standing
from sweeps.selection.seeds import Paired
from sweeps.trial import TrialRecord

IN_PLACE_OF_ENSV = "source_validation"


@dataclass(frozen=True)
class Selection:
    """A choice and its reasons.

    Attributes:
        criterion: how it was to be made; `oracle` used target labels.
        used: how it was made: another criterion where that was refused.
        picked: the chosen trial, or None if no trial qualifies.
        reason: why, for people: figures, constraints, other finalists, runner-up and margin.
        rejected: (trial number, why) of fully trained candidates that did not qualify.
        runner_up: the next best by rank, if any.
        comparisons: what decided against each other finalist, over the further seeds that both have.
        ranked: numbers of the candidates that qualify, best first by the search's own figure.
        standing: with a budget of further runs, what these say of the finalists.
    """

    criterion: str
    used: str
    picked: TrialRecord | None
    reason: str
    rejected: tuple[tuple[int, str], ...]
    runner_up: TrialRecord | None = None
    comparisons: tuple[Paired, ...] = ()
    ranked: tuple[int, ...] = ()
    standing: Standing | None = None


def criteria_of(spec: SweepSpec) -> list[str]:
    """Return the criteria by which the trials of a sweep can be compared.

    Args:
        spec: the sweep; `base.validators` says what its trials compute.
    """
    return ["source_validation", *value_at(spec.base, "validators", USUAL_VALIDATORS), "ensv", "oracle"]


def rank(trials: Iterable[TrialRecord], spec: SweepSpec) -> list[TrialRecord]:
    """Return the trials that qualify, best first, under the sweep's own criterion.

    Each trial counts with its own figure; repetitions over seeds do not enter, so that the choice of finalists does not
    move while they are repeated.

    Args:
        trials: records of one sweep, for `ensv` with their pool figures.
        spec: the sweep.
    """
    records = list(trials)
    return _ranked(records, spec, _used(records, spec.selection)[0])[0]


def select(trials: Iterable[TrialRecord], spec: SweepSpec, *, criterion: str | None = None) -> Selection:
    """Choose one trial.

    The best rank wins, unless trainings of the finalists with further seeds speak for another one (see `finalists.py`). Of
    equal figures the one with fewer multiply-accumulates ranks first, then the smaller number.

    Args:
        trials: records of one sweep, for `ensv` with their pool figures; it may still run.
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
    used, refused = _used(records, criterion)
    ranked, rejected = _ranked(records, spec, used)
    if not ranked:
        return Selection(criterion, used, None, nothing_reason(records, rejected), rejected)
    metric = CRITERIA[used]
    verdict = settle(
        finalists_of(ranked, spec),
        records,
        spec=spec,
        metric=metric,
        collapsed=collapse_guard(records, used),
    )
    picked = verdict.picked
    reason = choice_reason(verdict, ranked, records, spec, criterion=used, metric=metric)
    return Selection(
        criterion,
        used,
        picked,
        reason if refused is None else f"{criterion} was refused: {refused}. By {used}: {reason}",
        rejected,
        next((trial for trial in ranked if trial is not picked), None),
        verdict.comparisons,
        tuple(trial.number for trial in ranked),
        verdict.standing,
    )


def used_criterion(trials: Iterable[TrialRecord], spec: SweepSpec) -> str:
    """Return the criterion by which a sweep's finalists are chosen: its own, or what takes its place.

    Args:
        trials: records of one sweep, for `ensv` with their pool figures.
        spec: the sweep.
    """
    return _used(list(trials), spec.selection)[0]


def _used(trials: Sequence[TrialRecord], criterion: str) -> tuple[str, str | None]:
    """Return the criterion that chooses, and why it is not the one that was asked for, if it is not."""
    refused = pool_fault(trials) if criterion == "ensv" else None
    return (criterion, None) if refused is None else (IN_PLACE_OF_ENSV, refused)


def _ranked(
    trials: Sequence[TrialRecord], spec: SweepSpec, criterion: str
) -> tuple[list[TrialRecord], tuple[tuple[int, str], ...]]:
    """Split the fully trained candidates into those that qualify, best first, and those that do not, with why."""
    metric, collapsed = CRITERIA[criterion], collapse_guard(trials, criterion)
    qualified: list[tuple[float, TrialRecord]] = []
    rejected: list[tuple[int, str]] = []
    for trial in sorted(trials, key=lambda trial: trial.number):
        if not is_candidate(trial):
            continue
        value = finite(visible_metrics(trial.metrics, criterion), metric)
        if value is None:
            why: str | None = f"it has no {metric}"
        else:
            why = spec.broken_constraint(trial.profile) or collapsed(trial)
        if why is None and value is not None:
            qualified.append((value, trial))
        else:
            rejected.append((trial.number, str(why)))
    qualified.sort(key=lambda item: (-item[0], _macs(item[1]), item[1].number))
    return [trial for _, trial in qualified], tuple(rejected)


def collapse_guard(trials: Iterable[TrialRecord], criterion: str) -> Callable[[TrialRecord], str | None]:
    """Return what tells why a trial looks collapsed, or None.

    One that did cannot hide from target labels, so the oracle needs no guard.

    Args:
        trials: records of one sweep.
        criterion: by which is chosen.
    """
    return (lambda trial: None) if criterion == "oracle" else Guard(trials).collapse


def _macs(trial: TrialRecord) -> float:
    """Return the multiply-accumulates of a trial's network; infinity if they are not known."""
    value = finite(trial.profile, "macs")
    return math.inf if value is None else value
