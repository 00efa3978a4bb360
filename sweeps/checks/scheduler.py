"""What must hold of a sweep file's `scheduler` part; each check raises `LocatedError` at the key to change."""

from segda.config import TrainConfig
from segda.config_problems import LocatedError, Location
from sweeps.file.spec import SweepSpec
from sweeps.metrics import LARGEST_CLASS_SHARE, MISSING_CLASSES, is_late, is_oracle
from sweeps.schedulers import FrontConfig, StoppingConfig


def compared_metrics(spec: SweepSpec) -> dict[str, Location]:
    """Return the metrics that the scheduler compares trials by -> where the sweep file names them."""
    if isinstance(spec.scheduler, StoppingConfig):
        return {spec.scheduler.metric: ("scheduler", "metric")}
    if isinstance(spec.scheduler, FrontConfig):
        return {metric: ("scheduler", "metrics", metric) for metric in spec.scheduler.metrics}
    return {}


def check_comparison(spec: SweepSpec, sample: TrainConfig) -> None:
    """Check that the scheduler compares trials by what is there on the way, and as the objectives want it.

    Args:
        spec: the sweep.
        sample: some training configuration of it.

    Raises:
        LocatedError: relative to the sweep file.
    """
    name = spec.scheduler.name
    trained = spec.trained_objectives
    if isinstance(spec.scheduler, StoppingConfig) and len(trained) > 1:
        raise LocatedError(
            ("scheduler", "name"),
            f"{name} compares trials by {spec.scheduler.metric} alone and would stop some that lead in another objective, since "
            f"{' and '.join(trained)} are all decided by training; use `name: mo_asha` or `name: dominance`",
        )
    for metric, where in compared_metrics(spec).items():
        if is_late(metric):
            raise LocatedError(
                where,
                f"{name} compares trials along the way, and {metric} is reported at the end only; name another metric, such as "
                "source/val/miou, or use `name: none`",
            )
        if is_oracle(metric) and sample.oracle != "always":
            raise LocatedError(
                where,
                f"{name} compares trials along the way, where {metric} is reported only with base.oracle: always, it is "
                f"{sample.oracle}; set that, name another metric, or use `name: none`",
            )
    if isinstance(spec.scheduler, StoppingConfig) and spec.scheduler.metric in {
        MISSING_CLASSES,
        LARGEST_CLASS_SHARE,
    } - {*trained}:
        raise LocatedError(
            ("scheduler", "metric"),
            f"{name} keeps the largest {spec.scheduler.metric}, of which less is better; use `name: mo_asha` with "
            f"`metrics: {{{spec.scheduler.metric}: minimize}}`",
        )
    if isinstance(spec.scheduler, StoppingConfig) and trained.get(spec.scheduler.metric) == "minimize":
        raise LocatedError(
            ("scheduler", "metric"),
            f"{name} keeps the trials with the largest {spec.scheduler.metric}, but an objective minimizes it; maximize it, or use "
            "`name: mo_asha` or `name: dominance`",
        )
    if isinstance(spec.scheduler, FrontConfig):
        for metric, direction in spec.scheduler.metrics.items():
            if trained.get(metric, direction) != direction:
                raise LocatedError(
                    ("scheduler", "metrics", metric),
                    f"the objective says {trained[metric]}, got {direction}; say the same",
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
