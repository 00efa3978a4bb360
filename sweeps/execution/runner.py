"""Runs a sweep on Ray.

Ray Tune is the executor, not the memory: it starts workers where resources are free, moves their messages here and ends them.
Everything else is decided by `sweeps.execution.coordinator` over the ledger. Tune's own snapshots are never read, because they are
seconds old when a driver dies; every start is a new Tune experiment in a folder that is deleted at the end.
"""

import contextlib
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

# isort: off
# First: it sets what Ray and Tune read when they are imported.
from sweeps.execution.cluster import check_admission, connected, describe_cluster, idle_node, profiles_of, request_of

# isort: on

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from segda.config import TrainConfig
from segda.errors import ConfigError
from segda.splits import data_fingerprint
from sweeps import exit_codes
from sweeps.execution.coordinator import Coordinator, Listener, Wait
from sweeps.execution.worker import DEFAULT_TRAIN, Task, run_task
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import Lease
from sweeps.planning.packing import noted, pack_trials
from sweeps.planning.profiles import sample_config
from sweeps.spec import SweepSpec
from sweeps.store import Store
from sweeps.trial import FailureClass, TrialRecord

_WAITING_AFTER = 60.0  # seconds without a worker after which that is said


@dataclass(frozen=True)
class SweepOutcome:
    """How a call of `run_sweep` ended.

    Attributes:
        name: the sweep.
        trials: all its trials, ordered by number.
        is_done: whether nothing is left to do.
        interrupted: the signal that ended it early, if any; `sweeps stop` counts as SIGTERM.
        reason: why it ended before it was done, one line.
    """

    name: str
    trials: tuple[TrialRecord, ...]
    is_done: bool = True
    interrupted: signal.Signals | None = None
    reason: str | None = None

    @property
    def exit_code(self) -> int:
        """Exit code of a program that ran it: 0, 130 after Ctrl-C, 75 after SIGTERM."""
        if self.interrupted is None:
            return 0
        return exit_codes.INTERRUPTED if self.interrupted is signal.SIGINT else exit_codes.STOPPED


def run_sweep(
    spec: SweepSpec,
    *,
    ledger: Ledger,
    store: Store,
    address: str | None = None,
    train: str = DEFAULT_TRAIN,
    fingerprint: Callable[[TrainConfig], str] = data_fingerprint,
    listener: Listener | None = None,
) -> SweepOutcome:
    """Run a sweep until its budget is spent, or go on with it.

    Finished trials are never run again. Trials that ran when an earlier driver ended continue from their checkpoints.

    Args:
        spec: the sweep; its row must be in the ledger.
        ledger: where its state is kept.
        store: where its files go; every node sees it under the same path.
        address: Ray cluster to use, e.g. `auto`; unset: this machine alone. A connection that the process already has is used.
        train: training function as `module:name`, importable in the workers; called like `segda.train.train`.
        fingerprint: hash of the data that a configuration reads; decodes them into the cache, so that workers find them.
        listener: hears what happens, see `Coordinator`.

    Returns:
        How it ended; SIGINT and SIGTERM end it early with its running trials queued again.

    Raises:
        ConfigError: another process runs the sweep, the cluster cannot be reached, or no architecture meets the constraints.
        DeviceError: no node can ever run a trial.
        SegdaError: data cannot be used.
    """
    lease = Lease(ledger, spec.name)
    clock = _Clock(spent=float(ledger.sweep(spec.name).info.get("seconds", 0.0)))
    with lease.held(lambda: clock.seconds), connected(address), _signals() as received:
        spec = _packed(spec, ledger, listener)
        check_admission(spec.resources)
        fingerprint(sample_config(spec))
        coordinator = Coordinator(
            spec,
            ledger=ledger,
            store=store,
            profiles=profiles_of(spec, ledger, listener),
            fingerprint=fingerprint,
            listener=listener,
            train=train,
        )
        ledger.update_sweep(spec.name, state="running")
        stopper = _Stopper(coordinator, clock, lease, received)
        try:
            if stopper.reason is None:
                _execute(coordinator, stopper)
        finally:
            shutil.rmtree(store.executor(spec.name), ignore_errors=True)
            if not lease.is_lost:
                coordinator.release(stopper.reason or "its driver failed")
                state = "finished" if coordinator.is_done else "out_of_budget" if stopper.is_spent else "interrupted"
                ledger.update_sweep(spec.name, state=state)
        if lease.is_lost:
            raise ConfigError(f"another process has taken over sweep {spec.name!r}; this one has ended without harm")
        return SweepOutcome(
            name=spec.name,
            trials=tuple(coordinator.records),
            is_done=coordinator.is_done,
            interrupted=signal.SIGTERM if lease.stop_requested and received.by is None else received.by,
            reason=stopper.reason,
        )


def _packed(spec: SweepSpec, ledger: Ledger, listener: Listener | None) -> SweepSpec:
    """Replace `gpus: auto` by a number, which readers of the ledger find in the sweep's info."""
    if spec.resources.gpus != "auto":
        return spec
    with idle_node(spec) as machines:
        spec = pack_trials(
            spec,
            ledger=ledger,
            gpus=machines.gpus,
            call=machines.call,
            say=lambda line: listener("note", None, line) if listener is not None else None,
        )
    ledger.update_info(spec.name, **noted(spec))
    return spec


def _execute(coordinator: Coordinator, stopper: "_Stopper") -> None:
    resources = coordinator.spec.resources
    folder = coordinator.store.executor(coordinator.spec.name)
    folder.mkdir(parents=True, exist_ok=True)
    tune.Tuner(
        tune.with_resources(
            _trainable(),
            # One bundle: the processes of a trial share one node.
            tune.PlacementGroupFactory([request_of(resources)]),
        ),
        tune_config=tune.TuneConfig(
            search_alg=_Proposer(coordinator),
            scheduler=_Scheduler(coordinator),
            num_samples=-1,
            # A new process per trial gives all GPU memory back; on the CPU it would only cost the imports.
            reuse_actors=not resources.num_gpus,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            stop=stopper,
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    ).fit()


def _trainable() -> Callable[[dict[str, Any]], None]:
    """Return the function that runs one attempt in a Tune worker; messages travel as JSON, which Tune hands on untouched.

    A nested function travels by value: workers start seconds sooner because they need not import this module.
    """
    work, report, task_type = run_task, tune.report, Task

    def attempt(config: dict[str, Any]) -> None:
        work(task_type(**json.loads(config["task"])), lambda message: report({"message": json.dumps(message)}))

    return attempt


class _Proposer(Searcher):  # type: ignore[misc]
    """Tune asks it for work; it asks the coordinator."""

    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__()
        self._coordinator = coordinator

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        task = self._coordinator.next_task()
        if isinstance(task, Wait):
            return str(Searcher.FINISHED) if task is Wait.DONE else None
        return {"number": task.number, "attempt": task.attempt, "task": json.dumps(task.plain())}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: `_Scheduler` hears of every end, with its cause."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger remembers."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles it beside its snapshots; database connections and credentials do not belong there.
        return {key: value for key, value in self.__dict__.items() if key != "_coordinator"}


class _Scheduler(FIFOScheduler):  # type: ignore[misc]
    """Tune tells it what workers say; it tells the coordinator and hands its decisions back."""

    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__()
        self._coordinator = coordinator

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        message = result.get("message")
        if message is None:
            return str(FIFOScheduler.CONTINUE)
        stop = self._coordinator.on_message(trial.config["number"], trial.config["attempt"], json.loads(message))
        return str(FIFOScheduler.STOP if stop else FIFOScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        # Without effect when the last message was handled, which is the rule.
        self._coordinator.on_lost(trial.config["number"], trial.config["attempt"], "it ended without a last message")

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        error = trial.get_pickled_error() or trial.get_error() or "its process died"
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # A dead actor's message begins with its cause, a traceback ends with it.
        line = lines[0] if isinstance(error, ray.exceptions.RayActorError) else lines[-1]
        self._coordinator.on_lost(
            trial.config["number"], trial.config["attempt"], line[:500], failure=_classify_loss(error)
        )

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_coordinator"}


def _classify_loss(error: object) -> FailureClass:
    """Tell a lost machine from a lost process."""
    # An actor that cannot be reached any more: its raylet is gone, whatever became of the process.
    if isinstance(error, ray.exceptions.NodeDiedError | ray.exceptions.ActorUnavailableError):
        return FailureClass.NODE_LOST
    if not isinstance(error, ray.exceptions.RayActorError):
        return FailureClass.WORKER_LOST
    if error.preempted:
        return FailureClass.PREEMPTED
    # Ray tells this cause in the text alone.
    return FailureClass.NODE_LOST if "its node has died" in str(error) else FailureClass.WORKER_LOST


class _Stopper(tune.Stopper):  # type: ignore[misc]
    """Tune asks it several times a second whether to end; signals, requests and budgets are heard here."""

    def __init__(self, coordinator: Coordinator, clock: "_Clock", lease: Lease, received: "_Received") -> None:
        self._coordinator = coordinator
        self._clock = clock
        self._lease = lease
        self._received = received
        self._said_waiting: set[tuple[int, int]] = set()

    @property
    def reason(self) -> str | None:
        """Why the sweep must end now, or None."""
        if self._lease.is_lost:
            return "another process has taken over"
        if self._received.by is not None:
            return f"stopped by {self._received.by.name}"
        if self._lease.stop_requested:
            return "stopped by `sweeps stop`"
        return self._spent()

    @property
    def is_spent(self) -> bool:
        """Whether a budget ends the sweep."""
        return self._received.by is None and not self._lease.stop_requested and self._spent() is not None

    def _spent(self) -> str | None:
        budget = self._coordinator.spec.budget
        if budget.hours is not None and self._clock.seconds >= budget.hours * 3600:
            return "budget.hours is spent"
        if budget.gpu_hours is not None and self._coordinator.gpu_hours >= budget.gpu_hours:
            return "budget.gpu_hours is spent"
        return None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self.reason is not None:
            self._coordinator.closing = True
        else:
            self._say_waiting()
        return self._coordinator.closing

    def _say_waiting(self) -> None:
        # Tune waits in silence for resources that a cluster does not have any more.
        for record in self._coordinator.running:
            attempt = (record.number, record.attempt)
            since = self._clock.seconds_since_first_sight(attempt)
            if not record.worker and since > _WAITING_AFTER and attempt not in self._said_waiting:
                self._said_waiting.add(attempt)
                self._coordinator.note(
                    f"trial {record.number} has waited {since:.0f} s for a worker; the cluster has {describe_cluster()}"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Clock:
    """Time that a sweep has spent over all its drivers."""

    def __init__(self, *, spent: float) -> None:
        self._before = spent
        self._start = time.monotonic()
        self._first_sight: dict[tuple[int, int], float] = {}

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._start

    def seconds_since_first_sight(self, attempt: tuple[int, int]) -> float:
        return time.monotonic() - self._first_sight.setdefault(attempt, time.monotonic())


@dataclass
class _Received:
    by: signal.Signals | None = None


@contextlib.contextmanager
def _signals() -> Iterator[_Received]:
    """Note the first SIGINT or SIGTERM; the second one interrupts at once."""
    received = _Received()
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if received.by is not None:
            raise KeyboardInterrupt
        received.by = signal.Signals(number)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
