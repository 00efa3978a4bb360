"""The values that trials had at the steps at which they are compared; they follow from the ledger's points."""

from collections.abc import Mapping

from sweeps.metrics import visible_metrics
from sweeps.schedulers.base import MetricScheduler, Rungs


class RungValues:
    """What a scheduler compares trials by, as far as they have come."""

    def __init__(self, scheduler: MetricScheduler, *, selection: str) -> None:
        """Begin with no values.

        Args:
            scheduler: says by which metric and at which steps trials are compared.
            selection: the sweep's criterion; without `oracle` what is made from target labels is not seen.
        """
        self._scheduler = scheduler
        self._selection = selection
        self._values: dict[int, dict[int, float]] = {}

    @property
    def values(self) -> Rungs:
        """Rung -> trial number -> value."""
        return self._values

    def value(self, metrics: Mapping[str, float]) -> float | None:
        """Return what a report says about its trial; None if it lacks the metric."""
        return visible_metrics(metrics, self._selection).get(self._scheduler.metric)

    def add(self, number: int, step: int, metrics: Mapping[str, float]) -> None:
        """Take note of a report; the first one of a trial at a rung counts, and reports between rungs do not.

        Args:
            number: the trial, one of the search.
            step: training step of the report.
            metrics: what it reported.
        """
        value = self.value(metrics)
        if value is not None and step in self._scheduler.rung_steps:
            self._values.setdefault(step, {}).setdefault(number, value)
