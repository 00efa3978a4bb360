"""What becomes of a trial after a failed attempt, and which one is tried next."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeps.execution.micro_batches import smaller_micro_batch, why_no_smaller
from sweeps.execution.outage import Failed, Outage
from sweeps.failures import POLICIES, FailureClass
from sweeps.file.spec import ResourcesConfig
from sweeps.ledger.records import REQUEUED, RETRIED, Event
from sweeps.trial import TrialRecord


def retries(events: Iterable[Event]) -> Iterator[tuple[int, FailureClass, float]]:
    """Yield failed attempts that others followed, if under a later driver: trial, class of the failure, seconds since 1970.

    Args:
        events: what happened to a sweep.
    """
    for event in events:
        if event.kind in (RETRIED, REQUEUED) and event.number is not None and event.failure is not None:
            yield event.number, event.failure, event.timestamp


class FailuresInARow:
    """Failed attempts of each trial since its last new report, class by class: a policy bounds its own class alone."""

    def __init__(self, events: Iterable[Event], *, last_report: Callable[[int], float]) -> None:
        """Count those of earlier drivers that blame a configuration; what machines did to them says nothing about today's.

        Args:
            events: what happened to the sweep.
            last_report: returns the time of a trial's last report, seconds since 1970, or 0; asked once per trial that failed.
        """
        self._counts: dict[int, Counter[FailureClass]] = {}
        since: dict[int, float] = {}
        for number, failure, timestamp in retries(events):
            if not POLICIES[failure].blames_configuration:
                continue
            if number not in since:
                since[number] = last_report(number)
            if timestamp > since[number]:
                self.add(number, failure)

    def add(self, number: int, failure: FailureClass) -> int:
        """Count a failed attempt, and return how many of its class the trial has had in a row.

        Args:
            number: the trial.
            failure: why the attempt failed.
        """
        counts = self._counts.setdefault(number, Counter())
        counts[failure] += 1
        return counts[failure]

    def clear(self, number: int) -> None:
        """Forget a trial's failures, since it has made progress."""
        self._counts.pop(number, None)


@dataclass(frozen=True)
class Answer:
    """What is done about a failed attempt.

    Attributes:
        is_retried: whether another attempt follows; else the trial is given up.
        message: one line about the failure, for its record.
        changes: of the trial's record, for the next attempt.
    """

    is_retried: bool
    message: str
    changes: Mapping[str, Any] = field(default_factory=dict)


class Retries:
    """Answers failed attempts as `sweeps.failures.POLICIES` says.

    A trial that the machines fail as often as its class may fail is given up only when others have reported meanwhile. As long as
    none has, it may be that nothing works, which `outage` finds out.

    Attributes:
        outage: knows whether anything works.
    """

    def __init__(
        self,
        resources: ResourcesConfig,
        events: Iterable[Event],
        *,
        last_report: Callable[[int], float],
        say: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with what earlier drivers wrote down.

        Args:
            resources: of the sweep.
            events: what happened to the trials that have not ended.
            last_report: see `FailuresInARow`.
            say: see `Outage`.
            clock: seconds from any beginning.
        """
        self.outage = Outage(limit_seconds=60 * resources.outage_minutes, say=say, clock=clock)
        self._processes = resources.processes
        self._clock = clock
        self._counts = FailuresInARow(events, last_report=last_report)
        # Trial -> reports of anybody before the first of its failures in a row.
        self._reports_before: dict[int, int] = {}
        self._pauses: dict[int, float] = {}  # trial -> when it may be tried again

    def answer(self, record: TrialRecord, failure: FailureClass, error: str) -> Answer:
        """Say what is done about a failed attempt.

        Args:
            record: the trial.
            failure: why the attempt failed.
            error: one line.
        """
        policy = POLICIES[failure]
        if failure is FailureClass.OUT_OF_MEMORY:
            return self._less_memory(record, error)
        if policy.retries is None:
            return Answer(True, error)
        # What hangs while nothing works hangs with everything else.
        by_machines = not policy.blames_configuration or (failure is FailureClass.HANG and self.outage.is_on)
        if by_machines and self.outage.is_on:
            self._fail_outage(record, failure, error, in_vain=True)
            return Answer(True, error)
        before = self._reports_before.setdefault(record.number, self.outage.num_reports)
        failures = self._counts.add(record.number, failure)
        is_spent, is_alone = failures > policy.retries, self.outage.num_reports > before
        if by_machines and not (is_spent and is_alone):
            self._fail_outage(record, failure, error, in_vain=is_spent)
            is_spent = False
        if is_spent:
            tries = f"given up after {failures} such failures without a report; last: " if failures > 1 else ""
            return Answer(False, f"{tries}{error}")
        self._pauses[record.number] = self._clock() + policy.pause(failures)
        return Answer(True, error)

    def _fail_outage(self, record: TrialRecord, failure: FailureClass, error: str, *, in_vain: bool) -> None:
        self.outage.failed(Failed(record.number, failure, error, record.worker or ""), in_vain=in_vain)

    def _less_memory(self, record: TrialRecord, error: str) -> Answer:
        batch_size = int(record.config["batch_size"])
        smaller = smaller_micro_batch(batch_size, record.micro_batch, processes=self._processes)
        if smaller is None:
            return Answer(False, f"{error}; {why_no_smaller(batch_size)}")
        message = f"{error}; goes on with micro-batches of {smaller}, the same batch in more passes"
        return Answer(True, message, {"micro_batch": smaller})

    def reported(self, number: int) -> None:
        """Take note of a trial that has reported something new, or was trained to its end."""
        self._counts.clear(number)
        self._reports_before.pop(number, None)
        self.outage.reported(number)

    def choose(self, queued: Sequence[TrialRecord], *, new: int | None = None) -> TrialRecord | None:
        """Return which trial is tried next; None: a new one, or none before a pause is over.

        In an outage it is the one that has failed least in it. A new one comes before those that have failed twice, since all that
        wait may share a fault.

        Args:
            queued: ordered by number.
            new: number of the trial that could be proposed; None: none can.
        """
        if not self.outage.is_on:
            return next((record for record in queued if self._pauses.get(record.number, 0.0) <= self._clock()), None)
        record = min(queued, key=lambda record: self.outage.failures(record.number), default=None)
        if record is None or new is None or self.outage.failures(record.number) <= max(1, self.outage.failures(new)):
            return record
        return None

    def fail_proposal(self, number: int, failure: FailureClass, error: str) -> None:
        """Take note of a trial that could not be proposed, since the data that it reads are away.

        Args:
            number: that it would have had.
            failure: why.
            error: one line.
        """
        self.outage.handed_out(number)
        self.outage.failed(Failed(number, failure, error), in_vain=True)
