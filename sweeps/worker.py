"""What runs inside a worker process: one attempt at one trial.

A worker tells its driver everything as messages, failures included: the driver then need not guess from a traceback what
went wrong, and an attempt that ends without a last message can only mean that the process or the node died.
"""

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
from segda.errors import OutOfMemoryError, SegdaError, TrainingDivergedError
from segda.files import write_text
from sweeps.trial import FailureClass

DEFAULT_TRAIN = "segda.train:train"
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
    """

    number: int
    attempt: int
    acknowledged: int
    folder: str
    config: Mapping[str, Any]
    threads: int
    train: str = DEFAULT_TRAIN

    def plain(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)


class StaleAttemptError(SegdaError):
    """Another worker has taken the trial over."""


def run_task(task: Task, send: Send) -> None:
    """Train, and send what happens.

    Messages are `started` (worker), `point` (step, timestamp, metrics), and at the end `finished` or `failed` (failure, error).
    The traceback of a failure goes to `error.txt` in the trial's folder.

    Args:
        task: what to do.
        send: gives a message to the driver; may raise `SystemExit` to stop the attempt.
    """
    folder = Path(task.folder)
    folder.mkdir(parents=True, exist_ok=True)
    fence = folder / "attempt"
    write_text(fence, f"{task.attempt}\n")
    torch.set_num_threads(task.threads)
    send({"event": "started", "worker": f"{socket.gethostname()}:{os.getpid()}"})

    def report(step: int, metrics: Mapping[str, float], checkpoint: Path) -> None:
        if int(fence.read_text()) != task.attempt:
            raise StaleAttemptError(f"attempt {task.attempt} at trial {task.number} was replaced by a later one")
        values = {name: float(value) for name, value in metrics.items()}
        send({"event": "point", "step": step, "timestamp": time.time(), "metrics": values})

    try:
        train = resolve(task.train)
        config = TrainConfig.model_validate(task.config)
        train(config, report, folder=folder, acknowledged=task.acknowledged)
    except Exception as error:
        write_text(folder / "error.txt", traceback.format_exc())
        send({"event": "failed", "failure": str(classify(error)), "error": summary(error)})
    else:
        send({"event": "finished"})


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
        DIVERGED and OUT_OF_MEMORY, which the sampler learns to avoid; INVALID for a configuration or data that cannot be used;
        WORKER_LOST for an attempt that was replaced; ERROR for everything else.

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
        case StaleAttemptError():
            return FailureClass.WORKER_LOST
        case SegdaError() | ValidationError():
            return FailureClass.INVALID
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
