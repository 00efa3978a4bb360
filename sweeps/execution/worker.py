"""What runs inside a worker process: one attempt at one trial.

A worker tells its driver everything as messages, failures included: the driver then need not guess from a traceback what
went wrong, and an attempt that ends without a last message can only mean that the process or the node died.
"""

import contextlib
import gc
import importlib
import logging
import os
import shutil
import socket
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from segda.config import TrainConfig
from segda.config_problems import error_of
from segda.device_errors import is_device_failure, is_out_of_memory
from segda.errors import (
    CacheError,
    CorruptSampleError,
    DamagedCheckpointError,
    DatasetNotFoundError,
    GuestError,
    ProcessLostError,
    SegdaError,
    TrainingDivergedError,
    UnknownNameError,
    WeightsError,
)
from segda.file_errors import is_disk_failure, is_file_error
from segda.files import claiming, write_text
from segda.guests import make_importable
from segda.masking import masked
from sweeps.execution.attempts import (
    ATTEMPT,
    StaleAttemptError,
    check_beginning,
    check_ours,
    files_of_attempt,
    take_over,
)
from sweeps.execution.digests import digests_of
from sweeps.execution.remote import CHECKPOINT, DAMAGED, TrialStorage
from sweeps.execution.remote_folder import StorageError
from sweeps.execution.system_metrics import sample
from sweeps.execution.task import Task
from sweeps.execution.trial_log import TrialLog, overheard, report_text
from sweeps.execution.watchdog import Watchdog
from sweeps.failures import FailureClass, summary
from sweeps.file.prices import PROCESSOR, gpu_text

log = logging.getLogger(__name__)

Message = dict[str, Any]
Send = Callable[[Message], None]


def run_task(task: Task, send: Send) -> None:
    """Train, and send what happens.

    Messages are `started` (worker, device), `point` (step, metrics), and at the end `files` (name -> digest) and `finished`,
    or `failed` (failure, error). The traceback of a failure goes to `error.txt` in the trial's folder, without passwords, and what
    happens to its log (`sweeps.execution.trial_log`). A process that its watchdog ended sends nothing; a `hang.txt` that is not
    empty lies in the folder then.

    Args:
        task: what to do.
        send: gives a message to the driver; may raise `SystemExit` to stop the attempt.
    """
    send({"event": "started", "worker": _worker(), "device": describe_device(task)})
    last: Message = {"event": "finished"}
    try:
        _train(task, send)
    except Exception as error:
        failure = classify(error)
        told = f"{summary(error)}{_space(task)}" if failure is FailureClass.DISK else summary(error)
        last = {"event": "failed", "failure": str(failure), "error": told}
    if last["event"] == "failed":
        # What the error holds, such as a file that found no room, takes up that room until it is let go; the driver, which has this
        # message to write down, may need it.
        gc.collect()
    send(last)


def _worker() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _space(task: Task) -> str:
    """Return what is left on the disk of the trial's folder, for people; PyTorch does not name the file that it could not write."""
    try:
        return f" ({shutil.disk_usage(task.folder).free / 1e6:.1f} MB free in {task.folder})"
    except OSError:
        return f" ({task.folder} cannot be reached)"


def _train(task: Task, send: Send) -> None:
    make_importable(task.folders)
    folder = Path(task.folder)
    folder.mkdir(parents=True, exist_ok=True)
    check_beginning(folder, attempt=task.attempt)
    watchdog = Watchdog(folder, seconds=task.watchdog_seconds)
    try:
        storage = _take_over(task, folder)
        with _claiming(folder, task), TrialLog(folder, attempt=task.attempt) as trial_log:
            trial_log.say(_beginning(task))
            try:
                with overheard(trial_log):
                    _report_from(task, send, folder, storage, watchdog, trial_log)
            except StaleAttemptError:
                raise  # the folder is another attempt's
            except Exception:
                trial_log.say(f"failed\n{traceback.format_exc()}")
                # The first error is the one to tell; a full disk or a lost storage may have caused it.
                with contextlib.suppress(OSError, StorageError):
                    write_text(folder / "error.txt", masked(traceback.format_exc()))
                    _send_rest(storage)
                raise
            except BaseException:
                trial_log.say("ended by its driver, or with its process")
                raise
            trial_log.say("trained to its end")
            _send_rest(storage)
            # An audit compares them, when nobody works here any more.
            send({"event": "files", "digests": digests_of(folder)})
    finally:
        watchdog.close()


def _beginning(task: Task) -> str:
    """Return how an attempt begins, in one line."""
    shared = f" in each of {task.processes} processes" if task.processes > 1 else ""
    at_once = "" if task.micro_batch is None else f", {task.micro_batch} images of each domain at once"
    threads = f"{task.threads} thread{'' if task.threads == 1 else 's'}{shared}"
    since = f"{task.acknowledged} of {task.config['steps']} steps are known"
    return f"begins on {_worker()}, {describe_device(task)}, {threads}{at_once}; {since}"


def _claiming(folder: Path, task: Task) -> contextlib.AbstractContextManager[None]:
    return claiming(folder, lambda: check_ours(folder, attempt=task.attempt), generation=task.attempt)


def _take_over(task: Task, folder: Path) -> TrialStorage | None:
    """Make this attempt the one whose folder it is, at the storage address and here."""
    if task.storage is None:
        take_over(folder, attempt=task.attempt)
        return None
    before = files_of_attempt(folder)
    take_over(folder, attempt=task.attempt, files_of=before)
    storage = TrialStorage(task.storage, folder=folder, attempt=task.attempt)
    with _claiming(folder, task):
        storage.begin(local_attempt=before)
        # From now on the folder has what the attempt goes on from.
        write_text(folder / ATTEMPT, f"{task.attempt}\n")
    return storage


def _send_rest(storage: TrialStorage | None) -> None:
    """Send what was written after the last report."""
    if storage is not None:
        storage.check_ours()
        storage.send()


def _report_from(
    task: Task, send: Send, folder: Path, storage: TrialStorage | None, watchdog: Watchdog, trial_log: TrialLog
) -> None:
    """Call the training function, and make a message of each of its reports."""

    def report(step: int, metrics: Mapping[str, float], checkpoint: Path) -> None:
        check_ours(folder, attempt=task.attempt)
        if storage is not None:
            storage.check_ours()
        values = {name: float(value) for name, value in metrics.items()}
        trial_log.say(report_text(step, int(task.config["steps"]), values))
        if storage is not None:
            storage.send(step=step)
        # The driver may be busy for a while; that is no hang of this process.
        watchdog.pause()
        if task.system_metrics:
            values |= sample()
        # Also what the driver has on disk, when the trial makes up for a lost checkpoint: it hears that the trial is alive.
        send({"event": "point", "step": step, "metrics": values})
        watchdog.restart()

    torch.set_num_threads(task.threads)
    options: dict[str, Any] = {}
    if task.micro_batch is not None:
        options["micro_batch"] = task.micro_batch
    if task.processes != 1:
        options["processes"] = task.processes
    train = resolve(task.train)
    config = _config(task)
    while True:
        try:
            train(config, report, folder=folder, acknowledged=task.acknowledged, **options)
            return
        except DamagedCheckpointError as error:
            if not (folder / CHECKPOINT).exists():
                raise  # it is another file's fault
            check_ours(folder, attempt=task.attempt)
            send({"event": "note", "message": _put_aside(error, folder, storage)})


def _config(task: Task) -> TrainConfig:
    """Check the configuration here too: the driver had all that it names, this node may not."""
    try:
        return TrainConfig.model_validate(task.config)
    except ValidationError as error:
        for item in error.errors():
            problem = item.get("ctx", {}).get("error")
            for cause in (problem, getattr(problem, "__cause__", None)):
                if isinstance(cause, GuestError | UnknownNameError):
                    raise cause from error
        where = "the trial's configuration, which another version of this program wrote"
        raise error_of(error, TrainConfig, task.config, where=where) from error


def _put_aside(error: DamagedCheckpointError, folder: Path, storage: TrialStorage | None) -> str:
    """Go on from the storage address's checkpoint instead of a damaged one, or from the start if there is none; say which."""
    (folder / CHECKPOINT).replace(folder / DAMAGED)
    if storage is not None:
        storage.replace_damaged()
    place = "the storage address's checkpoint" if (folder / CHECKPOINT).exists() else "the start"
    message = f"the trial goes on from {place}, its own checkpoint is kept as {DAMAGED}: {error}"
    log.warning(message)
    return message


def describe_device(task: Task) -> str:
    """Return what an attempt computes on: `cpu`, or the numbers and name of GPUs that its node gave it, as of `gpu_text`.

    Args:
        task: its configuration names a device; `auto` is a GPU where there is one.
    """
    kind, _, index = str(task.config.get("device", "auto")).partition(":")
    if kind == PROCESSOR or not torch.cuda.is_available():
        return PROCESSOR
    numbers = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(task.processes)))
    if index.isdigit():
        visible = numbers.split(",")
        numbers = visible[int(index)] if int(index) < len(visible) else index
    try:
        name = torch.cuda.get_device_name(int(index or 0))
    except (RuntimeError, AssertionError, torch.cuda.DeferredCudaCallError):
        name = ""  # the training is going to say what is wrong with it
    return gpu_text(name, numbers)


def resolve(name: str) -> Callable[..., Any]:
    """Return the function of an importable name.

    Args:
        name: `module:function`, e.g. `segda.training:train`.
    """
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def classify(error: Exception) -> FailureClass:
    """Tell what kind of failure an exception is, because each kind is handled in its own way.

    Args:
        error: what training raised.

    Returns:
        DIVERGED and OUT_OF_MEMORY, which the sampler learns to avoid. DATA for files (images, weights, the cache, guests) that are
        missing, damaged or not allowed, and DISK for disks that are full, read-only or broken: another node may do better, and no
        configuration is to blame. STORAGE for a storage address that fails. WORKER_LOST for an attempt that was replaced or lost
        one of its processes, DEVICE_LOST for a GPU that failed. INVALID for a configuration that cannot be used. ERROR for all
        else.

    Example:
        >>> classify(MemoryError()).value
        'out_of_memory'
    """
    match error:
        case TrainingDivergedError():
            return FailureClass.DIVERGED
        case _ if is_out_of_memory(error):
            return FailureClass.OUT_OF_MEMORY
        case StorageError():
            return FailureClass.STORAGE
        case _ if is_disk_failure(error):
            return FailureClass.DISK
        case _ if is_device_failure(error):
            return FailureClass.DEVICE_LOST
        case StaleAttemptError() | ProcessLostError():
            return FailureClass.WORKER_LOST
        case DatasetNotFoundError() | CorruptSampleError() | CacheError() | WeightsError():
            return FailureClass.DATA
        case GuestError() | UnknownNameError():
            return FailureClass.DATA
        case SegdaError() | ValidationError():
            return FailureClass.INVALID
        case _ if is_file_error(error):
            return FailureClass.DATA
        case _:
            return FailureClass.ERROR
