"""What successive halving by one metric and by fronts have in common."""

from typing import Any

from pydantic import Field

from sweeps.schedulers.base import Scheduler, SchedulerConfig
from sweeps.schedulers.rung_steps import geometric_rungs


class HalvingConfig(SchedulerConfig):
    """Settings of every scheduler that lets a share of the trials go on at each rung."""

    reduction_factor: int = Field(default=3, ge=2, description="one in so many trials goes on at a rung")
    min_steps: int = Field(
        default=100, ge=1, description="the first rung: training steps before a trial may be stopped"
    )


class Halving(Scheduler):
    """Rungs at `min_steps * reduction_factor ** k` below the last step, at each of which one trial in `reduction_factor` goes on.

    Attributes:
        reduction_factor: one in so many trials goes on at a rung.
    """

    def __init__(self, config: Any, *, steps: int, report_every: int) -> None:
        """Place the rungs; arguments as in `Scheduler`."""
        super().__init__(config, steps=steps, report_every=report_every)
        self.reduction_factor: int = config.reduction_factor
        self.rung_steps = geometric_rungs(
            config.min_steps, factor=self.reduction_factor, steps=steps, report_every=report_every
        )
        self.assumption = (
            f"lower value: at each rung one trial in {self.reduction_factor} goes on; upper: all train in full"
        )

    def endings(self) -> dict[int, float]:
        """Return the shares if one in `reduction_factor` goes on at each rung."""
        shares: dict[int, float] = {}
        left = 1.0
        for rung in self.rung_steps:
            shares[rung] = left * (1 - 1 / self.reduction_factor)
            left /= self.reduction_factor
        return shares | {self.steps: left}
