"""Runs a sweep on Ray.

Ray Tune is the executor, not the memory: it starts workers where resources are free, moves their messages here and ends them.
Everything else is decided by `sweeps.execution.coordinator` over the ledger. Tune's own snapshots are never read, because they are
seconds old when a driver dies; every start is a new Tune experiment in a folder that is deleted at the end.
"""

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

# isort: off
# First: it sets what Ray and Tune read when they are imported.
from sweeps.execution.cluster import check_admission, connected, idle_node, profiles_of

# isort: on

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from segda.config import TrainConfig
from segda.errors import DeviceError
from segda.splits import data_fingerprint
from sweeps import exit_codes
from sweeps.execution.capacity import Capacity, say_idle_gpus
from sweeps.execution.coordinator import Coordinator, Listener, Wait
from sweeps.execution.guests import guests_of, note_guests
from sweeps.execution.long_waits import LongWaits
from sweeps.execution.lost_workers import classify_loss, describe_loss, error_of
from sweeps.execution.ray_processes import RayLostError, RayWatch
from sweeps.execution.signals import Signals
from sweeps.execution.task import DEFAULT_TRAIN, Task
from sweeps.execution.worker import run_task
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import LeaseLostError, Ledger
from sweeps.ledger.lease import Lease
from sweeps.ledger.records import STALLED, Allotment, SweepState
from sweeps.metrics import has_doubts
from sweeps.planning.machines import request_of, stated
from sweeps.planning.packing import pack_trials
from sweeps.planning.profiles import sample_config
from sweeps.selection.shortfall import shortfall_of
from sweeps.store import Store
from sweeps.trial import TrialRecord, TrialState

_POLL_SECONDS = 0.2  # between two looks at Ray
_CLEANUP_SECONDS = 60  # that a stopped trial may take before its worker counts as stuck


@dataclass(frozen=True)
class SweepOutcome:
    """How a call of `run_sweep` ended.

    Attributes:
        name: the sweep.
        trials: all its trials, ordered by number.
        is_done: whether nothing is left to do.
        interrupted: the signal that ended it early, if any.
        is_lost: whether the end of Ray's own processes ended it, or what was left of it; this process too is ended by Ray then,
            within a minute.
        stop_requested: whether `sweeps stop` ended it early.
        is_stalled: whether the machines are in the way of what is left to do.
        reason: why it ended before it was done, one line.
        shortfall: why its result is not what was asked for although its budget is used, one line.
    """

    name: str
    trials: tuple[TrialRecord, ...]
    is_done: bool = True
    interrupted: signal.Signals | None = None
    is_lost: bool = False
    stop_requested: bool = False
    is_stalled: bool = False
    reason: str | None = None
    shortfall: str | None = None

    @property
    def exit_code(self) -> int:
        """Exit code of a program that ran it, see `sweeps.exit_codes`.

        0 also after `sweeps stop`: whoever starts programs again that were interrupted must not undo what a person wanted.
        """
        is_ended = self.interrupted is not None or (self.is_lost and not self.stop_requested)
        if is_ended or self.is_stalled:
            return exit_codes.STOPPED
        return exit_codes.DONE if self.shortfall is None else exit_codes.FELL_SHORT


def run_sweep(
    spec: SweepSpec,
    *,
    ledger: Ledger,
    store: Store,
    address: str | None = None,
    train: str = DEFAULT_TRAIN,
    fingerprint: Callable[[TrainConfig], str] = data_fingerprint,
    listener: Listener | None = None,
    admitted: Callable[[], None] = lambda: None,
) -> SweepOutcome:
    """Run a sweep until its budget is spent, or go on with it.

    Finished trials are never run again. Trials that ran when an earlier driver ended continue from their checkpoints.

    Args:
        spec: the sweep; its row must be in the ledger.
        ledger: where its state is kept.
        store: where its files go; every node sees it under the same path.
        address: Ray cluster to use, e.g. `auto`; unset: this machine alone. A connection that the process already has is used.
        train: training function as `module:name`, importable in the workers; called like `segda.train`.
        fingerprint: hash of the data that a configuration reads; decodes them into the cache, so that workers find them.
        listener: hears what happens, see `Coordinator`.
        admitted: is called once, when nothing can be refused any more: this process drives the sweep, the cluster can run its
            trials, and its search accepts those that are there.

    Returns:
        How it ended; SIGINT, SIGTERM, SIGHUP, `sweeps stop` and the end of Ray end it early with its running trials queued again,
        and so does an outage that lasts (`sweeps.execution.outage`).

    Raises:
        ConfigError: another process runs the sweep, the cluster cannot be reached, or no architecture meets the constraints.
        LeaseLostError: another process has taken the sweep over; nothing of it was touched since.
        KeyboardInterrupt: there was a second SIGINT.
        DeviceError: no node can ever run a trial.
        SegdaError: data cannot be used.
    """
    guests = guests_of(spec)
    lease = Lease(ledger, spec.name)
    clock = _Clock(spent=ledger.sweep(spec.name).seconds)
    with Signals() as signals, lease.held(lambda: clock.seconds), signals.connection() as connection:

        def check() -> None:
            """End what waits for an idle node; nothing has been handed out yet."""
            if lease.is_lost:
                raise LeaseLostError(spec.name)
            if lease.stop_requested:
                raise KeyboardInterrupt

        try:
            with signals.ending_at_once():
                watch = connection.enter_context(connected(address))
                signals.listen()  # Ray takes SIGTERM for itself when it starts
                allotment = _allotment(spec, ledger, listener, check)
                check_admission(spec.resources, gpus=allotment.gpus)
                fingerprint(sample_config(spec))
                profiles = profiles_of(spec, ledger, listener, gpus=allotment.gpus, check=check)
        except RayLostError as error:
            signals.lost = str(error)
            return _leave(spec.name, ledger=ledger, lease=lease, signals=signals)
        except KeyboardInterrupt:
            if signals.is_hard or _asked_to_end(lease, signals) is None:
                raise
            return _leave(spec.name, ledger=ledger, lease=lease, signals=signals)
        coordinator = Coordinator(
            spec,
            allotment=allotment,
            ledger=ledger,
            store=store,
            profiles=profiles,
            fingerprint=fingerprint,
            listener=listener,
            train=train,
        )
        admitted()
        note_guests(spec, guests, ledger=ledger, listener=listener)
        ledger.update_sweep(spec.name, state=SweepState.RUNNING)
        if spec.resources.gpus != "auto":
            say_idle_gpus(coordinator)
        stopper = _Stopper(coordinator, clock, lease, signals)
        state = SweepState.FAILED
        try:
            if stopper.reason is None:
                signals.lost = _execute(coordinator, stopper, Capacity(coordinator), watch)
            state = stopper.state
            if state is SweepState.STALLED:
                coordinator.note(str(stopper.reason), STALLED)
            if coordinator.is_done and any(has_doubts(profile.metrics) for profile in profiles.values()):
                _measure_again(coordinator, stopper, listener)
        except KeyboardInterrupt:
            state = SweepState.INTERRUPTED
            raise
        finally:
            coordinator.closing = True
            # If another process has taken over, the ledger refuses this, and that process' files are left alone.
            coordinator.release(stopper.reason or "its driver failed")
            ledger.update_sweep(spec.name, state=state)
            shutil.rmtree(store.executor(spec.name), ignore_errors=True)
        is_used = state in (SweepState.FINISHED, SweepState.OUT_OF_BUDGET)
        trials = tuple(ledger.trials(spec.name))
        return SweepOutcome(
            name=spec.name,
            trials=trials,
            is_done=coordinator.is_done,
            interrupted=None if lease.stop_requested else signals.by,
            is_lost=signals.lost is not None,
            stop_requested=lease.stop_requested,
            is_stalled=state is SweepState.STALLED,
            reason=stopper.reason,
            shortfall=shortfall_of(trials, spec) if is_used else None,
        )


def _asked_to_end(lease: Lease, signals: Signals) -> str | None:
    """Return what ends the sweep whatever it has left, or None; a person's wish counts more than that of a machine."""
    if lease.stop_requested:
        return "stopped by sweeps stop"
    return signals.lost if signals.by is None else f"stopped by {signals.by.name}"


def _leave(name: str, *, ledger: Ledger, lease: Lease, signals: Signals) -> SweepOutcome:
    """End before anything was handed out; what a former driver left running waits to be continued."""
    for record in ledger.trials(name):
        if record.state is TrialState.RUNNING:
            ledger.update_trial(name, record.number, state=TrialState.QUEUED)
    ledger.update_sweep(name, state=SweepState.INTERRUPTED)
    return SweepOutcome(
        name=name,
        trials=tuple(ledger.trials(name)),
        is_done=False,
        interrupted=None if lease.stop_requested else signals.by,
        is_lost=signals.lost is not None,
        stop_requested=lease.stop_requested,
        reason=_asked_to_end(lease, signals),
    )


def _allotment(spec: SweepSpec, ledger: Ledger, listener: Listener | None, check: Callable[[], None]) -> Allotment:
    """Return what trials get; what is found for `gpus: auto` is kept in the sweep's info for readers of the ledger."""
    if spec.resources.gpus != "auto":
        return stated(spec)

    def say(line: str) -> None:
        if listener is not None:
            listener("note", None, line)

    with idle_node(spec, say=say, check=check) as machines:
        found = pack_trials(spec, ledger=ledger, machines=machines, say=say)
    before = ledger.sweep(spec.name).info.allotment
    if spec.sampler.reproducible and before is not None:
        # Its proposals depend on how many trials were open at once when it began.
        found = replace(found, concurrency=before.concurrency)
    ledger.update_info(spec.name, allotment=found)
    return found


class _Enough(Exception):
    """The sweep is to end now."""


def _measure_again(coordinator: Coordinator, stopper: "_Stopper", listener: Listener | None) -> None:
    """Measure once more what was measured in company: no trial of the sweep computes any more, others may have ended too."""

    def check() -> None:
        if stopper.reason is not None:
            raise _Enough

    spec, gpus = coordinator.spec, coordinator.allotment.gpus
    with contextlib.suppress(_Enough, DeviceError):  # the next start of the sweep does it
        profiles_of(spec, coordinator.ledger, listener, gpus=gpus, is_patient=False, check=check)


def _execute(coordinator: Coordinator, stopper: "_Stopper", capacity: Capacity, watch: RayWatch) -> str | None:
    """Let Tune run trials until the sweep is to end, and return None; or what is lost of Ray, as soon as it is.

    In a thread of its own, because Tune may be deep in a call then from which it does not return.
    """
    failures: list[BaseException] = []

    def execute() -> None:
        try:
            _tune(coordinator, stopper, capacity)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=execute, name="tune", daemon=True)
    thread.start()
    while thread.is_alive() and watch.look() is None:
        thread.join(_POLL_SECONDS)
    if watch.look() is None and failures:
        raise failures[0]
    return watch.lost


def _tune(coordinator: Coordinator, stopper: "_Stopper", capacity: Capacity) -> None:
    resources, gpus = coordinator.spec.resources, coordinator.allotment.gpus
    folder = coordinator.store.executor(coordinator.spec.name)
    folder.mkdir(parents=True, exist_ok=True)
    tune.Tuner(
        tune.with_resources(
            _trainable(),
            # One bundle: the processes of a trial share one node.
            tune.PlacementGroupFactory([request_of(resources, gpus=gpus)]),
        ),
        tune_config=tune.TuneConfig(
            search_alg=_Proposer(coordinator, capacity, stopper),
            scheduler=_Scheduler(coordinator, stopper),
            num_samples=-1,
            # A new process per trial gives all GPU memory back; on the CPU it would only cost the imports.
            reuse_actors=not gpus,
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
    work, report, task_type, cleanup_seconds = run_task, tune.report, Task, _CLEANUP_SECONDS

    def attempt(config: dict[str, Any]) -> None:
        # How long it may clean up when it is stopped. Tune waits 2 s unless told otherwise, then fails the trial that comes next.
        os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = str(cleanup_seconds)
        work(task_type(**json.loads(config["task"])), lambda message: report({"message": json.dumps(message)}))

    return attempt


class _Proposer(Searcher):  # type: ignore[misc]
    """Tune asks it for work; it asks the coordinator."""

    def __init__(self, coordinator: Coordinator, capacity: Capacity, stopper: "_Stopper") -> None:
        super().__init__()
        self._coordinator = coordinator
        self._capacity = capacity
        self._stopper = stopper

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        # As long as no trial is open Tune asks nobody but this, for ten minutes.
        self._stopper.stop_all()
        self._capacity.poll()
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
        left_out = ("_coordinator", "_capacity", "_stopper")
        return {key: value for key, value in self.__dict__.items() if key not in left_out}


class _Scheduler(FIFOScheduler):  # type: ignore[misc]
    """Tune tells it what workers say; it tells the coordinator and hands its decisions back."""

    def __init__(self, coordinator: Coordinator, stopper: "_Stopper") -> None:
        super().__init__()
        self._coordinator = coordinator
        self._stopper = stopper

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
        if self._stopper.reason is not None:
            return  # what ends the sweep may have ended the worker too; its trial is put back without a mark
        error = error_of(trial)
        self._coordinator.on_lost(
            trial.config["number"], trial.config["attempt"], describe_loss(error), failure=classify_loss(error)
        )

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_coordinator", "_stopper")}


class _Stopper(tune.Stopper):  # type: ignore[misc]
    """Tune asks it several times a second whether to end; signals, requests and budgets are heard here."""

    def __init__(self, coordinator: Coordinator, clock: "_Clock", lease: Lease, signals: Signals) -> None:
        self._coordinator = coordinator
        self._clock = clock
        self._lease = lease
        self._signals = signals
        self._long_waits = LongWaits(coordinator)

    @property
    def reason(self) -> str | None:
        """Why the sweep must end now, or None."""
        if self._lease.is_lost:
            return "another process has taken over"
        return _asked_to_end(self._lease, self._signals) or self._spent() or self._coordinator.stalled

    @property
    def state(self) -> SweepState:
        """What becomes of the sweep if it ends now."""
        if self._coordinator.is_done:
            return SweepState.FINISHED
        if _asked_to_end(self._lease, self._signals) is not None:
            return SweepState.INTERRUPTED
        if self._spent() is not None:
            return SweepState.OUT_OF_BUDGET
        return SweepState.INTERRUPTED if self._coordinator.stalled is None else SweepState.STALLED

    def _spent(self) -> str | None:
        budget = self._coordinator.spec.budget
        if budget.hours is not None and self._clock.seconds >= budget.hours * 3600:
            return "budget.hours is spent"
        if budget.gpu_hours is not None and self._coordinator.gpu_hours >= budget.gpu_hours:
            return "budget.gpu_hours is spent"
        if budget.cost is not None and self._coordinator.cost >= budget.cost:
            return "budget.cost is spent"
        return None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self.reason is not None:
            self._coordinator.closing = True
        else:
            self._long_waits.poll()
        return self._coordinator.closing

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Clock:
    """Time that a sweep has spent over all its drivers."""

    def __init__(self, *, spent: float) -> None:
        self._before = spent
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._start
