"""The median stopping rule."""

import math
from statistics import fmean, median
from typing import ClassVar

from pydantic import Field

from segda.config_problems import LocatedError
from sweeps.schedulers.base import CONTINUE, Comparison, Decision, MetricScheduler, SchedulerConfig, StoppingConfig


class MedianConfig(StoppingConfig):
    """Stops what is worse than the median of the others."""

    name: str = "median"
    min_steps: int = Field(
        default=100,
        ge=1,
        description="training steps before a trial may be stopped; rounded up to the next report",
    )
    min_trials: int = Field(
        default=4, ge=1, description="other trials that must have come as far before one is stopped"
    )


class Median(MetricScheduler):
    """Stops what is worse than the median of the others.

    After the median stopping rule of Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017: a trial stops
    at a step if the best value that it had so far is strictly worse than the median of the others' running averages up to
    that step. At least `min_trials` others must have come as far. NaN counts as worst.

    Deviations: the running averages begin at `min_steps`, because values before it would drag every average down and spare
    everybody; and the others need not have finished, so that trials which run side by side can stop each other.
    """

    Config: ClassVar[type[SchedulerConfig]] = MedianConfig

    def __init__(self, config: MedianConfig, *, steps: int, report_every: int) -> None:
        """Compare at every report from `min_steps` on; arguments as in `Scheduler`."""
        super().__init__(config, steps=steps, report_every=report_every)
        first = -(-config.min_steps // report_every) * report_every
        if first >= steps:
            rounded = "" if first == config.min_steps else f", which is {first} at the next report"
            raise LocatedError(
                ("min_steps",),
                f"must be smaller than base.steps {steps}, got {config.min_steps}{rounded}; otherwise nothing is stopped",
            )
        self._min_trials = config.min_trials
        self.rung_steps = range(first, steps, report_every)
        self.assumption = "lower value: half of the trials stop at the first comparison; upper: all train in full"

    def compare(self, comparison: Comparison) -> Decision:
        """Stop a trial whose best value so far is worse than the median of the others' averages."""
        others = comparison.others
        if len(others) < self._min_trials:
            return CONTINUE
        averages = [fmean(_score(value) for value in others[other]) for other in sorted(others)]
        best, middle = max(_score(value) for value in comparison.own), median(averages)
        if not best < middle:
            return CONTINUE
        return Decision(
            stop=True,
            reason=f"its best value {best:.4g} up to step {comparison.step} is worse than {middle:.4g}, the median of the averages "
            f"of {comparison.who}",
        )

    def endings(self) -> dict[int, float]:
        """Return the shares if half of the trials stop at the first comparison."""
        return {self.rung_steps[0]: 0.5, self.steps: 0.5}


def _score(value: float) -> float:
    return -math.inf if math.isnan(value) else value
