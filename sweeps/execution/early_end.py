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
        scheduler = spec.build_scheduler()
        self._metrics = _metrics(scheduler)
        self._rule: _OneMetric | _Fronts | None = None
        if isinstance(scheduler, MetricScheduler):
            self._rule = _OneMetric(scheduler, spec)
        if isinstance(scheduler, FrontScheduler):
            self._rule = _Fronts(scheduler, spec)
        if self._rule is not None:
            for point in ledger.points(spec.name, steps=(*scheduler.rung_steps, scheduler.steps)):
                self.add(trials[point.number], point.step, point.metrics)

    def add(self, record: TrialRecord, step: int, metrics: Mapping[str, float]) -> None:
        """Take note of a report."""
        if self._rule is not None and record.kind is TrialKind.SEARCH:
            self._rule.add(record.number, step, self._believed(metrics))

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
        if self._rule is None or record.kind is not TrialKind.SEARCH or step >= int(record.config["steps"]):
            return CONTINUE
        return self._rule.decide(
            record, step, self._believed(metrics), others=self._trials.records.values(), settled=settled
        )

    def before_training(self, record: TrialRecord, *, settled: Settled) -> Decision:
        """Say whether a proposed trial of the search is worth to begin.

        Args:
            record: the trial, which need not be among the sweep's yet.
            settled: the trials that may have a say about it; None: all.
        """
        if self._rule is None or record.kind is not TrialKind.SEARCH:
            return CONTINUE
        return self._rule.before_training(record, others=self._trials.records.values(), settled=settled)

    def _believed(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return a report as it counts: validators reward a collapsed network, for whose sake the others would be stopped."""
        scores = [name for name in self._metrics if is_validator(name) and name in metrics]
        if not scores or collapse_on_the_way(metrics) is None:
            return metrics
        worst = {name: -math.inf if self._metrics[name] == "maximize" else math.inf for name in scores}
        return {**metrics, **worst}


class _OneMetric:
    """The rule of a scheduler that compares by one metric, among rivals."""

    def __init__(self, scheduler: MetricScheduler, spec: SweepSpec) -> None:
        self._scheduler = scheduler
        self._costs = spec.costs
        self._rungs = RungValues(scheduler, selection=spec.selection)

    def add(self, number: int, step: int, metrics: Mapping[str, float]) -> None:
        self._rungs.add(number, step, metrics)

    def decide(
        self,
        record: TrialRecord,
        step: int,
        metrics: Mapping[str, float],
        *,
        others: Collection[TrialRecord],
        settled: Callable[[int], Settled],
    ) -> Decision:
        value = self._rungs.value(metrics)
        if value is None:
            return CONTINUE
        compared = None
        if step in self._scheduler.rung_steps:
            compared = rivals(record, others, costs=self._costs, settled=settled(record.number))
        return self._scheduler.decide(step, value, self._rungs.values, number=record.number, rivals=compared)

    def before_training(self, record: TrialRecord, *, others: Collection[TrialRecord], settled: Settled) -> Decision:
        del record, others, settled
        return CONTINUE


class _Fronts:
    """The rule of a scheduler that compares in several objectives, with everybody."""

    def __init__(self, scheduler: FrontScheduler, spec: SweepSpec) -> None:
        self._scheduler = scheduler
        self._values = FrontValues(scheduler, costs=spec.costs, selection=spec.selection)

    def add(self, number: int, step: int, metrics: Mapping[str, float]) -> None:
        self._values.add(number, step, metrics)

    def decide(
        self,
        record: TrialRecord,
        step: int,
        metrics: Mapping[str, float],
        *,
        others: Collection[TrialRecord],
        settled: Callable[[int], Settled],
    ) -> Decision:
        heard = settled(record.number) if step in self._scheduler.rung_steps else ()
        return self._values.decide(record, step, metrics, _searched(record, others, heard))

    def before_training(self, record: TrialRecord, *, others: Collection[TrialRecord], settled: Settled) -> Decision:
        return self._values.decide_before_training(record, _searched(record, others, settled))


def _searched(record: TrialRecord, others: Collection[TrialRecord], heard: Settled) -> list[TrialRecord]:
    """Return the other trials of the search that may have a say about one."""
    return [
        other
        for other in others
        if other.kind is TrialKind.SEARCH and other.number != record.number and (heard is None or other.number in heard)
    ]


def _metrics(scheduler: Scheduler) -> Mapping[str, Direction]:
    if isinstance(scheduler, FrontScheduler):
        return scheduler.metrics
    return {scheduler.metric: "maximize"} if isinstance(scheduler, MetricScheduler) else {}
