"""Decides what to run next and what becomes of each message; knows nothing of the executor.

The ledger is the only memory. A row is on disk before its trial is handed out, a report is on disk before the scheduler decides
on it, and a state is on disk before anybody hears of it; so a driver that dies at any moment finds everything again.
"""

import math
import time
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from segda.config import TrainConfig
from sweeps.execution.micro_batches import smaller_micro_batch, why_no_smaller
from sweeps.execution.proposals import Proposals
from sweeps.execution.retries import FailuresInARow
from sweeps.execution.task import DEFAULT_TRAIN, Task, task_of
from sweeps.execution.trials import Trials
from sweeps.execution.watchdog import HANG_FILE
from sweeps.execution.worker import Message
from sweeps.failures import POLICIES, FailureClass
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import RETRIED, Allotment
from sweeps.metrics import visible_metrics
from sweeps.planning.profiles import Architecture, Profile
from sweeps.schedulers.base import CONTINUE, Decision
from sweeps.schedulers.rivals import rivals
from sweeps.schedulers.rungs import RungValues
from sweeps.store import Store
from sweeps.trial import TrialKind, TrialRecord, TrialState

Listener = Callable[[str, TrialRecord | None, str], None]


class Wait(Enum):
    """Why there is no task."""

    NOT_NOW = "not now"  # ask again: something runs or pauses whose end may bring more
    DONE = "done"


class Coordinator:
    """Owner of a running sweep's decisions; used by one thread.

    Set `closing` to hand nothing more out, and `concurrency` to have another number of trials open at once than its `allotment`
    says; `is_done` says that nothing is left to do. A listener hears (kind, trial, message);
    kinds are `started`, `point`, `complete`, `pruned`, `infeasible`, `failed`, `lost`, `queued` and `note`.
    """

    def __init__(
        self,
        spec: SweepSpec,
        *,
        allotment: Allotment,
        ledger: Ledger,
        store: Store,
        profiles: Mapping[Architecture, Profile],
        fingerprint: Callable[[TrainConfig], str],
        listener: Listener | None = None,
        train: str = DEFAULT_TRAIN,
    ) -> None:
        """Take over a sweep from its ledger; trials that were running are queued, since their driver is gone.

        Args:
            spec: the sweep, whose row exists in the ledger.
            allotment: what its trials get.
            ledger: where it is kept.
            store: where its files go.
            profiles: efficiency of every architecture that it can reach.
            fingerprint: hash of the data that a configuration reads.
            listener: hears what happens.
            train: training function as `module:name`.

        Raises:
            ConfigError: no architecture satisfies the constraints, or trials do not fit the search space.
        """
        self.spec = spec
        self.ledger = ledger
        self.store = store
        self.closing = False
        self.allotment = allotment
        self.concurrency = allotment.concurrency
        self.is_done = False
        self._listener = listener
        self._train = train
        self._trials = Trials(ledger.trials(spec.name))
        unfinished = {record.number for record in self._trials.unfinished}
        self._failures = FailuresInARow(
            (event for event in ledger.events(spec.name) if event.number in unfinished), last_report=self._last_report
        )
        self._configs: dict[int, TrainConfig] = {}  # open trial -> its training configuration
        self._pauses: dict[int, float] = {}  # trial -> monotonic time before which it is not tried again
        self._heard: dict[int, float] = {}  # trial -> monotonic time of its worker's last message
        self._scheduler = spec.build_scheduler()
        self._rungs = RungValues(self._scheduler, selection=spec.selection)
        for point in ledger.points(spec.name) if self._scheduler.rung_steps else ():
            if self._trials[point.number].kind is TrialKind.SEARCH:
                self._rungs.add(point.number, point.step, point.metrics)
        self.release("its driver ended before it did")
        self._proposals = Proposals(
            spec,
            concurrency=allotment.concurrency,
            ledger=ledger,
            store=store,
            profiles=profiles,
            fingerprint=fingerprint,
            train=train,
            trials=self._trials,
            note=self.note,
        )

    # What happens

    @property
    def records(self) -> list[TrialRecord]:
        """All trials, ordered by number."""
        return self._trials.in_order

    @property
    def running(self) -> list[TrialRecord]:
        """Trials that a worker has, or waits to have."""
        return self._trials.running

    @property
    def gpu_hours(self) -> float:
        """Hours that trials have occupied GPUs so far, summed over GPUs and drivers."""
        seconds = self._trials.finished_seconds + sum(self._seconds(record) for record in self._trials.unfinished)
        return seconds * self.allotment.gpus / 3600

    def note(self, message: str, *, kind: str = "note") -> None:
        """Write an event about the whole sweep down and tell it."""
        self.ledger.add_event(self.spec.name, kind, message)
        self._tell("note", None, message)

    def _tell(self, kind: str, record: TrialRecord | None, message: str = "") -> None:
        if self._listener is not None:
            self._listener(kind, record, message)

    def _update(self, number: int, **changes: Any) -> TrialRecord:
        attempt = self._trials[number].attempt
        return self._trials.put(self.ledger.update_trial(self.spec.name, number, attempt=attempt, **changes))

    def _seconds(self, record: TrialRecord) -> float:
        """Return how long workers have had a trial, the present attempt included."""
        return record.seconds + self._silence(record)

    def _silence(self, record: TrialRecord) -> float:
        """Return the seconds since a trial's worker last said something; 0 as long as it has none."""
        heard = self._heard.get(record.number)
        return 0.0 if heard is None else time.monotonic() - heard

    def _last_report(self, number: int) -> float:
        return max((point.timestamp for point in self.ledger.points(self.spec.name, number)), default=0.0)

    # What to run next

    def next_task(self) -> Task | Wait:
        """Return the next attempt to make, with its row marked as running.

        Order: trials that wait to be continued, references, new proposals, and when the search is over its finalists with the
        other seeds.
        """
        if self.closing:
            return Wait.DONE
        if len(self.running) >= self.concurrency:
            return Wait.NOT_NOW
        record = self._queued()
        while record is None or record.state.is_finished:
            proposal = self._proposals.next()
            if proposal is None:
                self.is_done = not self._trials.unfinished
                return Wait.DONE if self.is_done else Wait.NOT_NOW
            record = self._trials.put(proposal.record)
            if record.state.is_finished:
                self._on_finished_at_once(record)
            else:
                self._configs[record.number] = proposal.config
        return self._start(record)

    def _start(self, record: TrialRecord) -> Task:
        config = self._configs.get(record.number)
        if config is None:  # an earlier driver proposed it
            config = self._configs[record.number] = self.spec.train_config(record.params, seed=record.seed)
        record = self._trials.put(self.ledger.start_attempt(self.spec.name, record.number, worker=""))
        return task_of(
            record,
            config,
            spec=self.spec,
            gpus=self.allotment.gpus,
            folder=self.store.trial(record),
            train=self._train,
        )

    def _queued(self) -> TrialRecord | None:
        now = time.monotonic()
        return next((record for record in self._trials.queued if self._pauses.get(record.number, 0.0) <= now), None)

    def _on_finished_at_once(self, record: TrialRecord) -> None:
        """Take note of a new trial that needs no training."""
        if record.reused is not None and record.kind is TrialKind.SEARCH:
            for point in self.ledger.points(self.spec.name, record.number):
                self._rungs.add(record.number, point.step, point.metrics)
        if record.kind is TrialKind.SEARCH:
            self._proposals.tell(record)
        message = record.error or f"the same was trained as trial {record.reused}"
        self._tell(str(record.state), record, message)

    # What became of it

    def on_message(self, number: int, attempt: int, message: Message) -> bool:
        """Handle a worker's message.

        Args:
            number: the trial.
            attempt: the worker's attempt.
            message: see `sweeps.execution.worker.run_task`.

        Returns:
            Whether the worker must stop.
        """
        record = self._trials[number]
        if record.attempt != attempt or record.state is not TrialState.RUNNING:
            return True
        match message["event"]:
            case "started":
                self._heard[number] = time.monotonic()
                self._tell("started", self._update(number, worker=message["worker"], device=message.get("device")))
                return False
            case "point":
                return self._on_point(record, message)
            case "note":
                self.ledger.add_event(self.spec.name, "note", message["message"], number=number)
                self._tell("note", record, message["message"])
                return False
            case "finished":
                self._on_finished(record)
            case "failed":
                self._on_failed(record, FailureClass(message["failure"]), message["error"])
        return True

    def _on_point(self, record: TrialRecord, message: Message) -> bool:
        step, metrics = int(message["step"]), message["metrics"]
        if step <= record.step:
            # Trained again from a checkpoint that is older than the ledger. The decision made then stands: others have reported
            # since, who have no say in it.
            self._update(record.number, seconds=self._seconds(record))
            self._heard[record.number] = time.monotonic()
            return False
        decision = self._decide(record, step, metrics)
        # With the point: a driver that dies in between would let the trial go on although it lost here.
        changes = {"state": TrialState.PRUNED, "finished": _end_of(record)} if decision.stop else {}
        acknowledged = self.ledger.add_point(
            self.spec.name,
            record.number,
            attempt=record.attempt,
            step=step,
            timestamp=time.time(),  # by one clock with the events, whatever the clocks of the nodes say
            metrics=metrics,
            seconds=self._seconds(record),
            **changes,
        )
        if record.kind is TrialKind.SEARCH:
            self._rungs.add(record.number, step, metrics)
        if acknowledged is not None:
            self._failures.clear(record.number)
        self._heard[record.number] = time.monotonic()  # what was before is in the record now
        record = self._trials.put(acknowledged or self.ledger.trial(self.spec.name, record.number))
        self._tell("point", record)
        if decision.stop:
            self._end(record, decision.reason)
        return decision.stop

    def _decide(self, record: TrialRecord, step: int, metrics: Mapping[str, float]) -> Decision:
        value = self._rungs.value(metrics)
        if record.kind is not TrialKind.SEARCH or value is None or step >= int(record.config["steps"]):
            return CONTINUE
        compared = None
        if step in self._scheduler.rung_steps:
            settled = self._proposals.settled(record.number)
            compared = rivals(record, self._trials.records.values(), costs=self.spec.costs, settled=settled)
        return self._scheduler.decide(step, value, self._rungs.values, number=record.number, rivals=compared)

    def _on_finished(self, record: TrialRecord) -> None:
        wanted = [objective.metric for objective in self.spec.objectives]
        figures = {**record.profile, **visible_metrics(record.metrics, self.spec.selection)}
        missing = [metric for metric in wanted if metric not in figures]
        undefined = [metric for metric in wanted if metric in figures and not math.isfinite(figures[metric])]
        if missing:
            error = f"training ended without reporting {', '.join(missing)}; it reported: {', '.join(sorted(figures))}"
            self._finish(record, TrialState.FAILED, failure=FailureClass.INVALID, error=error)
        elif undefined:
            error = f"training ended with {', '.join(f'{metric} = {figures[metric]}' for metric in undefined)}"
            self._finish(record, TrialState.FAILED, failure=FailureClass.DIVERGED, error=error)
        else:
            self._finish(record, TrialState.COMPLETE)

    def _finish(
        self,
        record: TrialRecord,
        state: TrialState,
        *,
        failure: FailureClass | None = None,
        error: str | None = None,
    ) -> None:
        seconds = self._seconds(record)
        record = self._update(
            record.number, state=state, failure=failure, error=error, finished=_end_of(record), seconds=seconds
        )
        self._end(record, error or "")

    def _end(self, record: TrialRecord, message: str) -> None:
        """Tell of a trial whose end is in the ledger."""
        self._heard.pop(record.number, None)
        self._configs.pop(record.number, None)
        if record.kind is TrialKind.SEARCH:
            self._proposals.tell(record)
        if message:
            failure = record.failure if record.state is TrialState.FAILED else None
            self.ledger.add_event(self.spec.name, str(record.state), message, number=record.number, failure=failure)
        self._tell(str(record.state), record, message)

    # What failed

    def on_lost(
        self, number: int, attempt: int, error: str, *, failure: FailureClass = FailureClass.WORKER_LOST
    ) -> None:
        """Handle the end of an attempt without a last message: its process or node died.

        Args:
            number: the trial.
            attempt: the attempt that ended.
            error: one line from the executor.
            failure: what the executor knows of the cause.
        """
        record = self._trials[number]
        if record.attempt != attempt or record.state is not TrialState.RUNNING:
            return
        waited = self.spec.resources.watchdog_minutes
        # A watchdog starts when a message has been answered here, so a process that lived that long in silence was ended by it.
        # (The clocks of two machines run alike to less than a per cent.) The driver need not see the files of the worker's node.
        if failure is FailureClass.WORKER_LOST and self._silence(record) >= 0.99 * 60 * waited:
            failure = FailureClass.HANG
            error = (
                f"no report for {waited:g} minutes; {HANG_FILE} in its folder on {record.worker} shows where it stood"
            )
        self._on_failed(record, failure, error)

    def _on_failed(self, record: TrialRecord, failure: FailureClass, error: str) -> None:
        """Try again, with less memory or after a pause, or give the trial up."""
        failures = self._failures.add(record.number, failure)
        if failure is FailureClass.OUT_OF_MEMORY:
            batch_size = int(record.config["batch_size"])
            smaller = smaller_micro_batch(batch_size, record.micro_batch, processes=self.spec.resources.processes)
            if smaller is not None:
                message = f"{error}; goes on with micro-batches of {smaller}, the same batch in more passes"
                self._retry(record, failure, message, micro_batch=smaller)
                return
            error = f"{error}; {why_no_smaller(batch_size)}"
        policy = POLICIES[failure]
        if policy.retries is not None and failures > policy.retries:
            tries = f"given up after {failures} such failures without a report; last: " if failures > 1 else ""
            self._finish(record, TrialState.FAILED, failure=failure, error=f"{tries}{error}")
            return
        self._pauses[record.number] = time.monotonic() + policy.pause(failures)
        self._retry(record, failure, error)

    def _retry(self, record: TrialRecord, failure: FailureClass, error: str, **changes: Any) -> None:
        seconds = self._seconds(record)
        self._heard.pop(record.number, None)
        message = f"on {record.worker or 'an unknown worker'}: {error}"
        self.ledger.add_event(self.spec.name, RETRIED, message, number=record.number, failure=failure)
        record = self._update(
            record.number, state=TrialState.QUEUED, failure=failure, error=error, seconds=seconds, **changes
        )
        self._tell("lost", record, error)

    def release(self, reason: str) -> None:
        """Queue every running trial again, to be continued from its checkpoint.

        Args:
            reason: one line for the trial's record.
        """
        for record in self.running:
            seconds = self._seconds(record)
            self._heard.pop(record.number, None)
            self._tell("queued", self._update(record.number, state=TrialState.QUEUED, seconds=seconds), reason)


def _end_of(record: TrialRecord) -> float:
    """Return the present time as that of a trial's end, which is not before its beginning by the clock of another driver."""
    return max(time.time(), record.started or record.created)
