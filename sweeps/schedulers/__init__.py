"""Which trials stop early; a scheduler is one file and one line here."""

from collections.abc import Mapping
from typing import Any

from segda.config_problems import LocatedError
from segda.names import nearest
from sweeps.schedulers.asha import Asha
from sweeps.schedulers.base import Scheduler, SchedulerConfig
from sweeps.schedulers.median import Median
from sweeps.schedulers.no_scheduler import NoScheduler

SCHEDULERS: Mapping[str, type[Scheduler]] = {"none": NoScheduler, "asha": Asha, "median": Median}


def scheduler_config(value: Any) -> Any:
    """Return the settings of the scheduler that a mapping names; no name is `none`. Anything else is returned as it came.

    Raises:
        LocatedError: there is no such scheduler, or a setting is another scheduler's; relative to the mapping.
        ValidationError: a setting is unknown or out of range.
    """
    if not isinstance(value, Mapping):
        return value
    name = value.get("name", "none")
    if not isinstance(name, str) or name not in SCHEDULERS:
        raise LocatedError(
            ("name",), f"unknown scheduler {name!r}{nearest(str(name), SCHEDULERS)}; known: {', '.join(SCHEDULERS)}"
        )
    config = SCHEDULERS[name].Config
    for key in value:
        others = [other.Config.model_fields for other in SCHEDULERS.values()]
        if key not in config.model_fields and any(key in fields for fields in others):
            raise LocatedError((key,), f"has no effect with scheduler {name}; leave it out")
    return config.model_validate(value)


def takes_metric(name: Any) -> bool:
    """Return whether the scheduler of a name compares trials by a metric; False where there is none of that name."""
    return str(name) in SCHEDULERS and "metric" in SCHEDULERS[str(name)].Config.model_fields


def build_scheduler(config: SchedulerConfig, *, steps: int, report_every: int) -> Scheduler:
    """Return the scheduler of some settings; arguments and errors as in `Scheduler`."""
    return SCHEDULERS[config.name](config, steps=steps, report_every=report_every)


def scheduler_schema() -> dict[str, Any]:
    """Return the JSON schema of a sweep file's `scheduler` part."""
    schemas = [scheduler.Config.model_json_schema() for scheduler in SCHEDULERS.values()]
    return {"anyOf": [schema | {"required": ["name"]} for schema in schemas]}
