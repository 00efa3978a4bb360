"""What must hold of a sweep file's `scheduler` part; each check raises `LocatedError` at the key to change."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from segda.config import TrainConfig
from segda.config_problems import LocatedError

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec

# Scheduler -> the settings that it reads.
_SETTINGS = {
    "none": frozenset[str](),
    "asha": frozenset({"reduction_factor", "min_steps", "metric"}),
    "median": frozenset({"min_steps", "min_trials", "metric"}),
}


def check_comparison(spec: "SweepSpec", sample: TrainConfig, *, reported: Sequence[str]) -> None:
    """Check that the scheduler compares trials by what the sweep is after; `sweeps.schedulers.rivals` says why.

    Args:
        spec: the sweep, with a scheduler.
        sample: some training configuration of it.
        reported: objectives that training reports, as opposed to efficiency figures of the architecture.

    Raises:
        LocatedError: relative to the sweep file.
    """
    name, metric = spec.scheduler.name, spec.scheduler.metric
    if len(reported) > 1:
        raise LocatedError(
            ("scheduler", "name"),
            f"{name} compares trials by {metric} alone and would stop some that lead in another objective, since "
            f"{' and '.join(reported)} are all decided by training; use `name: none`, or keep one of them and efficiency figures",
        )
    if reported and metric != reported[0]:
        raise LocatedError(
            ("scheduler", "metric"),
            f"must be the objective {reported[0]}, got {metric}, by which trials that lead in the objective would be stopped; "
            "leave it out or use `name: none`",
        )
    if metric.startswith("target/"):
        raise LocatedError(
            ("scheduler", "name"),
            f"{name} compares trials along the way, and {metric} is reported at the end only; use `name: none`",
        )
    if metric.startswith("oracle/") and sample.oracle != "always":
        raise LocatedError(
            ("scheduler", "name"),
            f"{name} compares trials along the way, where {metric} is reported only with base.oracle: always, it is "
            f"{sample.oracle}; set that or use `name: none`",
        )


def check_scheduler(spec: "SweepSpec", sample: TrainConfig) -> None:
    """Check how and when the scheduler compares trials, by a metric that is known to be reported.

    Args:
        spec: the sweep, with a scheduler.
        sample: some training configuration of it.

    Raises:
        LocatedError: relative to the sweep file.
    """
    scheduler = spec.scheduler
    for objective in spec.objectives:
        if objective.metric == scheduler.metric and objective.direction == "minimize":
            raise LocatedError(
                ("scheduler", "metric"),
                f"the scheduler keeps the trials with the largest {scheduler.metric}, but an objective minimizes it; maximize it "
                "or use `name: none`",
            )
    every = sample.report_every
    first = -(-scheduler.min_steps // every) * every
    if first >= sample.steps:
        rounded = "" if first == scheduler.min_steps else f", which is {first} at the next report"
        raise LocatedError(
            ("scheduler", "min_steps"),
            f"must be smaller than base.steps {sample.steps}, got {scheduler.min_steps}{rounded}; otherwise nothing is stopped",
        )
    if scheduler.name == "asha" and first != scheduler.min_steps:
        raise LocatedError(
            ("scheduler", "min_steps"),
            f"must be a multiple of base.report_every {every}, got {scheduler.min_steps}; trials are compared when they report",
        )


def check_settings(spec: "SweepSpec") -> None:
    """Refuse settings that do nothing with the chosen scheduler.

    Raises:
        LocatedError: relative to the sweep file.
    """
    scheduler = spec.scheduler
    for key, field in type(scheduler).model_fields.items():
        if key == "name" or key in _SETTINGS[scheduler.name] or getattr(scheduler, key) == field.default:
            continue
        raise LocatedError(("scheduler", key), f"has no effect with scheduler {scheduler.name}; leave it out")
