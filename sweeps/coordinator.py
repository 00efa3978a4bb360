"""Decides what to run next and what becomes of each message; knows nothing of the executor.

The ledger is the only memory. A row is on disk before its trial is handed out, a report is on disk before the scheduler decides
on it, and a state is on disk before anybody hears of it; so a driver that dies at any moment finds everything again.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from segda.config import TrainConfig
from segda.errors import ConfigError
from segda.tunable import Scalar
from sweeps.ledger import Ledger
from sweeps.profiles import Architecture, Profile
from sweeps.scheduler import Asha, NoScheduler, build_scheduler
from sweeps.search import Search
from sweeps.selection import rank, visible_metrics
from sweeps.space import SearchSpace
from sweeps.spec import SweepSpec
from sweeps.store import Store
from sweeps.trial import FailureClass, TrialKind, TrialRecord, TrialState, trial_key
from sweeps.worker import DEFAULT_TRAIN, Message, Task

MAX_LOST = 3  # attempts of one trial that may die with their worker
MAX_INFEASIBLE_IN_A_ROW = 50  # proposals that break a constraint before the search counts as exhausted

Listener = Callable[[str, TrialRecord | None, str], None]


class Wait(Enum):
    """Why there is no task."""

    NOT_NOW = "not now"  # ask again: something runs whose end may bring more
    DONE = "done"


class Coordinator:
    """Owner of a running sweep's decisions; used by one thread.

    Set `closing` to hand nothing more out; `is_done` says that nothing is left to do. A listener hears (kind, trial, message);
    kinds are `started`, `point`, `complete`, `pruned`, `infeasible`, `failed`, `lost`, `queued` and `note`.
    """

    def __init__(
        self,
        spec: SweepSpec,
        *,
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
            ledger: where it is kept.
            store: where its files go.
            profiles: efficiency of every architecture that it can reach.
            fingerprint: hash of the data that a configuration reads.
            listener: hears what happens.
            train: training function as `module:name`.

        Raises:
            ConfigError: no architecture satisfies the constraints.
        """
        self.spec = spec
        self.ledger = ledger
        self.store = store
        self._profiles = profiles
        self._fingerprint = fingerprint
        self._fingerprints: dict[str, str] = {}
        self._listener = listener
        self._train = train
        self._records = {record.number: record for record in ledger.trials(spec.name)}
        self._lost = Counter(event.number for event in ledger.events(spec.name) if event.kind == "lost")
        self._infeasible_in_a_row = 0
        self._is_search_over = False
        self._finalists: list[TrialRecord] | None = None
        self._check_feasible()
        self.release("its driver ended before it did")
        self._search = Search(spec, SearchSpace.from_spec(spec), list(self._records.values()))
        self._scheduler: Asha | NoScheduler = build_scheduler(spec)
        self.closing = False
        self.is_done = False

    # What happens

    @property
    def records(self) -> list[TrialRecord]:
        """All trials, ordered by number."""
        return [self._records[number] for number in sorted(self._records)]

    @property
    def running(self) -> list[TrialRecord]:
        """Trials that a worker has, or waits to have."""
        return [record for record in self._records.values() if record.state is TrialState.RUNNING]

    def note(self, message: str, *, kind: str = "note") -> None:
        """Write an event about the whole sweep down and tell it."""
        self.ledger.add_event(self.spec.name, kind, message)
        self._tell("note", None, message)

    def _tell(self, kind: str, record: TrialRecord | None, message: str = "") -> None:
        if self._listener is not None:
            self._listener(kind, record, message)

    def _update(self, number: int, **changes: Any) -> TrialRecord:
        self.ledger.update_trial(self.spec.name, number, **changes)
        self._records[number] = self.ledger.trial(self.spec.name, number)
        return self._records[number]

    # What to run next

    def next_task(self) -> Task | Wait:
        """Return the next attempt to make, with its row marked as running.

        Order: trials that wait to be continued, references, new proposals, and when the search is over its finalists with the
        other seeds.
        """
        if self.closing:
            return Wait.DONE
        running = len(self.running)
        if running >= self.spec.budget.concurrency:
            return Wait.NOT_NOW
        record = self._queued() or self._reference() or self._proposal() or self._replicate()
        if record is not None:
            return self._start(record)
        self.is_done = not running
        return Wait.DONE if self.is_done else Wait.NOT_NOW

    def _start(self, record: TrialRecord) -> Task:
        attempt = self.ledger.start_attempt(self.spec.name, record.number, worker="")
        record = self._records[record.number] = self.ledger.trial(self.spec.name, record.number)
        # Places (roots, cache) come from the sweep file at hand: data sets may have moved since the row was written.
        config = self.spec.train_config(record.params, seed=record.seed)
        if config.device == "auto" and self.spec.resources.gpus == 0:
            config = config.model_copy(update={"device": "cpu"})
        return Task(
            number=record.number,
            attempt=attempt,
            acknowledged=record.step,
            folder=str(self.store.trial(record)),
            config=config.model_dump(mode="json"),
            threads=max(1, int(self.spec.resources.cpus)),
            train=self._train,
        )

    def _queued(self) -> TrialRecord | None:
        return next((record for record in self.records if record.state is TrialState.QUEUED), None)

    def _reference(self) -> TrialRecord | None:
        known = {record.name for record in self.records if record.kind is TrialKind.REFERENCE}
        for name, params in self.spec.references.items():
            if name not in known:
                return self._add(TrialKind.REFERENCE, params, seed=self.spec.seeds[0], name=name)
        return None

    def _proposal(self) -> TrialRecord | None:
        while not self._is_search_over and self._num_proposed() < self.spec.budget.trials:
            if self._search.is_exhausted:
                self._end_search(
                    "every combination of the search space was proposed; the budget has more trials than there are"
                )
                break
            number = len(self._records)
            params = self._search.ask(number)
            config = self.spec.train_config(params, seed=self.spec.seeds[0])
            architecture = Architecture.of(config)
            obstacle = self._profiles[architecture].obstacle(self.spec)
            if obstacle is None:
                self._infeasible_in_a_row = 0
                return self._add(TrialKind.SEARCH, params, seed=self.spec.seeds[0])
            record = self._add(
                TrialKind.SEARCH, params, seed=self.spec.seeds[0], state=TrialState.INFEASIBLE, error=obstacle
            )
            self._search.tell(record)
            self._tell("infeasible", record, obstacle)
            self._infeasible_in_a_row += 1
            if self._infeasible_in_a_row >= MAX_INFEASIBLE_IN_A_ROW:
                self._end_search(
                    f"the last {MAX_INFEASIBLE_IN_A_ROW} proposals broke a constraint; loosen it or leave architectures out "
                    "that cannot meet it"
                )
        return None

    def _end_search(self, reason: str) -> None:
        self._is_search_over = True
        self.note(f"search ended after {self._num_proposed()} trials: {reason}")

    def _num_proposed(self) -> int:
        return sum(
            record.kind is TrialKind.SEARCH and record.state is not TrialState.INFEASIBLE for record in self.records
        )

    def _replicate(self) -> TrialRecord | None:
        seeds = self.spec.seeds[1:]
        if not seeds or any(
            record.kind is TrialKind.SEARCH and not record.state.is_finished for record in self.records
        ):
            return None
        if self._finalists is None:
            self._finalists = rank(self.records, self.spec)[: self.spec.finalists]
        known = {(record.parent, record.seed) for record in self.records if record.kind is TrialKind.REPLICATE}
        for seed in seeds:
            for finalist in self._finalists:
                if (finalist.number, seed) not in known:
                    return self._add(TrialKind.REPLICATE, finalist.params, seed=seed, parent=finalist.number)
        return None

    def _add(
        self,
        kind: TrialKind,
        params: Mapping[str, Scalar],
        *,
        seed: int,
        parent: int | None = None,
        name: str | None = None,
        state: TrialState = TrialState.QUEUED,
        error: str | None = None,
    ) -> TrialRecord:
        config = self.spec.train_config(params, seed=seed)
        number = len(self._records)
        now = time.time()
        record = TrialRecord(
            sweep=self.spec.name,
            number=number,
            key=trial_key(config.canonical(), self._data(config)),
            kind=kind,
            params=dict(params),
            config=config.model_dump(mode="json"),
            seed=seed,
            state=state,
            parent=parent,
            name=name,
            profile=dict(self._profiles[Architecture.of(config)].metrics),
            error=error,
            created=now,
            finished=now if state.is_finished else None,
        )
        self.ledger.add_trial(record)
        self._records[number] = record
        return record

    def _data(self, config: TrainConfig) -> str:
        key = config.data.model_dump_json()
        if key not in self._fingerprints:
            self._fingerprints[key] = self._fingerprint(config)
        return self._fingerprints[key]

    def _check_feasible(self) -> None:
        obstacles = {architecture: profile.obstacle(self.spec) for architecture, profile in self._profiles.items()}
        if obstacles and all(obstacles.values()):
            listed = "; ".join(f"{architecture}: {obstacle}" for architecture, obstacle in obstacles.items())
            raise ConfigError(
                f"no architecture of sweep {self.spec.name!r} meets its constraints ({listed}); loosen them or search others"
            )

    # What became of it

    def on_message(self, number: int, attempt: int, message: Message) -> bool:
        """Handle a worker's message.

        Args:
            number: the trial.
            attempt: the worker's attempt.
            message: see `sweeps.worker.run_task`.

        Returns:
            Whether the worker must stop.
        """
        record = self._records[number]
        if record.attempt != attempt or record.state is not TrialState.RUNNING:
            return True
        match message["event"]:
            case "started":
                self._tell("started", self._update(number, worker=message["worker"]))
                return False
            case "point":
                return self._on_point(record, message)
            case "finished":
                self._on_finished(record)
            case "failed":
                self._finish(
                    record, TrialState.FAILED, failure=FailureClass(message["failure"]), error=message["error"]
                )
        return True

    def _on_point(self, record: TrialRecord, message: Message) -> bool:
        step, metrics = int(message["step"]), message["metrics"]
        visible = visible_metrics(metrics, self.spec.selection)
        value = visible.get(self.spec.scheduler.metric) if record.kind is TrialKind.SEARCH else None
        if value is not None and step in self._scheduler.rung_steps:
            # Before the point: once a point is acknowledged the worker does not send it again.
            self.ledger.add_rung(self.spec.name, record.number, rung=step, value=value)
        self.ledger.add_point(
            self.spec.name,
            record.number,
            attempt=record.attempt,
            step=step,
            timestamp=float(message["timestamp"]),
            metrics=metrics,
        )
        record = self._records[record.number] = self.ledger.trial(self.spec.name, record.number)
        self._tell("point", record)
        if value is None or step >= int(record.config["steps"]):
            return False
        decision = self._scheduler.decide(step, value, self.ledger.rungs(self.spec.name))
        if decision.stop:
            self._finish(record, TrialState.PRUNED, message=decision.reason)
        return bool(decision.stop)

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
        message: str = "",
    ) -> None:
        record = self._update(record.number, state=state, failure=failure, error=error, finished=time.time())
        if record.kind is TrialKind.SEARCH:
            self._search.tell(record)
        if message or error:
            self.ledger.add_event(self.spec.name, str(state), message or str(error), number=record.number)
        self._tell(str(state), record, message or error or "")

    def on_lost(self, number: int, attempt: int, error: str) -> None:
        """Handle the end of an attempt without a last message: its process or node died.

        Args:
            number: the trial.
            attempt: the attempt that ended.
            error: one line from the executor.
        """
        record = self._records[number]
        if record.attempt != attempt or record.state is not TrialState.RUNNING:
            return
        self.ledger.add_event(self.spec.name, "lost", f"worker {record.worker or 'unknown'}: {error}", number=number)
        self._lost[number] += 1
        if self._lost[number] >= MAX_LOST:
            error = f"{self._lost[number]} workers died with this trial; last: {error}"
            self._finish(record, TrialState.FAILED, failure=FailureClass.WORKER_LOST, error=error)
            return
        record = self._update(number, state=TrialState.QUEUED, failure=FailureClass.WORKER_LOST, error=error)
        self._tell("lost", record, error)

    def release(self, reason: str) -> None:
        """Queue every running trial again, to be continued from its checkpoint.

        Args:
            reason: one line for the trial's record.
        """
        for record in self.running:
            self._tell("queued", self._update(record.number, state=TrialState.QUEUED), reason)
