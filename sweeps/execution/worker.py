"""What runs inside a worker process: one attempt at one trial.

A worker tells its driver everything as messages, failures included: the driver then need not guess from a traceback what
went wrong, and an attempt that ends without a last message can only mean that the process or the node died.
"""

import contextlib
import errno
import importlib
import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from segda.config import TrainConfig
from segda.datasets.cache import CacheError
from segda.errors import (
    CorruptSampleError,
    DatasetNotFoundError,
    OutOfMemoryError,
    ProcessLostError,
    SegdaError,
    TrainingDivergedError,
    WeightsError,
)
from segda.files import write_text
from sweeps.execution.remote import TrialStorage
from sweeps.execution.remote_folder import StorageError
from sweeps.execution.system_metrics import sample
from sweeps.execution.watchdog import Watchdog
from sweeps.schedulers.copies import begin_from, keep_copy
from sweeps.trial import FailureClass

DEFAULT_TRAIN = "segda.train:train"
# What the system says about files, disks and mounts, as opposed to connections and processes.
_FILE_ERRORS = frozenset(
    {
        *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP),
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EMFILE, errno.ENFILE),
        *(errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO),
    }
)
Message = dict[str, Any]
Send = Callable[[Message], None]


@dataclass(frozen=True)
class Task:
    """One attempt at one trial, as plain data.

    Attributes:
        number: the trial.
        attempt: number of the attempt; a higher one makes this one stale.
        acknowledged: last step that the driver has on disk.
        folder: the trial's folder.
        config: `TrainConfig` as plain data.
        threads: threads that the trial may compute with.
        train: the training function as `module:name`.
        micro_batch: images of each domain per forward and backward pass; None: the whole batch.
        processes: processes of the trial that share each batch, one per GPU.
        watchdog_seconds: longest time without a report, the start included, after which the process ends itself; None: for
            ever.
        storage: fsspec address under which trials are kept as well, for nodes that do not share `folder`.
        system_metrics: whether each point gets figures of the machine too.
        start_from: checkpoint of another trial to go on from as long as the folder has none; see `sweeps.schedulers.pbt`.
        keep_every: checkpoints at multiples of so many steps are kept for others to go on from; None: none is.
    """

    number: int
    attempt: int
    acknowledged: int
    folder: str
    config: Mapping[str, Any]
    threads: int
    train: str = DEFAULT_TRAIN
    micro_batch: int | None = None
    processes: int = 1
    watchdog_seconds: float | None = None
    storage: str | None = None
    system_metrics: bool = False
    start_from: str | None = None
    keep_every: int | None = None

    def plain(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)


class StaleAttemptError(SegdaError):
    """Another worker has taken the trial over."""


def run_task(task: Task, send: Send) -> None:
    """Train, and send what happens.

    Messages are `started` (worker, device), `point` (step, timestamp, metrics), and at the end `finished` or `failed` (failure,
    error). The traceback of a failure goes to `error.txt` in the trial's folder. A process that its watchdog ended sends
    nothing; a `hang.txt` that is not empty lies in the folder then.

    Args:
        task: what to do.
        send: gives a message to the driver; may raise `SystemExit` to stop the attempt.
    """
    send({"event": "started", "worker": f"{socket.gethostname()}:{os.getpid()}", "device": describe_device(task)})
    try:
        _train(task, send)
    except Exception as error:
        send({"event": "failed", "failure": str(classify(error)), "error": summary(error)})
    else:
        send({"event": "finished"})


def _train(task: Task, send: Send) -> None:
    folder = Path(task.folder)
    folder.mkdir(parents=True, exist_ok=True)
    watchdog = Watchdog(folder, seconds=task.watchdog_seconds)
    try:
        storage = _take_over(task, folder)
        try:
            _report_from(task, send, folder, storage, watchdog)
        except StaleAttemptError:
            raise  # the folder is another attempt's
        except Exception:
            # The first error is the one to tell; a full disk or a lost storage may have caused it.
            with contextlib.suppress(OSError, StorageError):
                write_text(folder / "error.txt", traceback.format_exc())
                _send_rest(storage)
            raise
        _send_rest(storage)
    finally:
        watchdog.close()


def _take_over(task: Task, folder: Path) -> TrialStorage | None:
    """Make this attempt the one whose folder it is, here and at the storage address."""
    fence = folder / "attempt"
    storage = None
    if task.storage is not None:
        storage = TrialStorage(task.storage, folder=folder, attempt=task.attempt)
        storage.begin(local_attempt=int(fence.read_text()) if fence.exists() else 0)
    write_text(fence, f"{task.attempt}\n")
    return storage


def _send_rest(storage: TrialStorage | None) -> None:
    """Send what was written after the last report."""
    if storage is not None and storage.is_ours():
        storage.send()


def _report_from(task: Task, send: Send, folder: Path, storage: TrialStorage | None, watchdog: Watchdog) -> None:
    """Call the training function, and make a message of each of its reports."""

    def report(step: int, metrics: Mapping[str, float], checkpoint: Path) -> None:
        is_ours = int((folder / "attempt").read_text()) == task.attempt and (storage is None or storage.is_ours())
        if not is_ours:
            raise StaleAttemptError(f"attempt {task.attempt} at trial {task.number} was replaced by a later one")
        if task.keep_every is not None and step % task.keep_every == 0:
            keep_copy(checkpoint, step=step)
        if storage is not None:
            storage.send(step=step)
        values = {name: float(value) for name, value in metrics.items()}
        if task.system_metrics:
            values |= sample()
        # The driver may be busy for a while; that is no hang of this process.
        watchdog.pause()
        send({"event": "point", "step": step, "timestamp": time.time(), "metrics": values})
        watchdog.restart()

    torch.set_num_threads(task.threads)
    options: dict[str, Any] = {}
    if task.micro_batch is not None:
        options["micro_batch"] = task.micro_batch
    if task.processes != 1:
        options["processes"] = task.processes
    train = resolve(task.train)
    if task.start_from is not None:
        begin_from(Path(task.start_from), config=TrainConfig.model_validate(task.config), folder=folder)
    config = TrainConfig.model_validate(task.config)
    train(config, report, folder=folder, acknowledged=task.acknowledged, **options)


def describe_device(task: Task) -> str:
    """Return what an attempt computes on: `cpu`, or `GPU` with the numbers that its node gave it, e.g. `GPU 0` or `GPU 2,3`.

    Args:
        task: its configuration names a device; `auto` is a GPU where there is one.
    """
    kind, _, index = str(task.config.get("device", "auto")).partition(":")
    if kind == "cpu" or not torch.cuda.is_available():
        return "cpu"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(task.processes)))
    if index.isdigit():
        numbers = visible.split(",")
        return f"GPU {numbers[int(index)] if int(index) < len(numbers) else index}"
    return f"GPU {visible}"


def resolve(name: str) -> Callable[..., Any]:
    """Return the function of an importable name.

    Args:
        name: `module:function`, e.g. `segda.train:train`.
    """
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def classify(error: Exception) -> FailureClass:
    """Tell what kind of failure an exception is, because each kind is handled in its own way.

    Args:
        error: what training raised.

    Returns:
        DIVERGED and OUT_OF_MEMORY, which the sampler learns to avoid. DATA for files (images, weights, the decoded cache) that are
        missing, damaged or not allowed and for disks that are full, read-only or broken: another node may do better, and no
        configuration is to blame. STORAGE for a storage address that fails. WORKER_LOST for an attempt that was replaced or lost
        one of its processes. INVALID for a configuration that cannot be used. ERROR for everything else.

    Example:
        >>> classify(MemoryError()).value
        'out_of_memory'
    """
    match error:
        case TrainingDivergedError():
            return FailureClass.DIVERGED
        # torch.OutOfMemoryError is no MemoryError, and training code of others may let it through.
        case OutOfMemoryError() | torch.OutOfMemoryError() | MemoryError():
            return FailureClass.OUT_OF_MEMORY
        case StaleAttemptError() | ProcessLostError():
            return FailureClass.WORKER_LOST
        case StorageError():
            return FailureClass.STORAGE
        case DatasetNotFoundError() | CorruptSampleError() | CacheError() | WeightsError():
            return FailureClass.DATA
        case SegdaError() | ValidationError():
            return FailureClass.INVALID
        case OSError() if error.errno in _FILE_ERRORS:
            return FailureClass.DATA
        case _:
            return FailureClass.ERROR


def summary(error: BaseException) -> str:
    r"""Return an exception as one line of at most 500 characters.

    Example:
        >>> summary(ValueError("expected 3 channels,\n got 4"))
        'ValueError: expected 3 channels, got 4'
    """
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__
