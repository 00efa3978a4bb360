"""Which trials stop early. One file each; a new one is a file and a line here."""

from segda.catalog import Catalog, subclass_of
from sweeps.schedulers.asha import Asha
from sweeps.schedulers.base import Scheduler, SchedulerConfig, StoppingConfig
from sweeps.schedulers.median import Median
from sweeps.schedulers.no_scheduler import NoScheduler

SCHEDULERS: Catalog[type[Scheduler]] = Catalog(
    "scheduler",
    group="sweeps.schedulers",
    built_in={"none": NoScheduler, "asha": Asha, "median": Median},
    check=subclass_of(Scheduler, config=SchedulerConfig),
)

__all__ = ["SCHEDULERS", "Scheduler", "SchedulerConfig", "StoppingConfig"]
