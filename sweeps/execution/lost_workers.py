"""What Ray says of a worker that ended without a last message."""

import pickle
from pathlib import Path

from ray.exceptions import (
    ActorUnavailableError,
    NodeDiedError,
    OutOfDiskError,
    OutOfMemoryError,
    RayActorError,
)
from ray.tune.experiment import Trial

from segda.file_errors import says_disk_failure
from segda.masking import masked
from sweeps.execution.ray_patch import LostWorkerError
from sweeps.failures import FailureClass


def error_of(trial: Trial) -> object:
    """Return what Tune has of the end of a worker: an exception, or its text.

    Args:
        trial: one that Tune says has failed, at the moment when it says so.
    """
    # `Trial.get_pickled_error` and `get_error` look for copies of these files, which are made only later.
    if trial.pickled_error_file is not None:
        return pickle.loads(Path(trial.pickled_error_file).read_bytes())
    return Path(trial.error_file).read_text()


def classify_loss(error: object) -> FailureClass:
    """Tell a lost machine, and memory or a disk that did not suffice, from a lost process.

    Args:
        error: what `error_of` returned.
    """
    match error.cause if isinstance(error, LostWorkerError) else error:
        case OutOfMemoryError():
            return FailureClass.OUT_OF_MEMORY
        case OutOfDiskError():
            return FailureClass.DISK
        # Of a worker whose own files, logs among them, found no room: Ray has that as text.
        case told if says_disk_failure(str(told)):
            return FailureClass.DISK
        # An actor that cannot be reached any more: its raylet is gone, whatever became of the process.
        case NodeDiedError() | ActorUnavailableError():
            return FailureClass.NODE_LOST
        case RayActorError() as died if died.preempted:
            return FailureClass.PREEMPTED
        # Ray tells this cause in the text alone.
        case RayActorError() as died if "its node has died" in str(died):
            return FailureClass.NODE_LOST
        case _:
            return FailureClass.WORKER_LOST


def describe_loss(error: object) -> str:
    """Return one line of at most 500 characters about the end of a worker, without passwords.

    Args:
        error: what `error_of` returned.
    """
    lines = [line.strip() for line in masked(str(error)).splitlines() if line.strip()]
    if not isinstance(error, RayActorError):
        return lines[-1][:500]  # a traceback ends with its cause
    # In what Ray says of a dead actor the cause comes after the actor's names.
    return next((line for line in lines if line.startswith("The actor is dead")), lines[0])[:500]
