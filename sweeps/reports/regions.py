"""Where in the search space trials fail.

A failure that only the machines are to blame for says nothing about parameters and enters no region (`sweeps.failures`).
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from segda.tunable import Scalar
from sweeps.failures import POLICIES
from sweeps.file.space import Searched
from sweeps.labels import format_value
from sweeps.reports.columns import HOW_MANY
from sweeps.reports.formats import CODE, PERCENT, WHOLE, words
from sweeps.reports.table import Column, Table, table_of
from sweeps.trial import TrialKind, TrialRecord, TrialState

CONSTRAINT = "constraint"  # outcome of an architecture that breaks one; it was never trained
_BINS = 4
_WHOLE = 8  # whole numbers up to so many are looked at one by one


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


def region_table(rows: Iterable[RegionRow]) -> Table:
    """Return which values of which parameters failed more than others, as a table.

    Args:
        rows: of `region_rows`.
    """
    return table_of(
        rows,
        [
            (Column("path", "parameter", CODE), lambda row: row.path),
            (Column("value", "value"), lambda row: row.value),
            (HOW_MANY, lambda row: row.trials),
            (Column("failed", "failed", WHOLE), lambda row: sum(row.outcomes.values())),
            (Column("share", "share failed", PERCENT, "%"), lambda row: row.share),
            (Column("expected", "of all", PERCENT, "%"), lambda row: row.expected),
            (
                Column("outcomes", "how"),
                lambda row: ", ".join(f"{number} {words(name)}" for name, number in row.outcomes.items()),
            ),
        ],
        notes=[
            "Finished search trials: broken constraints, and failures that a configuration is to blame for. Ranges are cut into "
            "four equal parts. Parameters whose values differ most come first; with few trials a difference may be chance."
        ],
    )
