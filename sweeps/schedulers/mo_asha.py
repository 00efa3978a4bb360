"""Asynchronous successive halving by fronts."""

from collections.abc import Mapping
from typing import ClassVar

from sweeps.schedulers.base import CONTINUE, Decision, SchedulerConfig
from sweeps.schedulers.fronts import FrontConfig, FrontScheduler, Standing, epsilon_net, front_of
from sweeps.schedulers.halving import Halving, HalvingConfig


class MoAshaConfig(HalvingConfig, FrontConfig):
    """Asynchronous successive halving by fronts."""

    name: str = "mo_asha"


class MoAsha(Halving, FrontScheduler):
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

    def compare_fronts(self, step: int, own: Standing, others: Mapping[int, Standing]) -> Decision:
        """Stop a trial that is neither in the first front nor early enough in the order."""
        kept = (len(others) + 1) // self.reduction_factor
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
