"""Decides what to run next and what becomes of each message; knows nothing of the executor.

The ledger is the only memory. A row is on disk before its trial is handed out, a report is on disk before the scheduler decides
on it, and a state is on disk before anybody hears of it; so a driver that dies at any moment finds everything again.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

from segda.config import TrainConfig
from segda.errors import SegdaError
from sweeps.execution.early_end import EarlyEnd
from sweeps.execution.proposals import Proposal, Proposals
from sweeps.execution.requeue import take_up_again
from sweeps.execution.retries import Retries
from sweeps.execution.task import DEFAULT_TRAIN, Task, task_of
from sweeps.execution.trials import Trials
from sweeps.execution.verdict import fault_of
from sweeps.execution.watchdog import HANG_FILE
from sweeps.execution.worker import Message, classify
from sweeps.execution.worker_time import WorkerTime
from sweeps.failures import POLICIES, FailureClass, summary
from sweeps.file.prices import prices_of
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import RETRIED, STARTED, Allotment, attempt_text
from sweeps.planning.profiles import Architecture, Profile
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
    says; `is_done` says that nothing is left to do, `stalled` that there is, and why nobody can do it now. A listener hears (kind,
    trial, message); kinds are `started`, `point`, `complete`, `pruned`, `infeasible`, `failed`, `lost`, `queued` and `note`.
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take over a sweep from its ledger.

        Trials that were running are queued, since their driver is gone, and so are those that the machines failed for good.

        Args:
            spec: the sweep, whose row exists in the ledger.
            allotment: what its trials get.
            ledger: where it is kept.
            store: where its files go.
            profiles: efficiency of every architecture that it can reach.
            fingerprint: hash of the data that a configuration reads.
            listener: hears what happens.
            train: training function as `module:name`.
            clock: seconds from any beginning.

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
        self._prices = prices_of(spec, gpus=allotment.gpus)
        self._left_over: str | None = None
        self._listener = listener
        self._train = train
        again = take_up_again(ledger, spec.name)
        self._trials = Trials(ledger.trials(spec.name))
        unfinished = {record.number for record in self._trials.unfinished}
        self._retries = Retries(
            spec.resources,
            (event for event in ledger.events(spec.name) if event.number in unfinished),
            last_report=self._last_report,
            say=self.note,
            clock=clock,
        )
        self._configs: dict[int, TrainConfig] = {}  # open trial -> its training configuration
        self._time = WorkerTime(clock)
        self._early_end = EarlyEnd(spec, trials=self._trials, ledger=ledger)
        for record in again:
            self._tell("queued", record, "the machines had failed it, not its configuration")
        self.release("its driver ended before it did")
        self._proposals = Proposals(
            spec,
            allotment=allotment,
            ledger=ledger,
            store=store,
            profiles=profiles,
            fingerprint=fingerprint,
            train=train,
            trials=self._trials,
            early_end=self._early_end,
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
        return sum(seconds for _, seconds in self._worked()) * self.allotment.gpus / 3600

    @property
    def cost(self) -> float:
        """Money that trials have cost so far, over all drivers; 0 without prices."""
        if self._prices is None:
            return 0.0
        return sum(self._prices.paid(seconds, device) for device, seconds in self._worked())

    def _worked(self) -> Iterator[tuple[str | None, float]]:
        """Yield devices and how long trials have had each."""
        yield from self._trials.finished_seconds.items()
        for record in self._trials.unfinished:
            yield record.device, self._time.seconds(record)

    @property
    def stalled(self) -> str | None:
        """Why nobody can do now what is left to do, as one line: the machines are in the way. None: somebody can, or nothing is."""
        return self._left_over or self._retries.outage.verdict(
            anybody_trains=any(record.worker for record in self.running)
        )

    def note(self, message: str, kind: str = "note") -> None:
        """Write an event about the whole sweep down and tell it."""
        self.ledger.add_event(self.spec.name, kind, message)
        self._tell("note", None, message)

    def _tell(self, kind: str, record: TrialRecord | None, message: str = "") -> None:
        if self._listener is not None:
            self._listener(kind, record, message)

    def _update(self, number: int, **changes: Any) -> TrialRecord:
        attempt = self._trials[number].attempt
        return self._trials.put(self.ledger.update_trial(self.spec.name, number, attempt=attempt, **changes))

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
        if len(self.running) >= self.concurrency or not self._retries.outage.may_hand_out:
            return Wait.NOT_NOW
        record = self._retries.choose(self._trials.queued, new=len(self._trials.records))
        while record is None or record.state.is_finished:
            proposal = self._propose()
            if proposal is Wait.NOT_NOW:
                return proposal
            if proposal is Wait.DONE:
                record = self._retries.choose(self._trials.queued)
                return self._rest() if record is None else self._start(record)
            record = self._trials.put(proposal.record)
            if record.state.is_finished:
                self._on_finished_at_once(record)
            else:
                self._configs[record.number] = proposal.config
        return self._start(record)

    def _propose(self) -> Proposal | Wait:
        """Return the next new trial; DONE: there is none, or none before others have ended; NOT_NOW: what it reads is away."""
        try:
            return self._proposals.next() or Wait.DONE
        except (SegdaError, OSError) as error:
            failure = classify(error)
            if POLICIES[failure].blames_configuration:
                raise
            self._retries.fail_proposal(len(self._trials.records), failure, summary(error))
            return Wait.NOT_NOW

    def _rest(self) -> Wait:
        """Say that nothing is to be handed out, for now or for good."""
        if self._trials.unfinished:
            return Wait.NOT_NOW
        self._left_over = self._proposals.left_over
        self.is_done = self._left_over is None
        return Wait.DONE

    def _start(self, record: TrialRecord) -> Task:
        config = self._configs.get(record.number)
        if config is None:  # an earlier driver proposed it
            config = self._configs[record.number] = self.spec.train_config(record.params, seed=record.seed)
        record = self._trials.put(self.ledger.start_attempt(self.spec.name, record.number, worker=""))
        self._retries.outage.handed_out(record.number)
        return task_of(
            record,
            config,
            spec=self.spec,
            gpus=self.allotment.gpus,
            folder=self.store.trial(record),
            train=self._train,
        )

    def _on_finished_at_once(self, record: TrialRecord) -> None:
        """Take note of a new trial that needs no training."""
        if record.reused is not None:
            for point in self.ledger.points(self.spec.name, record.number):
                self._early_end.add(record, point.step, point.metrics)
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
                self._time.hear(number)
                worker, device = message["worker"], message.get("device")
                record = self._update(number, worker=worker, device=device)
                self.ledger.add_event(self.spec.name, STARTED, attempt_text(attempt, worker, device), number=number)
                self._tell("started", record)
                return False
            case "point":
                return self._on_point(record, message)
            case "note":
                self.ledger.add_event(self.spec.name, "note", message["message"], number=number)
                self._tell("note", record, message["message"])
                return False
            case "files":
                self.ledger.put_files(self.spec.name, number, message["digests"], attempt=attempt)
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
            self._update(record.number, seconds=self._time.seconds(record))
            self._time.hear(record.number)
            return False
        decision = self._early_end.decide(record, step, metrics, settled=self._proposals.settled)
        # With the point: a driver that dies in between would let the trial go on although it lost here.
        changes = {"state": TrialState.PRUNED, "finished": _end_of(record)} if decision.stop else {}
        acknowledged = self.ledger.add_point(
            self.spec.name,
            record.number,
            attempt=record.attempt,
            step=step,
            timestamp=time.time(),  # by one clock with the events, whatever the clocks of the nodes say
            metrics=metrics,
            seconds=self._time.seconds(record),
            **changes,
        )
        self._early_end.add(record, step, metrics)
        if acknowledged is not None:
            self._retries.reported(record.number)
        self._time.hear(record.number)
        record = self._trials.put(acknowledged or self.ledger.trial(self.spec.name, record.number))
        self._tell("point", record)
        if decision.stop:
            self._end(record, decision.reason)
        return decision.stop

    def _on_finished(self, record: TrialRecord) -> None:
        self._retries.reported(record.number)
        fault = fault_of(record, self.spec)
        if fault is None:
            self._finish(record, TrialState.COMPLETE)
        else:
            self._finish(record, TrialState.FAILED, failure=fault[0], error=fault[1])

    def _finish(
        self,
        record: TrialRecord,
        state: TrialState,
        *,
        failure: FailureClass | None = None,
        error: str | None = None,
    ) -> None:
        seconds = self._time.seconds(record)
        record = self._update(
            record.number, state=state, failure=failure, error=error, finished=_end_of(record), seconds=seconds
        )
        self._end(record, error or "")

    def _end(self, record: TrialRecord, message: str) -> None:
        """Tell of a trial whose end is in the ledger."""
        self._time.forget(record.number)
        self._configs.pop(record.number, None)
        self._retries.outage.ended(record.number)
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
        if failure is FailureClass.WORKER_LOST and self._time.silence(record) >= 0.99 * 60 * waited:
            failure = FailureClass.HANG
            error = (
                f"no report for {waited:g} minutes; {HANG_FILE} in its folder on {record.worker} shows where it stood"
            )
        self._on_failed(record, failure, error)

    def _on_failed(self, record: TrialRecord, failure: FailureClass, error: str) -> None:
        """Try again, with less memory or after a pause, or give the trial up."""
        answer = self._retries.answer(record, failure, error)
        if answer.is_retried:
            self._retry(record, failure, answer.message, **answer.changes)
        else:
            self._finish(record, TrialState.FAILED, failure=failure, error=answer.message)

    def _retry(self, record: TrialRecord, failure: FailureClass, error: str, **changes: Any) -> None:
        seconds = self._time.seconds(record)
        self._time.forget(record.number)
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
            seconds = self._time.seconds(record)
            self._time.forget(record.number)
            self._tell("queued", self._update(record.number, state=TrialState.QUEUED, seconds=seconds), reason)


def _end_of(record: TrialRecord) -> float:
    """Return the present time as that of a trial's end, which is not before its beginning by the clock of another driver."""
    return max(time.time(), record.started or record.created)
