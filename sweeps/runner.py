"""Runs a sweep on Ray; the only file that imports it.

Ray Tune is the executor, not the memory: it starts workers where resources are free, moves their messages here and ends them.
Everything else is decided by `sweeps.coordinator` over the ledger. Tune's own snapshots are never read, because they are
seconds old when a driver dies; every start is a new Tune experiment in a folder that is deleted at the end.
"""

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

# Ray and Tune read these when they are imported or started.
os.environ.update(
    {
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU sees none
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "TUNE_WARN_THRESHOLD_S": "60",
    }
)
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from segda.config import TrainConfig
from segda.errors import ConfigError, DeviceError
from segda.splits import data_fingerprint
from sweeps.coordinator import Coordinator, Listener, Wait
from sweeps.ledger import Ledger
from sweeps.profiles import Architecture, Profile, profile_all, reachable, sample_config
from sweeps.spec import SweepSpec
from sweeps.store import Store
from sweeps.trial import TrialRecord
from sweeps.worker import DEFAULT_TRAIN, Task, run_task

EXIT_SIGTERM = 75  # what a scheduler reads as "try again later" (EX_TEMPFAIL)
EXIT_SIGINT = 130
_SAVE_TIME_EVERY = 10.0  # seconds between two records of the time spent
_WAITING_AFTER = 60.0  # seconds without a worker after which that is said


@dataclass(frozen=True)
class SweepOutcome:
    """How a call of `run_sweep` ended.

    Attributes:
        name: the sweep.
        trials: all its trials, ordered by number.
        interrupted: the signal that ended it early, if any.
        out_of_time: whether `budget.hours` ended it.
    """

    name: str
    trials: tuple[TrialRecord, ...]
    interrupted: signal.Signals | None = None
    out_of_time: bool = False

    @property
    def exit_code(self) -> int:
        """Exit code of a program that ran it: 0, 130 after Ctrl-C, 75 after SIGTERM."""
        if self.interrupted is None:
            return 0
        return EXIT_SIGINT if self.interrupted is signal.SIGINT else EXIT_SIGTERM


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
    with store.driving(spec.name), _connected(address):
        _check_admission(spec)
        sample = sample_config(spec)
        fingerprint(sample)
        coordinator = Coordinator(
            spec,
            ledger=ledger,
            store=store,
            profiles=_profiles(spec, ledger, listener),
            fingerprint=fingerprint,
            listener=listener,
            train=train,
        )
        clock = _Clock(ledger, spec)
        with _signals() as received:
            ledger.update_sweep(spec.name, state="running")
            try:
                if not clock.is_over():
                    _execute(coordinator, _Stopper(coordinator, clock, received))
            finally:
                out_of_time = clock.is_over() and received.by is None and not coordinator.is_done
                coordinator.release("the hours are spent" if out_of_time else "interrupted")
                clock.save()
                state = "out_of_time" if out_of_time else "interrupted"
                ledger.update_sweep(spec.name, state="finished" if coordinator.is_done else state)
                shutil.rmtree(store.executor(spec.name), ignore_errors=True)
        return SweepOutcome(
            name=spec.name,
            trials=tuple(coordinator.records),
            interrupted=received.by,
            out_of_time=out_of_time,
        )


def _execute(coordinator: Coordinator, stopper: "_Stopper") -> None:
    resources = coordinator.spec.resources
    folder = coordinator.store.executor(coordinator.spec.name)
    folder.mkdir(parents=True, exist_ok=True)
    request = {"cpu": resources.cpus, "gpu": resources.gpus}
    tune.Tuner(
        tune.with_resources(_trainable(), {name: amount for name, amount in request.items() if amount}),
        tune_config=tune.TuneConfig(
            search_alg=_Proposer(coordinator),
            scheduler=_Scheduler(coordinator),
            num_samples=-1,
            # A new process per trial gives all GPU memory back; on the CPU it would only cost the imports.
            reuse_actors=not resources.gpus,
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
        self._coordinator.on_lost(trial.config["number"], trial.config["attempt"], line[:500])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_coordinator"}


class _Stopper(tune.Stopper):  # type: ignore[misc]
    """Tune asks it several times a second whether to end; signals and the hours are heard here."""

    def __init__(self, coordinator: Coordinator, clock: "_Clock", received: "_Received") -> None:
        self._coordinator = coordinator
        self._clock = clock
        self._received = received
        self._said_waiting: set[tuple[int, int]] = set()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        self._clock.tick()
        if self._received.by is not None or self._clock.is_over():
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
                    f"trial {record.number} has waited {since:.0f} s for a worker; the cluster has {_describe_cluster()}"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Clock:
    """Time that a sweep has spent over all its drivers, against `budget.hours`."""

    def __init__(self, ledger: Ledger, spec: SweepSpec) -> None:
        self._ledger = ledger
        self._spec = spec
        self._before = float(ledger.sweep(spec.name).info.get("seconds", 0.0))
        self._start = self._saved = time.monotonic()
        self._first_sight: dict[tuple[int, int], float] = {}

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._start

    def is_over(self) -> bool:
        hours = self._spec.budget.hours
        return hours is not None and self.seconds >= hours * 3600

    def seconds_since_first_sight(self, attempt: tuple[int, int]) -> float:
        return time.monotonic() - self._first_sight.setdefault(attempt, time.monotonic())

    def tick(self) -> None:
        if time.monotonic() - self._saved > _SAVE_TIME_EVERY:
            self.save()

    def save(self) -> None:
        self._saved = time.monotonic()
        info = dict(self._ledger.sweep(self._spec.name).info)
        self._ledger.update_sweep(self._spec.name, info=info | {"seconds": self.seconds})


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


# The cluster


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connect to Ray, or start it on this machine; a connection of the caller's is used and left alone."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        where = f"the Ray cluster at {address}" if address else "Ray on this machine"
        raise ConfigError(
            f"cannot connect to {where}: {reason}; check --address, or leave it out to use this machine"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_admission(spec: SweepSpec) -> None:
    """Refuse a sweep whose trials could never start: Ray would wait in silence."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = spec.resources
    if not any(node.get("CPU", 0) >= wanted.cpus and node.get("GPU", 0) >= wanted.gpus for node in nodes):
        raise DeviceError(
            f"a trial needs {wanted.cpus:g} CPUs and {wanted.gpus:g} GPUs on one node, the cluster has {_describe_cluster()}; "
            "change `resources` in the sweep file or add a node"
        )


def _describe_cluster() -> str:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    listed = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
    return f"{len(nodes)} node{'' if len(nodes) == 1 else 's'} ({listed})" if nodes else "no nodes"


def _profiles(spec: SweepSpec, ledger: Ledger, listener: Listener | None) -> dict[Architecture, Profile]:
    """Measure every architecture that the sweep can reach, in one process that has a whole node for itself."""
    wants_gpu = spec.resources.gpus > 0
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    node = next(node for node in nodes if node.get("GPU", 0) >= (1 if wants_gpu else 0) and node.get("CPU", 0) > 0)
    # The task keeps all processors from others; it computes with as many threads as a trial, the size that the sweep file names.
    threads = max(1, int(spec.resources.cpus))
    actors: list[Any] = []

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        if not actors:
            actors.append(ray.remote(num_cpus=int(node["CPU"]), num_gpus=int(wants_gpu))(_Alone).remote())
        return ray.get(actors[0].run.remote(function, *arguments))

    profiles: dict[Architecture, Profile] = {}
    kind = "cuda" if wants_gpu else "cpu"
    measured = profile_all(reachable(spec), kind=kind, threads=threads, ledger=ledger, sweep=spec.name, call=call)
    try:
        for architecture, profile in measured:
            profiles[architecture] = profile
            if listener is not None:
                figures = ", ".join(f"{name} {value:.4g}" for name, value in profile.metrics.items())
                listener("note", None, f"{architecture}: {profile.error or figures}")
    finally:
        for actor in actors:
            ray.kill(actor)
    return profiles


class _Alone:
    """Runs functions in one process."""

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)
