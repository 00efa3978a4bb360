"""What failed, and where in the search space: tables over trial records and events.

A failure that only the machines are to blame for says nothing about parameters and enters no region (`sweeps.failures`).
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from segda.batch_norm import MIN_IMAGES_AT_ONCE
from segda.tunable import Scalar
from sweeps.execution.retries import retries
from sweeps.failures import POLICIES, FailureClass
from sweeps.file.space import Searched
from sweeps.file.spec import SweepSpec
from sweeps.labels import format_value, model_label
from sweeps.ledger.records import Event
from sweeps.paths import value_at
from sweeps.reports.marks import target_labels
from sweeps.trial import TrialKind, TrialRecord, TrialState

CONSTRAINT = "constraint"  # outcome of an architecture that breaks one; it was never trained
_BINS = 4
_WHOLE = 8  # whole numbers up to so many are looked at one by one


@dataclass(frozen=True)
class ObstacleRow:
    """An architecture that was never trained, and why.

    Attributes:
        model: label, e.g. `bisenet_v1 (resnet101)`.
        height, width: input size in pixels.
        obstacle: the broken constraints with the measured figures.
        trials: numbers of the proposals that had it.
    """

    model: str
    height: int | None
    width: int | None
    obstacle: str
    trials: tuple[int, ...]


@dataclass(frozen=True)
class RegionRow:
    """What became of the search trials with one value, or a range of values, of a parameter.

    Attributes:
        path: the parameter.
        value: the value or range, for people.
        trials: finished trials that have it.
        outcomes: `constraint` or class of failure -> how many of them failed so; without those that did not fail.
        share: share of them that failed.
        expected: share of all finished trials that have the parameter and failed.
    """

    path: str
    value: str
    trials: int
    outcomes: Mapping[str, int]
    share: float
    expected: float


@dataclass(frozen=True)
class FailureRow:
    """How often a class of failure came up, and what was done.

    Attributes:
        failure: the class.
        attempts: attempts that ended so.
        trials: how many trials these are of.
        retried: attempts that were followed by another one.
        given_up: trials that were given up because of it.
        policy: what is done about it, for people.
    """

    failure: FailureClass
    attempts: int
    trials: int
    retried: int
    given_up: int
    policy: str


def obstacle_rows(trials: Iterable[TrialRecord], spec: SweepSpec) -> list[ObstacleRow]:
    """Return the architectures that no trial was trained with, with the constraint that each breaks.

    Args:
        trials: records of one sweep.
        spec: the sweep.
    """
    groups: dict[tuple[str, int | None, int | None, str], list[int]] = {}
    for trial in trials:
        if trial.state is TrialState.INFEASIBLE:
            size = value_at(trial.config, "data.height"), value_at(trial.config, "data.width")
            why = trial.error or spec.broken_constraint(trial.profile) or "unknown"
            groups.setdefault((model_label(trial), *size, why), []).append(trial.number)
    rows = [ObstacleRow(*key, tuple(sorted(numbers))) for key, numbers in groups.items()]
    return sorted(rows, key=lambda row: (-len(row.trials), row.model))


def outcome(trial: TrialRecord) -> str | None:
    """Return how a finished trial failed by its configuration: `constraint`, a class of failure, or None if it did not."""
    if trial.state is TrialState.INFEASIBLE:
        return CONSTRAINT
    if trial.state is TrialState.FAILED and trial.failure is not None and POLICIES[trial.failure].blames_configuration:
        return trial.failure.value
    return None


def region_rows(trials: Sequence[TrialRecord], search: Mapping[str, Searched]) -> list[RegionRow]:
    """Return which values of which parameters failed more than others.

    Ranges are cut into four parts of equal width, on a logarithmic scale where they were searched so. Parameters whose
    values differ most in their share of failures come first.

    Args:
        trials: records of one sweep.
        search: searched path -> how it varies.

    Returns:
        Rows parameter by parameter, values in their order; empty if nothing failed.
    """
    finished = [
        trial
        for trial in trials
        if trial.kind is TrialKind.SEARCH
        and trial.state.is_finished
        and (trial.state is not TrialState.FAILED or outcome(trial) is not None)
    ]
    if not any(outcome(trial) for trial in finished):
        return []
    tables = []
    for path, searched in search.items():
        members = [trial for trial in finished if path in trial.params]
        groups: dict[str, list[TrialRecord]] = {label: [] for label in _order(searched)}
        label_of = _labels(searched)
        for trial in members:
            groups.setdefault(label_of(trial.params[path]), []).append(trial)
        rows = [_region_row(path, label, group, members) for label, group in groups.items() if group]
        spread = sum(row.trials * (row.share - row.expected) ** 2 for row in rows)
        tables.append((spread, rows))
    return [row for _, rows in sorted(tables, key=lambda item: -item[0]) for row in rows]


def _region_row(path: str, label: str, group: Sequence[TrialRecord], members: Sequence[TrialRecord]) -> RegionRow:
    outcomes = Counter(name for trial in group if (name := outcome(trial)) is not None)
    expected = sum(outcome(trial) is not None for trial in members) / len(members)
    return RegionRow(path, label, len(group), dict(outcomes), outcomes.total() / len(group), expected)


def _edges(searched: Searched) -> list[float]:
    """Return the borders of the parts of a range."""
    assert searched.low is not None
    assert searched.high is not None
    ends = (math.log(searched.low), math.log(searched.high)) if searched.log else (searched.low, searched.high)
    points = [ends[0] + (ends[1] - ends[0]) * part / _BINS for part in range(_BINS + 1)]
    inner = [math.exp(point) if searched.log else point for point in points[1:-1]]
    return [searched.low, *inner, searched.high]


def _values(searched: Searched) -> Sequence[Scalar] | None:
    """Return the values that are looked at one by one; None for a range."""
    if searched.choices is not None:
        return searched.choices
    if searched.integer and searched.low is not None and searched.high is not None:
        whole = range(int(searched.low), int(searched.high) + 1)
        return whole if len(whole) <= _WHOLE else None
    return None


def _order(searched: Searched) -> list[str]:
    values = _values(searched)
    if values is not None:
        return [format_value(value) for value in values]
    edges = _edges(searched)
    return [f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(edges)]


def _labels(searched: Searched) -> Callable[[Scalar], str]:
    """Return what gives a value the label of its group."""
    if _values(searched) is not None:
        return format_value
    names, inner = _order(searched), _edges(searched)[1:-1]

    def label_of(value: Scalar) -> str:
        assert isinstance(value, int | float)
        return names[sum(value >= edge for edge in inner)]

    return label_of


def failure_rows(trials: Iterable[TrialRecord], events: Iterable[Event]) -> list[FailureRow]:
    """Return each class of failure that came up, the most frequent first.

    Args:
        trials: records of one sweep.
        events: what happened to it.
    """
    retried: dict[FailureClass, list[int]] = {}
    for number, failure, _ in retries(events):
        retried.setdefault(failure, []).append(number)
    given_up: dict[FailureClass, list[int]] = {}
    for trial in trials:
        if trial.state is TrialState.FAILED and trial.failure is not None:
            given_up.setdefault(trial.failure, []).append(trial.number)
    rows = []
    for failure in FailureClass:
        again, last = retried.get(failure, []), given_up.get(failure, [])
        if again or last:
            rows.append(
                FailureRow(
                    failure, len(again) + len(last), len({*again, *last}), len(again), len(last), policy_text(failure)
                )
            )
    return sorted(rows, key=lambda row: -row.attempts)


def policy_text(failure: FailureClass) -> str:
    """Return what is done about a class of failure, for people.

    Example:
        >>> policy_text(FailureClass.DIVERGED)
        'not tried again; the sampler learns to avoid it'
    """
    policy = POLICIES[failure]
    if failure is FailureClass.OUT_OF_MEMORY:
        again = f"tried again with fewer images at once, at least {MIN_IMAGES_AT_ONCE}"
    elif policy.retries is None:
        again = "tried again without limit"
    elif policy.retries:
        times = "once" if policy.retries == 1 else f"{policy.retries} times"
        again = f"tried again up to {times} in a row" + (
            "" if policy.blames_configuration else ", in an outage for longer"
        )
    else:
        again = "not tried again"
    told = (
        "the sampler learns to avoid it"
        if policy.blames_configuration
        else "says nothing about the parameters, spends no budget, and is tried again when the sweep is resumed"
    )
    return f"{again}; {told}"


def history(trial: TrialRecord) -> str:
    """Return what was out of the ordinary in how a trial came by its result, for people; empty if nothing was."""
    notes = []
    if trial.reused is not None:
        notes.append(f"result of {trial.reused}")
    if trial.attempt > 1:
        notes.append(f"{trial.attempt} attempts")
    if trial.micro_batch is not None:
        notes.append(f"micro-batches of {trial.micro_batch}")
    labels = target_labels(trial)
    if labels:
        notes.append(f"labels of {labels}")
    return ", ".join(notes)
