"""When to stop a trial early: a plain decision over the values that trials had at the same steps.

The values live in the ledger (`Ledger.rungs`), so a decision is the same before and after a restart.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sweeps.spec import SweepSpec

Rungs = Mapping[int, Mapping[int, float]]


@dataclass(frozen=True)
class Decision:
    """What becomes of a trial that reported.

    Attributes:
        stop: whether it ends here.
        reason: why, in one line with figures; empty when it goes on.
    """

    stop: bool
    reason: str = ""


CONTINUE = Decision(stop=False)


class NoScheduler:
    """Lets every trial train in full."""

    rung_steps: tuple[int, ...] = ()

    def decide(self, step: int, value: float, rungs: Rungs) -> Decision:
        """Let the trial go on."""
        del step, value, rungs
        return CONTINUE


class Asha:
    """Asynchronous successive halving, the variant that stops.

    After Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, with one bracket.
    Rungs lie at `min_steps * reduction_factor ** k` below `max_steps`; the last step is no rung, since nothing is left to save.
    A trial that reaches a rung as the n-th goes on if fewer than `n // reduction_factor` of the n values there are strictly
    better than its own: it is among the best 1/reduction_factor, ties included. While n is smaller than reduction_factor that
    share is less than one trial and everything goes on.

    Deviation from the paper: there a trial pauses and is promoted later if the rung fills up with worse ones; here it stops for
    good, as in Ray Tune, so that no checkpoint of a paused trial must be kept and each trial is started once.

    Attributes:
        rung_steps: the rungs, ascending.
    """

    def __init__(
        self,
        reduction_factor: int,
        min_steps: int,
        max_steps: int,
        direction: Literal["maximize", "minimize"] = "maximize",
    ) -> None:
        """Place the rungs.

        Args:
            reduction_factor: one in so many trials goes on, at least 2.
            min_steps: first rung, in training steps.
            max_steps: steps of a full training.
            direction: which values are better.

        Raises:
            ValueError: a number is out of range or the direction is unknown.
        """
        if reduction_factor < 2:
            raise ValueError(f"reduction_factor must be at least 2, got {reduction_factor}")
        if min_steps < 1:
            raise ValueError(f"min_steps must be at least 1, got {min_steps}")
        if direction not in ("maximize", "minimize"):
            raise ValueError(f"direction must be maximize or minimize, got {direction!r}")
        self._reduction_factor = reduction_factor
        self._sign = 1.0 if direction == "maximize" else -1.0
        self.rung_steps = rung_steps(reduction_factor, min_steps, max_steps)

    def decide(self, step: int, value: float, rungs: Rungs) -> Decision:
        """Decide on a trial that reported.

        Args:
            step: training step of the report.
            value: the metric that trials are compared by.
            rungs: rung -> trial number -> value; the trial's own value at this step is among them. NaN counts as worst.

        Returns:
            Whether to stop. Between rungs only NaN stops a trial: it does not train back to a number.
        """
        if math.isnan(value):
            return Decision(stop=True, reason=f"its value at step {step} is not a number")
        if step not in self.rung_steps:
            return CONTINUE
        values = rungs.get(step, {}).values()
        kept = len(values) // self._reduction_factor
        if kept == 0:
            return CONTINUE
        better = sum(self._sign * other > self._sign * value for other in values)
        if better < kept:
            return CONTINUE
        return Decision(
            stop=True,
            reason=f"{better} of {len(values)} trials were better than {value:.4g} at step {step}; {kept} may go on",
        )


def rung_steps(reduction_factor: int, min_steps: int, max_steps: int) -> tuple[int, ...]:
    """Return the steps at which trials are compared.

    Args:
        reduction_factor: ratio of neighboring rungs, at least 2.
        min_steps: first rung.
        max_steps: steps of a full training; no rung.

    Example:
        >>> rung_steps(3, 100, 1000)
        (100, 300, 900)
    """
    steps = []
    step = min_steps
    while step < max_steps:
        steps.append(step)
        step *= reduction_factor
    return tuple(steps)


def build_scheduler(spec: SweepSpec) -> Asha | NoScheduler:
    """Return the scheduler that a sweep file asks for.

    Every metric that a sweep may prune on is better when larger.
    """
    if spec.scheduler.name == "none":
        return NoScheduler()
    return Asha(spec.scheduler.reduction_factor, spec.scheduler.min_steps, int(spec.base["steps"]), "maximize")
