"""Which trials stop early. One file each; a new one is a file and a line here."""

from segda.catalog import Catalog, subclass_of
from sweeps.schedulers.asha import Asha
from sweeps.schedulers.base import MetricScheduler, Scheduler, SchedulerConfig, StoppingConfig
from sweeps.schedulers.dominance import Dominance
from sweeps.schedulers.fronts import FrontConfig, FrontScheduler
from sweeps.schedulers.median import Median
from sweeps.schedulers.mo_asha import MoAsha
from sweeps.schedulers.no_scheduler import NoScheduler

SCHEDULERS: Catalog[type[Scheduler]] = Catalog(
    "scheduler",
    group="sweeps.schedulers",
    built_in={"none": NoScheduler, "asha": Asha, "median": Median, "dominance": Dominance, "mo_asha": MoAsha},
    check=subclass_of(Scheduler, config=SchedulerConfig),
)

__all__ = [
    "SCHEDULERS",
    "FrontConfig",
    "FrontScheduler",
    "MetricScheduler",
    "Scheduler",
    "SchedulerConfig",
    "StoppingConfig",
]
