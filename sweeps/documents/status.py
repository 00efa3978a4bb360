"""Documents of `sweeps status`: how far sweeps are."""

from typing import Any

from segda.documents import document, utc
from sweeps.documents.parts import driver_part, shows_oracle, trial_part
from sweeps.reports.status import DriverStatus, SweepStatus
from sweeps.trial import TrialState


def overview_document(found: list[tuple[DriverStatus, dict[TrialState, int]]], *, now: float) -> dict[str, Any]:
    """Return all sweeps of a ledger.

    Args:
        found: each sweep, and how many trials it has in each state.
        now: seconds since 1970.
    """
    listed = [
        {
            "name": status.record.name,
            **driver_part(status),
            "trials": {state: counts.get(state, 0) for state in TrialState},
        }
        for status, counts in found
    ]
    return document("sweeps.overview/1", {"time": utc(now), "sweeps": listed})


def status_document(status: SweepStatus, *, oracle: bool = False) -> dict[str, Any]:
    """Return how far a sweep is.

    Args:
        status: the sweep, read with all trials to be shown.
        oracle: whether figures that are made from target labels are shown although the sweep does not choose by them.
    """
    shows = shows_oracle(status.record.spec.get("selection"), asked=oracle)
    content = {"time": utc(status.now), "has_oracle": shows, **standing_part(status)}
    content["trials"] = [
        {
            **trial_part(trial, oracle=shows),
            "value": status.value(trial),
            "reported": utc(status.reported.get(trial.number)),
        }
        for trial in status.trials
    ]
    return document("sweeps.status/1", content)


def standing_part(status: SweepStatus) -> dict[str, Any]:
    """Return how far a sweep is, without its trials.

    Args:
        status: the sweep.
    """
    best = status.best
    return {
        "sweep": status.record.name,
        "question": status.record.spec.get("question", ""),
        **driver_part(status),
        "selection": status.record.spec.get("selection"),
        "objectives": [{"metric": item.metric, "direction": item.direction} for item in status.spec.objectives],
        "budget": status.record.spec.get("budget", {}),
        "counts": {state: status.count(state) for state in TrialState},
        "done": status.done,
        "total": status.total,
        "set_aside": sum(trial.is_set_aside for trial in status.trials),
        "worker_seconds": sum(trial.seconds for trial in status.trials),
        "cost": status.cost,
        "seconds_left": status.seconds_left,
        "best": None if best is None else {"trial": best.number, "value": status.value(best)},
    }
