"""What the ledger gives back: sweeps, points and events as frozen records; trials are in `sweeps.trial`."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from sweeps.failures import FailureClass
from sweeps.trial import TrialKind, TrialRecord, TrialState


class SweepState(StrEnum):
    """What the driver of a sweep last said about it."""

    RUNNING = "running"
    FINISHED = "finished"
    OUT_OF_BUDGET = "out_of_budget"
    INTERRUPTED = "interrupted"  # by a signal or by `sweeps stop`
    STALLED = "stalled"  # the machines are in the way: nothing that it tried worked any more
    FAILED = "failed"  # by an error of the driver

    @property
    def has_ended(self) -> bool:
        """Whether the driver said that it ended; one that died said nothing."""
        return self is not SweepState.RUNNING

    @property
    def label(self) -> str:
        """The state for people."""
        return self.value.replace("_", " ")


@dataclass(frozen=True)
class Device:
    """Where architectures are measured.

    Attributes:
        kind: `cpu` or `cuda`.
        name: the maker's name.
        threads: threads that a measurement on the processor uses.
    """

    kind: str
    name: str
    threads: int


@dataclass(frozen=True)
class Allotment:
    """What trials get of the GPUs: what the sweep file says, or what was found for `gpus: auto`.

    Attributes:
        gpus: of one trial; a share of one below 1.
        concurrency: trials at the same time.
    """

    gpus: float
    concurrency: int


# Words of `SweepInfo.pending`.
DELETE, RENAME = "delete", "rename"
_LATER = ("former_names", "planned_seconds", "pending")  # fields of `SweepInfo` that came later


@dataclass(frozen=True)
class SweepInfo:
    """Where a sweep came from, and what its drivers found out for all of its trials.

    Attributes:
        environment: versions, commit and hardware where it was begun, see `segda.environment.describe_environment`.
        file: its sweep file, for people.
        folders: where modules of things from outside were found.
        guests: what it names from outside: fact -> value, see `segda.environment.describe_guests`.
        device: where its architectures were measured.
        allotment: what was found for `gpus: auto`.
        warm_start: earlier sweep -> numbers of its trials that were there at the first start.
        data_fingerprint: hash of the data that it reads.
        former_names: what it was called before, oldest first.
        planned_seconds: (parameters, seconds of a full training) of the plan that there was when the search began, if it weighs its
            proposals by their time.
        pending: command that was begun and changes the sweep as a whole, `(DELETE,)` or `(RENAME, new name)`; until the same
            command has ended, nobody drives the sweep and no other command changes it.
    """

    environment: Mapping[str, Any] = field(default_factory=dict)
    file: str | None = None
    folders: tuple[str, ...] = ()
    guests: Mapping[str, str | None] = field(default_factory=dict)
    device: Device | None = None
    allotment: Allotment | None = None
    warm_start: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    data_fingerprint: str | None = None
    former_names: tuple[str, ...] = ()
    planned_seconds: tuple[tuple[Mapping[str, Any], float], ...] = ()
    pending: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        plain = dataclasses.asdict(self)
        # Versions that do not know these read sweeps that do without.
        return {name: value for name, value in plain.items() if value or name not in _LATER}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Return what `plain` was made of, also after it went through JSON."""
        values = dict(plain)
        for name, kind in (("device", Device), ("allotment", Allotment)):
            if values[name] is not None:
                values[name] = kind(**values[name])
        for name in ("folders", *_LATER):
            values[name] = tuple(values.get(name, ()))
        values["warm_start"] = {name: tuple(numbers) for name, numbers in values["warm_start"].items()}
        return cls(**values)


@dataclass(frozen=True)
class SweepRecord:
    """One sweep as the ledger knows it.

    Attributes:
        name: name of the sweep.
        spec: the sweep file, plain data.
        info: where it came from, and what was found out for all of its trials.
        created: seconds since 1970.
        parent_run_id: MLflow run that the trials' runs hang under.
        state: what its driver last said about it; None before the first run.
        driver: process that has the lease to drive it, see `sweeps.ledger.process.Process`; None when nobody has.
        driver_seen: when that process last renewed the lease, seconds since 1970.
        seconds: wall-clock time that it has taken over all its drivers.
        stop_requested: when its driver was asked to end, seconds since 1970; None: it was not.
    """

    name: str
    spec: Mapping[str, Any]
    info: SweepInfo
    created: float
    parent_run_id: str | None = None
    state: SweepState | None = None
    driver: str | None = None
    driver_seen: float | None = None
    seconds: float = 0.0
    stop_requested: float | None = None


@dataclass(frozen=True)
class Point:
    """One report of a trial.

    Attributes:
        id: grows with the order of arrival over all sweeps; a cursor for `Ledger.points_after`.
        number: the trial.
        step: training step.
        timestamp: when the driver heard of it, seconds since 1970.
        metrics: name -> value; NaN and infinities are kept.
    """

    id: int
    number: int
    step: int
    timestamp: float
    metrics: Mapping[str, float]


# Kinds of events that are read again.
STARTED = "started"  # a worker begins an attempt, see `attempt_text`
RETRIED = "lost"  # an attempt failed and another one follows
REQUEUED = "requeued"  # a trial that the machines had failed is taken up again
RESUMED = "resumed"  # a new driver goes on
OUTAGE = "outage"  # nothing works, and what is done about it
OUTAGE_OVER = "outage_over"  # something works again
STALLED = "stalled"  # why the sweep ended although it was not done
CLEANED = "cleaned"  # a trial's checkpoint was removed, since nothing needs it any more
LABEL_SPENT = (
    "label_spent"  # the label of a target image chooses among finalists, and says nothing unbiased of them any more
)
ORIGIN_DELETED = "origin_deleted"  # the sweep of which a trial's result was taken over was deleted


@dataclass(frozen=True)
class Event:
    """One thing that happened to a sweep.

    Attributes:
        id: grows with the order of arrival.
        kind: short word, e.g. `resumed`.
        message: one line for people.
        number: the trial that it is about, if any.
        timestamp: seconds since 1970.
        failure: class of the failure that it tells of, if it tells of one.
    """

    id: int
    kind: str
    message: str
    number: int | None
    timestamp: float
    failure: FailureClass | None = None


_ATTEMPT = re.compile(r"attempt (?P<number>\d+) on (?P<worker>\S+)(?:, (?P<device>.+))?")


def attempt_text(number: int, worker: str, device: str | None) -> str:
    """Return the message of an event of the kind `STARTED`.

    Example:
        >>> attempt_of(attempt_text(2, "node7:4711", "GPU 2,3"))
        (2, 'node7:4711', 'GPU 2,3')
    """
    return f"attempt {number} on {worker}" + (f", {device}" if device else "")


def attempt_of(message: str) -> tuple[int, str, str | None]:
    """Return number, worker and device of which `attempt_text` made a message."""
    found = _ATTEMPT.fullmatch(message)
    assert found is not None, message
    return int(found["number"]), found["worker"], found["device"]


def sweep_record(row: Any) -> SweepRecord:
    """Return a row of the table of sweeps as a record."""
    values = dict(row)
    values["info"] = SweepInfo.from_plain(values["info"])
    values["state"] = None if values["state"] is None else SweepState(values["state"])
    return SweepRecord(**values)


def event_record(row: Any) -> Event:
    """Return a row of the table of events as a record."""
    failure = None if row["failure"] is None else FailureClass(row["failure"])
    return Event(row["id"], row["kind"], row["message"], row["number"], row["timestamp"], failure)


def trial_record(row: Any) -> TrialRecord:
    """Return a row of the table of trials as a record."""
    values = dict(row)
    values["kind"] = TrialKind(values["kind"])
    values["state"] = TrialState(values["state"])
    values["failure"] = None if values["failure"] is None else FailureClass(values["failure"])
    return TrialRecord(**values)


def glance(row: Any, metric: str) -> TrialRecord:
    """Return a row of the table of trials that has one metric alone, and no settings, as a record."""
    values = dict(row)
    for name in ("metrics", "profile"):
        values[name] = {} if values[name] is None else {metric: values[name]}
    return trial_record(values | {"params": {}, "config": {}})


def point_record(row: Any) -> Point:
    """Return a row of the table of points as a record."""
    return Point(
        id=row["id"], number=row["number"], step=row["step"], timestamp=row["timestamp"], metrics=row["metrics"]
    )
