"""What Ray says of a worker that ended without a last message."""

import pickle
from pathlib import Path
from typing import Any

from ray.air.execution._internal import RayActorManager
from ray.exceptions import (
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)
from ray.tune.experiment import Trial

from sweeps.failures import FailureClass


class LostWorkerError(RayActorError):  # type: ignore[misc]
    """A worker that ended in a way that Tune does not know of.

    Attributes:
        cause: what Ray said.
    """

    def __init__(self, cause: RayError) -> None:
        """Keep what Ray said.

        Args:
            cause: an error that is neither a dead actor's nor a task's.
        """
        super().__init__(error_msg=str(cause))
        self.args = (cause,)  # Tune writes it to a file and reads it back
        self.cause = cause


_on_task_failed = RayActorManager._actor_task_failed


def _on_any_failure(manager: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
    if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
        exception = LostWorkerError(exception)
    _on_task_failed(manager, tracked_actor_task, exception)


# Tune ends the whole experiment over any other error of Ray's, such as that of a worker which Ray's memory monitor killed.
RayActorManager._actor_task_failed = _on_any_failure


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
    """Tell a lost machine and memory that did not suffice from a lost process.

    Args:
        error: what `error_of` returned.
    """
    match error.cause if isinstance(error, LostWorkerError) else error:
        case OutOfMemoryError():
            return FailureClass.OUT_OF_MEMORY
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
    """Return one line of at most 500 characters about the end of a worker.

    Args:
        error: what `error_of` returned.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not isinstance(error, RayActorError):
        return lines[-1][:500]  # a traceback ends with its cause
    # In what Ray says of a dead actor the cause comes after the actor's names.
    return next((line for line in lines if line.startswith("The actor is dead")), lines[0])[:500]
