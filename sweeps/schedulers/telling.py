"""What a sweep says of its early stopping."""

from collections.abc import Collection

from sweeps.schedulers.base import MetricScheduler, Scheduler
from sweeps.schedulers.fronts import FrontScheduler


def pruning_rule(scheduler: Scheduler, costs: Collection[str], *, objectives: Collection[str]) -> str:
    """Return by what a sweep stops trials early and whom that may hit, as one line for people.

    Args:
        scheduler: the sweep's.
        costs: its objectives that are efficiency metrics of the architecture.
        objectives: its objectives that training decides.
    """
    if isinstance(scheduler, FrontScheduler):
        compared = list(scheduler.metrics)
        rule = f"pruning: {scheduler.name} by {' and '.join([*compared, *costs])} together; {scheduler.promise}"
    elif isinstance(scheduler, MetricScheduler):
        compared = [scheduler.metric]
        rule = f"pruning: {scheduler.name} by {scheduler.metric} alone"
        if costs:
            rule += (
                f", among trials at least as good in {' and '.join(costs)}: a trial stops only where such ones are better, so "
                "that no network gives way to a more expensive one"
            )
    else:
        return "pruning: none; every trial trains in full"
    unseen = [metric for metric in objectives if metric not in compared]
    return f"{rule}; a trial that leads in {' or '.join(unseen)} may be stopped" if unseen else rule
