"""No early stopping."""

from typing import ClassVar

from sweeps.schedulers.base import Scheduler, SchedulerConfig


class NoSchedulerConfig(SchedulerConfig):
    """Every trial trains in full."""

    name: str = "none"


class NoScheduler(Scheduler):
    """Lets every trial train in full."""

    Config: ClassVar[type[SchedulerConfig]] = NoSchedulerConfig
