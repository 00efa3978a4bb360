"""Asynchronous successive halving by fronts."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from sweeps.schedulers.base import CONTINUE, Decision, SchedulerConfig
from sweeps.schedulers.fronts import FrontConfig, FrontScheduler, Standing, epsilon_net, front_of
from sweeps.schedulers.rung_steps import geometric_rungs, halving_endings


class MoAshaConfig(FrontConfig):
    """Asynchronous successive halving by fronts."""

    name: str = "mo_asha"
    reduction_factor: int = Field(default=3, ge=2, description="one in so many trials goes on at a rung")
    min_steps: int = Field(
        default=100, ge=1, description="the first rung: training steps before a trial may be stopped"
    )


class MoAsha(FrontScheduler):
    """Asynchronous successive halving by fronts, the variant that stops.

    After Schmucker et al., "Multi-objective Asynchronous Successive Halving", arXiv:2106.12639, 2021. Trials of a rung are ordered
    by non-dominated sorting, costs included; within a front by an epsilon-net, which begins with the best in the first metric and
    goes on with the trial farthest from those chosen, every coordinate scaled to the front. A trial that arrives as the n-th goes
    on if it is among the first `n // reduction_factor` of that order, or if fewer than `reduction_factor` have come so far.

    Deviations: no member of its rung's first front is ever stopped, whatever its place; and as in `asha` a trial stops for good
    instead of pausing.
    """

    Config: ClassVar[type[SchedulerConfig]] = MoAshaConfig
    promise = "no member of its rung's first front stops"

    def __init__(self, config: MoAshaConfig, *, steps: int, report_every: int) -> None:
        """Place the rungs; arguments as in `Scheduler`."""
        super().__init__(config, steps=steps, report_every=report_every)
        self._reduction_factor = config.reduction_factor
        self.rung_steps = geometric_rungs(
            config.min_steps, factor=config.reduction_factor, steps=steps, report_every=report_every
        )
        self.assumption = (
            f"lower value: at each rung one trial in {config.reduction_factor} goes on; upper: all train in full"
        )

    def compare_fronts(self, step: int, own: Standing, others: Mapping[int, Standing]) -> Decision:
        """Stop a trial that is neither in the first front nor early enough in the order."""
        kept = (len(others) + 1) // self._reduction_factor
        if kept == 0:
            return CONTINUE
        # The trial itself comes last, so that of two equal ones the earlier trial leads.
        points = [(*other.values, *other.costs) for _, other in sorted(others.items())] + [(*own.values, *own.costs)]
        fronts = front_of(points)
        front = fronts[-1]
        if front == 0:
            return CONTINUE
        ahead = sum(other < front for other in fronts)
        if ahead < kept:
            members = [index for index, other in enumerate(fronts) if other == front]
            ahead += epsilon_net([points[index] for index in members]).index(len(members) - 1)
        if ahead < kept:
            return CONTINUE
        return Decision(
            stop=True,
            reason=f"it is in front {front + 1} of {len(points)} trials at step {step}, behind {ahead} others; {kept} may go on",
        )

    def endings(self) -> dict[int, float]:
        """Return the shares if one in `reduction_factor` goes on at each rung."""
        return halving_endings(self.rung_steps, factor=self._reduction_factor, steps=self.steps)
