"""Asynchronous successive halving."""

from typing import ClassVar

from sweeps.schedulers.base import CONTINUE, Comparison, Decision, MetricScheduler, SchedulerConfig, StoppingConfig
from sweeps.schedulers.halving import Halving, HalvingConfig


class AshaConfig(HalvingConfig, StoppingConfig):
    """Asynchronous successive halving."""

    name: str = "asha"


class Asha(Halving, MetricScheduler):
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

    def compare(self, comparison: Comparison) -> Decision:
        """Stop a trial that is not among the best."""
        value, others = comparison.own[-1], comparison.others
        kept = (len(others) + 1) // self.reduction_factor
        better = sum(values[-1] > value for values in others.values())
        if kept == 0 or better < kept:
            return CONTINUE
        return Decision(
            stop=True,
            reason=f"{better} of {comparison.who} were better than {value:.4g} at step {comparison.step}; "
            f"{kept} of {len(others) + 1} may go on",
        )
