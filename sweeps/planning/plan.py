"""What is tried before a sweep begins: each kind of configuration for a moment.

What comes out is kept beside the sweep, for the account afterwards and for another look at the estimate with another budget.
"""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segda.errors import ConfigError
from segda.files import write_json
from sweeps.file.spec import SweepSpec
from sweeps.ledger.records import Allotment
from sweeps.planning.canary import CanaryResult, CanaryTask, Costs, measure
from sweeps.planning.coverage import Case
from sweeps.planning.estimate import Estimate, Tried
from sweeps.planning.machines import Call, Machines, here, stated
from sweeps.store import Store
from sweeps.suggestions import suggest

log = logging.getLogger(__name__)


def canary_of(spec: SweepSpec, case: Case, *, gpus: float, timed_steps: int = 2) -> CanaryTask:
    """Return the canary of a configuration, on the device and with the threads that its trials will have.

    Args:
        spec: the sweep.
        case: the configuration.
        gpus: of a trial.
        timed_steps: fewest training steps to take the time of.
    """
    return CanaryTask(
        config=spec.worker_config(spec.train_config(case.params, seed=spec.first_seed), gpus=gpus).model_dump(
            mode="json"
        ),
        threads=spec.resources.threads,
        processes=spec.resources.processes,
        timed_steps=timed_steps,
        timeout_seconds=spec.resources.watchdog_minutes * 60,
    )


def try_all(spec: SweepSpec, cases: Sequence[Case], *, gpus: float, call: Call = here) -> Iterator[Tried]:
    """Train every configuration for a moment, one after the other, each in a process of its own.

    Args:
        spec: the sweep.
        cases: the configurations.
        gpus: of a trial.
        call: calls a function with arguments where nothing else computes.

    Yields:
        What became of each, in order.
    """
    for case in cases:
        result: CanaryResult = call(measure, canary_of(spec, case, gpus=gpus))
        yield Tried(case, result.copies[0] if result.copies else None, result.error, result.doubts)


# The estimate is kept, so that the account afterwards can be compared with it.


def plan_path(store: Store, name: str) -> Path:
    """Return where the last plan of a sweep is kept."""
    return store.sweep(name) / "plan.json"


def save_plan(store: Store, spec: SweepSpec, found: Estimate | None, tried: Sequence[Tried], *, gpus: float) -> None:
    """Keep a plan.

    Args:
        store: the folder of all sweeps.
        spec: the sweep.
        found: the estimate; None if every configuration failed.
        tried: what it was made from.
        gpus: of a trial.
    """
    content = {
        "sweep": spec.name,
        "time": time.time(),
        "gpus": gpus,
        "estimate": None if found is None else asdict(found),
        "tried": [
            {
                "label": item.case.label,
                "params": dict(item.case.params),
                "task": canary_of(spec, item.case, gpus=gpus).config,
                "costs": None if item.costs is None else asdict(item.costs),
                "error": item.error,
                "doubts": list(item.doubts),
            }
            for item in tried
        ],
    }
    write_json(plan_path(store, spec.name), content)


def saved_estimate(store: Store, name: str) -> Estimate | None:
    """Return the estimate of a sweep's last plan, or None if it has none."""
    plain = (_saved(store, name) or {}).get("estimate")
    return None if plain is None else Estimate.from_plain(plain)


def as_planned(store: Store, spec: SweepSpec, machines: Machines) -> Allotment:
    """Return what trials of a sweep get by its last plan, and as many at once as the machines hold.

    Args:
        store: the folder of all sweeps.
        spec: the sweep; if it names a number, that is the answer.
        machines: where its trials will run.

    Raises:
        ConfigError: it has no plan.
        DeviceError: the machines cannot run a trial of that plan.
    """
    if spec.resources.gpus != "auto":
        return stated(spec)
    gpus = (_saved(store, spec.name) or {}).get("gpus")
    if gpus is None:
        raise ConfigError(f"sweep {spec.name!r} has no plan yet that says what gpus: auto is; leave --skip-canary out")
    # Without GPUs auto says nothing about how many run at once.
    concurrency = machines.concurrency(spec, gpus=gpus) if gpus else spec.budget.concurrency
    return Allotment(gpus=float(gpus), concurrency=concurrency)


def saved_costs(store: Store, spec: SweepSpec, cases: Sequence[Case], *, gpus: float) -> list[Tried]:
    """Return what the last plan of a sweep found out about configurations that are as they were then.

    Args:
        store: the folder of all sweeps.
        spec: the sweep as it is now; another budget changes nothing.
        cases: the configurations that it can have.
        gpus: of a trial.

    Raises:
        ConfigError: there is no plan, or one of other configurations.
    """
    known = {
        json.dumps(item["task"], sort_keys=True): item for item in (_saved(store, spec.name) or {}).get("tried", [])
    }
    found = []
    for case in cases:
        item = known.get(json.dumps(canary_of(spec, case, gpus=gpus).config, sort_keys=True))
        if item is None:
            raise ConfigError(
                f"{case.label!r} was not tried yet with this sweep file, so there is nothing to use again; leave --skip-canary "
                f"out, or use {suggest('check', 'FILE')} for what needs no training"
            )
        costs = None if item["costs"] is None else Costs(**item["costs"])
        found.append(Tried(case, costs, item["error"], tuple(item.get("doubts", ()))))
    return found


def _saved(store: Store, name: str) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(plan_path(store, name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        log.warning("%s cannot be read; it is left out", plan_path(store, name))
        return None
    return content
