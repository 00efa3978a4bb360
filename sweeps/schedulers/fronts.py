"""Early stopping with several objectives: a trial at a rung is held against the others in everything that a front is made of.

Costs (macs, latency_ms, ...) belong to architectures: they are known before a trial trains and never move. What training decides
moves from report to report. Both kinds are kept so that larger is better, minimized ones with the other sign.
"""

import math
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sweeps.metrics import Direction, finite, sound, visible_metrics
from sweeps.schedulers.base import CONTINUE, Decision, Scheduler, SchedulerConfig
from sweeps.trial import TrialRecord, TrialState

Vector = tuple[float, ...]


@dataclass(frozen=True)
class Standing:
    """A trial at a rung. Larger is better everywhere.

    Attributes:
        costs: of its architecture, one for each cost objective.
        values: at the rung, one for each metric that training decides; empty before training.
        final: the same at the end, of a trial that trained in full.
    """

    costs: Vector
    values: Vector = ()
    final: Vector | None = None


class FrontConfig(SchedulerConfig):
    """Settings of every scheduler that compares trials in several objectives."""

    metrics: dict[str, Direction] = Field(
        default={"source/val/miou": "maximize"},
        min_length=1,
        description="metrics reported on the way that trials are compared by -> which values are better; unset: the objectives "
        "that training decides. Cost objectives are compared besides",
    )


class FrontScheduler(Scheduler):
    """Decides by a front: by several reported metrics, by one and the costs of architectures, or by both.

    Attributes:
        metrics: reported metrics that trials are compared by -> which values are better.
        promise: whom the rule never stops, for people.
    """

    promise: ClassVar[str]

    def __init__(self, config: FrontConfig, *, steps: int, report_every: int) -> None:
        """Place the rungs; arguments as in `Scheduler`."""
        super().__init__(config, steps=steps, report_every=report_every)
        self.metrics: Mapping[str, Direction] = config.metrics

    @abstractmethod
    def compare_fronts(self, step: int, own: Standing, others: Mapping[int, Standing]) -> Decision:
        """Decide on a trial at a rung.

        Args:
            step: the rung.
            own: how the trial stands there; nothing in it is NaN.
            others: trial -> how it stood there, of those that have come as far.
        """

    def is_exempt(self, number: int) -> bool:
        """Return whether a trial is never stopped, however it stands."""
        del number
        return False

    def before_training(self, costs: Vector, others: Mapping[int, Standing]) -> Decision:
        """Decide on a trial that was proposed and has not begun.

        Args:
            costs: of its architecture.
            others: trial -> its costs and, if it trained in full, how it ended.
        """
        del costs, others
        return CONTINUE


class FrontValues:
    """How trials stood at the rungs and at the end; follows from the ledger's points."""

    def __init__(self, scheduler: FrontScheduler, *, costs: Mapping[str, Direction], selection: str) -> None:
        """Begin with no values.

        Args:
            scheduler: says by which metrics and at which steps trials are compared.
            costs: objectives that are efficiency figures of the architecture -> which values are better.
            selection: the sweep's criterion; without `oracle` what is made from target labels is not seen.
        """
        self._scheduler = scheduler
        self._costs = costs
        self._selection = selection
        self._values: dict[int, dict[int, Vector]] = {}

    def values(self, metrics: Mapping[str, float]) -> Vector | None:
        """Return what a report says about its trial; None if it lacks one of the metrics."""
        seen = visible_metrics(metrics, self._selection)
        if not all(name in seen for name in self._scheduler.metrics):
            return None
        return _oriented([seen[name] for name in self._scheduler.metrics], self._scheduler.metrics)

    def costs(self, record: TrialRecord) -> Vector | None:
        """Return what an architecture costs; None if a figure is missing or was measured in company."""
        profile = sound(record.profile)
        found = [finite(profile, name) for name in self._costs]
        known = [value for value in found if value is not None]
        return _oriented(known, self._costs) if len(known) == len(found) else None

    def add(self, number: int, step: int, metrics: Mapping[str, float]) -> None:
        """Take note of a report; the first one of a trial at a rung, or at the end, counts."""
        values = self.values(metrics)
        if values is not None and (step == self._scheduler.steps or step in self._scheduler.rung_steps):
            self._values.setdefault(step, {}).setdefault(number, values)

    def standings(self, step: int, records: Collection[TrialRecord]) -> dict[int, Standing]:
        """Return trial -> how it stood at a rung; step 0: before training.

        Args:
            step: the rung.
            records: the trials that may have a say.
        """
        finals = self._values.get(self._scheduler.steps, {})
        there = self._values.get(step, {})
        found: dict[int, Standing] = {}
        for record in records:
            costs = self.costs(record)
            if costs is None or (step and record.number not in there):
                continue
            final = finals.get(record.number) if record.state is TrialState.COMPLETE else None
            found[record.number] = Standing(costs, there.get(record.number, ()), final)
        return found

    def decide(
        self, record: TrialRecord, step: int, metrics: Mapping[str, float], rivals: Collection[TrialRecord]
    ) -> Decision:
        """Decide on a trial that reported.

        Args:
            record: the trial.
            step: of the report.
            metrics: that it reported.
            rivals: the trials that may have a say about it.

        Returns:
            Whether to stop. NaN stops a trial at any step: it does not train back to a number.
        """
        values = self.values(metrics)
        if values is None:
            return CONTINUE
        if any(math.isnan(value) for value in values):
            return Decision(stop=True, reason=f"its value at step {step} is not a number")
        costs = self.costs(record)
        if step not in self._scheduler.rung_steps or costs is None or self._scheduler.is_exempt(record.number):
            return CONTINUE
        return self._scheduler.compare_fronts(step, Standing(costs, values), self.standings(step, rivals))

    def decide_before_training(self, record: TrialRecord, rivals: Collection[TrialRecord]) -> Decision:
        """Decide on a trial that was proposed; arguments as in `decide`."""
        costs = self.costs(record)
        if costs is None or self._scheduler.is_exempt(record.number):
            return CONTINUE
        return self._scheduler.before_training(costs, self.standings(0, rivals))


def front_of(points: Sequence[Vector]) -> list[int]:
    """Return for each point the number of its front by non-dominated sorting: 0 for those that no other dominates.

    Args:
        points: one vector each, larger is better; NaN counts as worst.

    Example:
        >>> front_of([(1.0, 3.0), (2.0, 2.0), (1.0, 2.0), (0.0, 0.0)])
        [0, 0, 1, 2]
    """
    table = np.asarray(points, dtype=np.float64).reshape(len(points), -1)
    table[np.isnan(table)] = -np.inf
    as_good: NDArray[np.bool_] = np.all(table[:, None] >= table[None], axis=2)
    dominates: NDArray[np.bool_] = as_good & ~as_good.T
    fronts = np.full(len(points), -1)
    left = np.ones(len(points), dtype=bool)
    front = 0
    while left.any():
        members = left & ~dominates[left].any(axis=0)
        fronts[members] = front
        left &= ~members
        front += 1
    return [int(number) for number in fronts]


def epsilon_net(points: Sequence[Vector]) -> list[int]:
    """Return the indices of points in the order in which they cover their set.

    The first is the best in the first coordinate; each further one is the farthest from those chosen, with every coordinate scaled
    to [0, 1] over the points, so that a latency in milliseconds does not outweigh a mean IoU. Ties go to the earlier point.

    Args:
        points: one vector each; larger is better.

    Example:
        >>> epsilon_net([(0.0, 1.0), (0.9, 0.2), (1.0, 0.0), (0.5, 0.5)])
        [2, 0, 3, 1]
    """
    table = np.asarray(points, dtype=np.float64).reshape(len(points), -1)
    # Infinite is what a collapsed network is believed to be worth; it lies at the end of the scale.
    finite_part = np.where(np.isfinite(table), table, np.nan)
    low = np.nan_to_num(np.nanmin(finite_part, axis=0)) if np.isfinite(finite_part).any() else np.zeros(table.shape[1])
    table = np.where(np.isfinite(table), table, low)
    width = table.max(axis=0) - table.min(axis=0)
    scaled = (table - table.min(axis=0)) / np.where(width > 0, width, 1.0)
    order = [int(np.argmax(scaled[:, 0]))]
    distance = np.linalg.norm(scaled - scaled[order[0]], axis=1)
    while len(order) < len(points):
        distance[order] = -1.0
        order.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[order[-1]], axis=1))
    return order


def _oriented(values: Sequence[float], directions: Mapping[str, Direction]) -> Vector:
    return tuple(
        value if direction == "maximize" else -value
        for value, direction in zip(values, directions.values(), strict=True)
    )
