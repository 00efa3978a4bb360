"""Whether a trial goes on after a report, as the sweep's scheduler says of the reports of all."""

import math
from collections.abc import Callable, Collection, Mapping

from sweeps.execution.trials import Trials
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.metrics import Direction, is_validator
from sweeps.schedulers.base import CONTINUE, Decision, MetricScheduler, Scheduler
from sweeps.schedulers.fronts import FrontScheduler, FrontValues
from sweeps.schedulers.rivals import rivals
from sweeps.schedulers.rungs import RungValues
from sweeps.selection.guards import collapse_on_the_way
from sweeps.trial import TrialKind, TrialRecord

Settled = Collection[int] | None


class EarlyEnd:
    """What trials of the search reported at the scheduler's rungs, and what it says of a new report; others are never ended."""

    def __init__(self, spec: SweepSpec, *, trials: Trials, ledger: Ledger) -> None:
        """Take what was reported so far from the ledger.

        Args:
            spec: the sweep.
            trials: its trials; their owner keeps them up to date.
            ledger: where its reports are.
        """
        self._trials = trials
        self._costs = spec.costs
        self._scheduler = spec.build_scheduler()
        self._metrics = _metrics(self._scheduler)
        self._values: RungValues | FrontValues | None = None
        steps = tuple(self._scheduler.rung_steps)
        if isinstance(self._scheduler, MetricScheduler):
            self._values = RungValues(self._scheduler, selection=spec.selection)
        if isinstance(self._scheduler, FrontScheduler):
            self._values = FrontValues(self._scheduler, costs=spec.costs, selection=spec.selection)
            steps = (*steps, self._scheduler.steps)
        for point in ledger.points(spec.name, steps=steps) if steps else ():
            self.add(trials[point.number], point.step, point.metrics)

    def add(self, record: TrialRecord, step: int, metrics: Mapping[str, float]) -> None:
        """Take note of a report."""
        if self._values is not None and record.kind is TrialKind.SEARCH:
            self._values.add(record.number, step, self._believed(metrics))

    def decide(
        self,
        record: TrialRecord,
        step: int,
        metrics: Mapping[str, float],
        *,
        settled: Callable[[int], Settled],
    ) -> Decision:
        """Say whether a trial goes on after a report, which is not taken note of yet.

        Args:
            record: the trial.
            step: of the report.
            metrics: that it reported.
            settled: returns the trials that may have a say about one; None: all.
        """
        if record.kind is not TrialKind.SEARCH or step >= int(record.config["steps"]):
            return CONTINUE
        believed, is_rung = self._believed(metrics), step in self._scheduler.rung_steps
        if isinstance(self._values, FrontValues):
            others = self._searched(record, settled(record.number)) if is_rung else []
            return self._values.decide(record, step, believed, others)
        if not isinstance(self._scheduler, MetricScheduler) or self._values is None:
            return CONTINUE
        value = self._values.value(believed)
        if value is None:
            return CONTINUE
        compared = None
        if is_rung:
            compared = rivals(record, self._trials.records.values(), costs=self._costs, settled=settled(record.number))
        return self._scheduler.decide(step, value, self._values.values, number=record.number, rivals=compared)

    def before_training(self, record: TrialRecord, *, settled: Settled) -> Decision:
        """Say whether a proposed trial of the search is worth to begin.

        Args:
            record: the trial, which need not be among the sweep's yet.
            settled: the trials that may have a say about it; None: all.
        """
        if record.kind is not TrialKind.SEARCH or not isinstance(self._values, FrontValues):
            return CONTINUE
        return self._values.decide_before_training(record, self._searched(record, settled))

    def _searched(self, record: TrialRecord, settled: Settled) -> list[TrialRecord]:
        """Return the other trials of the search that may have a say about one."""
        return [
            other
            for other in self._trials.records.values()
            if other.kind is TrialKind.SEARCH
            and other.number != record.number
            and (settled is None or other.number in settled)
        ]

    def _believed(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return a report as it counts: validators reward a collapsed network, for whose sake the others would be stopped."""
        scores = [name for name in self._metrics if is_validator(name) and name in metrics]
        if not scores or collapse_on_the_way(metrics) is None:
            return metrics
        worst = {name: -math.inf if self._metrics[name] == "maximize" else math.inf for name in scores}
        return {**metrics, **worst}


def _metrics(scheduler: Scheduler) -> Mapping[str, Direction]:
    if isinstance(scheduler, FrontScheduler):
        return scheduler.metrics
    return {scheduler.metric: "maximize"} if isinstance(scheduler, MetricScheduler) else {}
