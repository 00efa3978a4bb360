"""What must hold of a sweep file's `scheduler` part; each check raises `LocatedError` at the key to change."""

from collections.abc import Sequence

from segda.config import TrainConfig
from segda.config_problems import LocatedError
from sweeps.file.spec import SweepSpec
from sweeps.metrics import is_late, is_oracle
from sweeps.schedulers.base import StoppingConfig


def check_comparison(
    spec: SweepSpec, scheduler: StoppingConfig, sample: TrainConfig, *, reported: Sequence[str]
) -> None:
    """Check that the scheduler compares trials by what the sweep is after; `sweeps.schedulers.rivals` says why.

    Args:
        spec: the sweep.
        scheduler: its settings.
        sample: some training configuration of it.
        reported: objectives that training reports, as opposed to efficiency figures of the architecture.

    Raises:
        LocatedError: relative to the sweep file.
    """
    name, metric = scheduler.name, scheduler.metric
    if len(reported) > 1:
        raise LocatedError(
            ("scheduler", "name"),
            f"{name} compares trials by {metric} alone and would stop some that lead in another objective, since "
            f"{' and '.join(reported)} are all decided by training; use `name: none`, or keep one of them and efficiency metrics",
        )
    if reported and metric != reported[0]:
        raise LocatedError(
            ("scheduler", "metric"),
            f"must be the objective {reported[0]}, got {metric}, by which trials that lead in the objective would be stopped; "
            "leave it out or use `name: none`",
        )
    if is_late(metric):
        raise LocatedError(
            ("scheduler", "name"),
            f"{name} compares trials along the way, and {metric} is reported at the end only; use `name: none`",
        )
    if is_oracle(metric) and sample.oracle != "always":
        raise LocatedError(
            ("scheduler", "name"),
            f"{name} compares trials along the way, where {metric} is reported only with base.oracle: always, it is "
            f"{sample.oracle}; set that or use `name: none`",
        )


def check_direction(spec: SweepSpec, scheduler: StoppingConfig) -> None:
    """Check that no objective wants small values of what the scheduler keeps the largest values of.

    Raises:
        LocatedError: relative to the sweep file.
    """
    for objective in spec.objectives:
        if objective.metric == scheduler.metric and objective.direction == "minimize":
            raise LocatedError(
                ("scheduler", "metric"),
                f"the scheduler keeps the trials with the largest {scheduler.metric}, but an objective minimizes it; maximize it "
                "or use `name: none`",
            )


def check_rungs(spec: SweepSpec) -> None:
    """Check that trials are compared while they train.

    Raises:
        LocatedError: relative to the sweep file.
    """
    try:
        spec.build_scheduler()
    except LocatedError as error:
        raise LocatedError(("scheduler", *error.location), error.text) from error
