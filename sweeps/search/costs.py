"""How long a trial is going to take, and how much that counts when the next one is chosen.

Seconds are predicted as a product of factors, one for each setting that decides how long a step takes: of a choice its own, of a
whole number a power of it. Numbers with fractions (learning rates, weights of losses) change what is learned and not how long it
takes, so they have none. There are few trials to learn from, and a model of few factors errs by less than a flexible one.

What is expected of the networks comes first; what a plan measured corrects it, and what trials took corrects that, each the more
the further it was trained.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from segda.tunable import Scalar
from sweeps.file.space import Categorical, Float, Parameter, SearchSpace
from sweeps.trial import TrialKind, TrialRecord, TrialState

# On squared logarithms of factors, in units of fully trained trials: what is expected is taken as it is, a single time is not.
_PENALTY_EXPECTED, _PENALTY_MEASURED = 0.01, 0.5
_BATCH = "batch_size"


class Observed(NamedTuple):
    """What a trial takes, or is expected to.

    Attributes:
        params: searched dotted path -> value.
        amount: seconds of a full training, or what is proportional to them.
        weight: how much it counts; 1 for a full training.
    """

    params: Mapping[str, Scalar]
    amount: float
    weight: float = 1.0


class CostModel:
    """Predicts the seconds of a full training."""

    def __init__(
        self,
        space: SearchSpace,
        *,
        expected: Iterable[Observed] = (),
        planned: Iterable[Observed] = (),
        trained: Iterable[Observed] = (),
    ) -> None:
        """Fit the factors.

        Args:
            space: the search space.
            expected: before anything was measured; of any unit.
            planned: what a plan measured.
            trained: what trials took.
        """
        self._parameters = {item.path: item for item in space.parameters if not isinstance(item.distribution, Float)}
        self._columns = {
            key: index
            for index, key in enumerate(key for item in self._parameters.values() for key in _columns_of(item))
        }
        self._effects = np.zeros(len(self._columns))
        self._level = 0.0
        self._correct(list(expected), penalty=_PENALTY_EXPECTED)
        for measured in (planned, trained):  # each with a level of its own: beside others everything takes longer
            self._correct(list(measured), penalty=_PENALTY_MEASURED)

    def effect(self, path: str, value: Scalar) -> float:
        """Return the logarithm of a setting's factor; 0 of one that does not decide how long a step takes.

        Args:
            path: searched.
            value: a possible one.
        """
        if path not in self._parameters:
            return 0.0
        usual = math.log(float(value)) if path == _BATCH and isinstance(value, int | float) else 0.0
        return usual + math.fsum(
            amount * float(self._effects[self._columns[key]])
            for key, amount in _row_of(self._parameters[path], value).items()
        )

    def seconds(self, params: Mapping[str, Scalar]) -> float:
        """Return how long a trial is predicted to take if it is trained in full, in seconds as soon as one was trained."""
        # Whatever the order in which a database gave the parameters back, the sum is the same.
        return math.exp(math.fsum([self._level, *(self.effect(path, value) for path, value in params.items())]))

    def _correct(self, observed: Sequence[Observed], *, penalty: float) -> None:
        """Add to the factors what explains by how much the prediction was wrong: ridge regression of its logarithm."""
        if not observed:
            return
        rows = np.zeros((len(observed), len(self._columns)))
        for row, item in zip(rows, observed, strict=True):
            for path, value in item.params.items():
                if path in self._parameters:
                    for key, amount in _row_of(self._parameters[path], value).items():
                        row[self._columns[key]] = amount
        wrong = np.array([math.log(item.amount / self.seconds(item.params)) for item in observed])
        weights = np.array([item.weight for item in observed])
        # The level is free: expectations may be of another unit.
        means, level = np.average(rows, axis=0, weights=weights), float(np.average(wrong, weights=weights))
        centered = rows - means
        normal = centered.T @ (weights[:, None] * centered) + penalty * np.eye(len(self._columns))
        change = np.linalg.solve(normal, centered.T @ (weights * (wrong - level)))
        self._effects += change
        self._level += level - float(means @ change)


class Weighing(NamedTuple):
    """How much time counts in a choice: EI-cool (Lee et al., 2020), after "Cost-aware Bayesian optimization".

    Attributes:
        costs: predicts the time.
        exponent: 1: what a proposal promises is divided by its time; 0: time does not count.
    """

    costs: CostModel
    exponent: float


def exponent_of(used: float) -> float:
    """Return the exponent on a trial's time when a share of the budget is used: 1 at the beginning, 0 at the end.

    Example:
        >>> exponent_of(0.25), exponent_of(1.2)
        (0.75, 0.0)
    """
    return min(1.0, max(0.0, 1.0 - used))


def trained_costs(records: Iterable[TrialRecord]) -> list[Observed]:
    """Return what trials of a sweep's search took that ended, from its records.

    A trial that stopped early counts by the share of its steps: how long its beginning took weighs more there. One that was made
    again is left out, since it is not known how much of its time was lost.

    Args:
        records: trials of any kind and state.
    """
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    return [
        Observed(record.params, record.seconds / record.step * steps, record.step / steps)
        for record in sorted(records, key=lambda record: record.number)
        if record.kind is TrialKind.SEARCH
        and record.state in ended
        and record.reused is None
        and record.attempt == 1
        and record.step
        and (steps := int(record.config["steps"]))
    ]


def _columns_of(item: Parameter) -> list[tuple[str, str]]:
    if isinstance(item.distribution, Categorical):
        return [(item.path, repr(choice)) for choice in item.distribution.choices]
    return [(item.path, "")]


def _row_of(item: Parameter, value: Scalar) -> dict[tuple[str, str], float]:
    """Return column -> amount of one setting."""
    if isinstance(item.distribution, Categorical):
        chosen = next(choice for choice in item.distribution.choices if choice == value)
        return {(item.path, repr(chosen)): 1.0}
    assert isinstance(value, int | float)
    # A range that reaches 0 has no logarithm there.
    return {(item.path, ""): math.log1p(value) if value >= 0 else 0.0}
