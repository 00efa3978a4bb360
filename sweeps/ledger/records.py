"""What the ledger gives back: sweeps, points and events as frozen records; trials are in `sweeps.trial`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeps.failures import FailureClass
from sweeps.trial import TrialKind, TrialRecord, TrialState


@dataclass(frozen=True)
class SweepRecord:
    """One sweep as the ledger knows it.

    Attributes:
        name: name of the sweep.
        spec: the sweep file, plain data.
        info: where it came from: versions, commit, environment; plain data.
        created: seconds since 1970.
        parent_run_id: MLflow run that the trials' runs hang under.
        state: what its driver last said about it; None before the first run.
        driver: process that has the lease to drive it, see `sweeps.ledger.process.Process`; None when nobody has.
        driver_seen: when that process last renewed the lease, seconds since 1970.
    """

    name: str
    spec: Mapping[str, Any]
    info: Mapping[str, Any]
    created: float
    parent_run_id: str | None = None
    state: str | None = None
    driver: str | None = None
    driver_seen: float | None = None


@dataclass(frozen=True)
class Point:
    """One report of a trial.

    Attributes:
        id: grows with the order of arrival over all sweeps; a cursor for `Ledger.points_after`.
        number: the trial.
        step: training step.
        timestamp: when the worker measured it, seconds since 1970.
        metrics: name -> value; NaN and infinities are kept.
    """

    id: int
    number: int
    step: int
    timestamp: float
    metrics: Mapping[str, float]


RETRIED = "lost"  # kind of event: an attempt failed and another one follows


@dataclass(frozen=True)
class Event:
    """One thing that happened to a sweep.

    Attributes:
        id: grows with the order of arrival.
        kind: short word, e.g. `resumed`.
        message: one line for people.
        number: the trial that it is about, if any.
        timestamp: seconds since 1970.
    """

    id: int
    kind: str
    message: str
    number: int | None
    timestamp: float


def trial_record(row: Any) -> TrialRecord:
    """Return a row of the table of trials as a record."""
    values = dict(row)
    values["kind"] = TrialKind(values["kind"])
    values["state"] = TrialState(values["state"])
    values["failure"] = None if values["failure"] is None else FailureClass(values["failure"])
    return TrialRecord(**values)


def point_record(row: Any) -> Point:
    """Return a row of the table of points as a record."""
    return Point(
        id=row["id"], number=row["number"], step=row["step"], timestamp=row["timestamp"], metrics=row["metrics"]
    )
