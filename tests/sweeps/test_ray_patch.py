"""The private method of Ray that is replaced; these tests fail when Ray changes, to be read anew then."""

import hashlib
import inspect
from types import SimpleNamespace

import pytest

from sweeps.execution import cluster  # sets Ray's environment first
from sweeps.execution.lost_workers import classify_loss
from sweeps.execution.ray_patch import RayActorManager, on_task_failed
from sweeps.failures import FailureClass

NO_MEMORY = cluster.ray.exceptions.OutOfMemoryError(
    "1 worker(s) were killed due to the node running low on memory.\nOOM kill reason: used"
)


def test_ray_has_the_method_that_was_replaced():
    digest = hashlib.sha256(inspect.getsource(on_task_failed).encode()).hexdigest()[:16]
    assert digest == "acbe35f640730dce", (
        "Ray changed RayActorManager._actor_task_failed: is the patch still right, and needed?"
    )
    assert "self._actor_task_failed(" in inspect.getsource(RayActorManager)


@pytest.fixture
def fail():
    """Report the failure of a task to a manager of actors; returns the errors of which Tune hears."""

    def call(method, error):
        heard = []
        worker = SimpleNamespace(actor_id=1, _on_error=None)
        task = SimpleNamespace(_tracked_actor=worker, _on_error=lambda actor, exception: heard.append(exception))
        manager = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
        method(manager, tracked_actor_task=task, exception=error)
        return heard

    return call


def test_ray_alone_ends_the_experiment_when_its_memory_monitor_kills_a_worker(fail):
    with pytest.raises(RuntimeError, match="Caught unexpected"):
        fail(on_task_failed, NO_MEMORY)


def test_a_worker_that_ray_s_memory_monitor_killed_is_a_lost_worker_to_tune_and_not_the_end_of_the_sweep(fail):
    heard = fail(RayActorManager._actor_task_failed, NO_MEMORY)
    assert [classify_loss(error) for error in heard] == [FailureClass.OUT_OF_MEMORY]
    with pytest.raises(RuntimeError, match="Caught unexpected"):
        fail(RayActorManager._actor_task_failed, KeyError("a bug"))
