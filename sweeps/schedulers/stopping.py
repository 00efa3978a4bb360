"""When to stop a trial early: a plain decision over the values that trials had at the same steps.

The values live in the ledger (`Ledger.rungs`), so a decision is the same before and after a restart. Who is compared with whom is
decided in `sweeps.schedulers.rivals`; a scheduler only sees the numbers.
"""

import math
from collections.abc import Collection, Sequence
from statistics import fmean, median
from typing import Literal

from segda.config import TrainConfig
from sweeps.schedulers.decision import CONTINUE, Decision, Rungs, compared_with, not_a_number
from sweeps.spec import SweepSpec

__all__ = ["CONTINUE", "Asha", "Decision", "Median", "NoScheduler", "Scheduler", "build_scheduler", "rung_steps"]

Direction = Literal["maximize", "minimize"]


class NoScheduler:
    """Lets every trial train in full."""

    rung_steps: Sequence[int] = ()

    def decide(
        self,
        step: int,
        value: float,
        rungs: Rungs,
        *,
        number: int,
        rivals: Collection[int] | None = None,
    ) -> Decision:
        """Let the trial go on."""
        del step, value, rungs, number, rivals
        return CONTINUE


class Asha:
    """Asynchronous successive halving, the variant that stops.

    After Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, with one bracket.
    Rungs lie at `min_steps * reduction_factor ** k` below `max_steps`; the last step is no rung, since nothing is left to save.
    A trial that reaches a rung as the n-th of those that it is compared with goes on if fewer than `n // reduction_factor` of them
    are strictly better: it is among the best 1/reduction_factor, ties included. While n is smaller than reduction_factor that
    share is less than one trial and everything goes on.

    Deviation from the paper: there a trial pauses and is promoted later if the rung fills up with worse ones; here it stops for
    good, as in Ray Tune, so that no checkpoint of a paused trial must be kept and each trial is started once.

    Attributes:
        rung_steps: the rungs, ascending.
    """

    def __init__(
        self, reduction_factor: int, min_steps: int, max_steps: int, direction: Direction = "maximize"
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
        self._reduction_factor = reduction_factor
        self._sign = _sign(direction)
        self.rung_steps: Sequence[int] = rung_steps(reduction_factor, min_steps, max_steps)

    def decide(
        self,
        step: int,
        value: float,
        rungs: Rungs,
        *,
        number: int,
        rivals: Collection[int] | None = None,
    ) -> Decision:
        """Decide on a trial that reported.

        Args:
            step: training step of the report.
            value: the metric that trials are compared by. NaN counts as worst.
            rungs: rung -> trial number -> value.
            number: the trial's own; what the rungs hold of it is not compared with itself.
            rivals: the trials to compare with (`sweeps.schedulers.rivals.rivals`); None: all.

        Returns:
            Whether to stop. Between rungs only NaN stops a trial: it does not train back to a number.
        """
        if math.isnan(value):
            return not_a_number(step)
        if step not in self.rung_steps:
            return CONTINUE
        others = compared_with(rungs, step, number, rivals)
        kept = (len(others) + 1) // self._reduction_factor
        better = sum(self._sign * other > self._sign * value for other in others.values())
        if kept == 0 or better < kept:
            return CONTINUE
        return Decision(
            stop=True,
            reason=f"{better} of {_counted(others, rivals)} were better than {value:.4g} at step {step}; "
            f"{kept} of {len(others) + 1} may go on",
        )


class Median:
    """Stops what is worse than the median of the others.

    After the median stopping rule of Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017: a trial stops
    at a step if the best value that it had so far is strictly worse than the median of the others' running averages up to
    that step. At least `min_trials` others must have come as far.

    Deviations: the running averages begin at `min_steps`, because values before it would drag every average down and spare
    everybody; and the others need not have finished, so that trials which run side by side can stop each other.

    Attributes:
        rung_steps: every report from `min_steps` on, without the last step.
    """

    def __init__(
        self,
        min_trials: int,
        min_steps: int,
        max_steps: int,
        *,
        report_every: int,
        direction: Direction = "maximize",
    ) -> None:
        """Place the comparisons.

        Args:
            min_trials: others that must have come as far before a trial is stopped, at least 1.
            min_steps: training steps before the first comparison; rounded up to the next report.
            max_steps: steps of a full training.
            report_every: training steps between reports.
            direction: which values are better.

        Raises:
            ValueError: a number is out of range or the direction is unknown.
        """
        for name, count in (("min_trials", min_trials), ("min_steps", min_steps), ("report_every", report_every)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        self._min_trials = min_trials
        self._sign = _sign(direction)
        first = -(-min_steps // report_every) * report_every
        self.rung_steps: Sequence[int] = range(first, max_steps, report_every)

    def decide(
        self,
        step: int,
        value: float,
        rungs: Rungs,
        *,
        number: int,
        rivals: Collection[int] | None = None,
    ) -> Decision:
        """Decide on a trial that reported.

        Args:
            step: training step of the report.
            value: the metric that trials are compared by. NaN counts as worst.
            rungs: rung -> trial number -> value, of the rungs up to this step at least; later ones are passed over.
            number: the trial's own; what the rungs hold of it counts for its best value.
            rivals: the trials to compare with (`sweeps.schedulers.rivals.rivals`); None: all.

        Returns:
            Whether to stop. Between rungs only NaN stops a trial: it does not train back to a number.
        """
        if math.isnan(value):
            return not_a_number(step)
        if step not in self.rung_steps:
            return CONTINUE
        others = compared_with(rungs, step, number, rivals)
        if len(others) < self._min_trials:
            return CONTINUE
        earlier = [values for rung, values in rungs.items() if rung <= step]
        averages = [
            fmean(self._score(values[other]) for values in earlier if other in values) for other in sorted(others)
        ]
        own = [self._score(values[number]) for values in earlier if number is not None and number in values]
        best, middle = max([*own, self._score(value)]), median(averages)
        if not best < middle:
            return CONTINUE
        return Decision(
            stop=True,
            reason=f"its best value {self._sign * best:.4g} up to step {step} is worse than {self._sign * middle:.4g}, the median "
            f"of the averages of {_counted(others, rivals)}",
        )

    def _score(self, value: float) -> float:
        return -math.inf if math.isnan(value) else self._sign * value


Scheduler = NoScheduler | Asha | Median


def _sign(direction: str) -> float:
    if direction not in ("maximize", "minimize"):
        raise ValueError(f"direction must be maximize or minimize, got {direction!r}")
    return 1.0 if direction == "maximize" else -1.0


def _counted(others: Collection[int], rivals: Collection[int] | None) -> str:
    kind = "other" if rivals is None else "comparable"
    return f"{len(others)} {kind} trial{'' if len(others) == 1 else 's'}"


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


def build_scheduler(spec: SweepSpec) -> Scheduler:
    """Return the scheduler that a sweep file asks for.

    Every metric that a sweep may prune on is better when larger.
    """
    settings, steps = spec.scheduler, int(spec.base["steps"])
    if settings.name == "asha":
        return Asha(settings.reduction_factor, settings.min_steps, steps)
    if settings.name == "median":
        report_every = int(spec.base.get("report_every", TrainConfig.model_fields["report_every"].default))
        return Median(settings.min_trials, settings.min_steps, steps, report_every=report_every)
    return NoScheduler()
