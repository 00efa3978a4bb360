"""The one private method of Ray that is replaced, for as long as Ray needs it.

Ray Tune counts a dead actor and a failed task as the end of a trial, and over any other error of Ray's own it ends the whole
experiment; such as that of a worker which Ray's memory monitor killed. Here those errors become that of a dead actor.
`tests/sweeps/test_ray_patch.py` fails when Ray's method is not the one that was replaced, or does not need it any more.
"""

from typing import Any

from ray.air.execution._internal import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError


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


on_task_failed = RayActorManager._actor_task_failed  # as Ray has it


def _on_any_failure(manager: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
    if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
        exception = LostWorkerError(exception)
    on_task_failed(manager, tracked_actor_task, exception)


RayActorManager._actor_task_failed = _on_any_failure
