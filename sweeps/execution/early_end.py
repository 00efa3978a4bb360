"""Whether a trial goes on after a report, as the sweep's scheduler says of the reports of all."""

import math
from collections.abc import Callable, Collection, Mapping

from sweeps.execution.trials import Trials
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.metrics import is_validator
from sweeps.schedulers.base import CONTINUE, Decision
from sweeps.schedulers.rivals import rivals
from sweeps.schedulers.rungs import RungValues
from sweeps.selection.guards import collapse_on_the_way
from sweeps.trial import TrialKind, TrialRecord


class EarlyEnd:
    """What trials of the search reported at the scheduler's rungs, and what it says of a new report; others are never ended."""

    def __init__(self, spec: SweepSpec, *, trials: Trials, ledger: Ledger) -> None:
        """Take what was reported so far from the ledger.

        Args:
            spec: the sweep.
            trials: its trials; their owner keeps them up to date.
            ledger: where its reports are.
        """
        self._spec = spec
        self._trials = trials
        self._scheduler = spec.build_scheduler()
        self._rungs = RungValues(self._scheduler, selection=spec.selection)
        rungs = self._scheduler.rung_steps
        for point in ledger.points(spec.name, steps=rungs) if rungs else ():
            self.add(trials[point.number], point.step, point.metrics)

    def add(self, record: TrialRecord, step: int, metrics: Mapping[str, float]) -> None:
        """Take note of a report."""
        if record.kind is TrialKind.SEARCH:
            self._rungs.add(record.number, step, self._believed(metrics))

    def decide(
        self,
        record: TrialRecord,
        step: int,
        metrics: Mapping[str, float],
        *,
        settled: Callable[[int], Collection[int] | None],
    ) -> Decision:
        """Say whether a trial goes on after a report, which is not taken note of yet.

        Args:
            record: the trial.
            step: of the report.
            metrics: that it reported.
            settled: returns the trials that may have a say about one; None: all.
        """
        value = self._rungs.value(self._believed(metrics))
        if record.kind is not TrialKind.SEARCH or value is None or step >= int(record.config["steps"]):
            return CONTINUE
        compared = None
        if step in self._scheduler.rung_steps:
            compared = rivals(
                record, self._trials.records.values(), costs=self._spec.costs, settled=settled(record.number)
            )
        return self._scheduler.decide(step, value, self._rungs.values, number=record.number, rivals=compared)

    def _believed(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return a report as it counts: validators reward a collapsed network, for whose sake the others would be stopped."""
        metric = self._scheduler.metric
        if metric is None or not is_validator(metric) or metric not in metrics or collapse_on_the_way(metrics) is None:
            return metrics
        return {**metrics, metric: -math.inf}
