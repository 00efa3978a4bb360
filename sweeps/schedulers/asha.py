"""Asynchronous successive halving."""

from typing import ClassVar

from pydantic import Field

from segda.config_problems import LocatedError
from sweeps.schedulers.base import CONTINUE, Comparison, Decision, Scheduler, SchedulerConfig, StoppingConfig


class AshaConfig(StoppingConfig):
    """Asynchronous successive halving."""

    name: str = "asha"
    reduction_factor: int = Field(default=3, ge=2, description="one in so many trials goes on at a rung")
    min_steps: int = Field(
        default=100, ge=1, description="the first rung: training steps before a trial may be stopped"
    )


class Asha(Scheduler):
    """Asynchronous successive halving, the variant that stops.

    After Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, with one bracket.
    Rungs lie at `min_steps * reduction_factor ** k` below the last step.
    A trial that reaches a rung as the n-th of those that it is compared with goes on if fewer than `n // reduction_factor` of them
    are strictly better: it is among the best 1/reduction_factor, ties included. While n is smaller than reduction_factor that
    share is less than one trial and everything goes on.

    Deviation from the paper: there a trial pauses and is promoted later if the rung fills up with worse ones; here it stops for
    good, as in Ray Tune, so that no checkpoint of a paused trial must be kept and each trial is started once.
    """

    Config: ClassVar[type[SchedulerConfig]] = AshaConfig

    def __init__(self, config: AshaConfig, *, steps: int, report_every: int) -> None:
        """Place the rungs; arguments as in `Scheduler`."""
        super().__init__(config, steps=steps, report_every=report_every)
        if config.min_steps >= steps:
            raise LocatedError(
                ("min_steps",),
                f"must be smaller than base.steps {steps}, got {config.min_steps}; otherwise nothing is stopped",
            )
        if config.min_steps % report_every:
            raise LocatedError(
                ("min_steps",),
                f"must be a multiple of base.report_every {report_every}, got {config.min_steps}; trials are compared when they "
                "report",
            )
        self._reduction_factor = config.reduction_factor
        self.rung_steps = _rung_steps(config.reduction_factor, config.min_steps, steps)
        self.assumption = (
            f"lower value: at each rung one trial in {config.reduction_factor} goes on; upper: all train in full"
        )

    def compare(self, comparison: Comparison) -> Decision:
        """Stop a trial that is not among the best."""
        value, others = comparison.own[-1], comparison.others
        kept = (len(others) + 1) // self._reduction_factor
        better = sum(values[-1] > value for values in others.values())
        if kept == 0 or better < kept:
            return CONTINUE
        return Decision(
            stop=True,
            reason=f"{better} of {comparison.who} were better than {value:.4g} at step {comparison.step}; "
            f"{kept} of {len(others) + 1} may go on",
        )

    def endings(self) -> dict[int, float]:
        """Return the shares if one in `reduction_factor` goes on at each rung."""
        shares: dict[int, float] = {}
        left = 1.0
        for rung in self.rung_steps:
            shares[rung] = left * (1 - 1 / self._reduction_factor)
            left /= self._reduction_factor
        return shares | {self.steps: left}


def _rung_steps(reduction_factor: int, min_steps: int, steps: int) -> tuple[int, ...]:
    found = []
    rung = min_steps
    while rung < steps:
        found.append(rung)
        rung *= reduction_factor
    return tuple(found)
