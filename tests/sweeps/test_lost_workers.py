"""What Ray says of workers that ended, without a Ray that runs."""

import pickle
from types import SimpleNamespace

import pytest

from sweeps.execution import cluster  # sets Ray's environment first
from sweeps.execution.lost_workers import classify_loss, describe_loss, error_of
from sweeps.execution.ray_patch import LostWorkerError
from sweeps.failures import FailureClass

exceptions = cluster.ray.exceptions
NO_MEMORY = exceptions.OutOfMemoryError(
    "1 worker(s) were killed due to the node running low on memory.\nOOM kill reason: used"
)
DIED = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: ImplicitFunc\n\tpid: 7\n"
    "The actor is dead because its {} has died. Worker exit type: SYSTEM_ERROR"
)


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (LostWorkerError(NO_MEMORY), FailureClass.OUT_OF_MEMORY),
        (LostWorkerError(exceptions.ActorPlacementGroupRemoved()), FailureClass.WORKER_LOST),
        (exceptions.RayActorError(error_msg=DIED.format("node")), FailureClass.NODE_LOST),
        (exceptions.ActorUnavailableError("cannot be reached", None), FailureClass.NODE_LOST),
        (exceptions.RayActorError(error_msg=DIED.format("worker process")), FailureClass.WORKER_LOST),
        (exceptions.RayActorError(preempted=True), FailureClass.PREEMPTED),
        ("Traceback\nKeyError: 1", FailureClass.WORKER_LOST),
        (LostWorkerError(exceptions.OutOfDiskError("objects cannot be spilled")), FailureClass.DISK),
        ("Traceback\nOSError: [Errno 28] No space left on device: '/tmp/ray/x'", FailureClass.DISK),
    ],
)
def test_lost_machines_and_lost_memory_are_told_apart_from_lost_processes(error, failure):
    assert classify_loss(error) is failure


def test_a_loss_is_described_by_its_cause():
    died = exceptions.RayActorError(error_msg=DIED.format("node"))
    assert describe_loss(died) == "The actor is dead because its node has died. Worker exit type: SYSTEM_ERROR"
    assert describe_loss(LostWorkerError(NO_MEMORY)).startswith("1 worker(s) were killed")
    assert describe_loss("Traceback\n  File x\nKeyError: 1\n") == "KeyError: 1"
    assert describe_loss("OSError: no answer from http://me:s3cret@host") == "OSError: no answer from http://***@host"


def test_an_error_is_read_where_tune_writes_it(tmp_path):
    (tmp_path / "error.pkl").write_bytes(pickle.dumps(LostWorkerError(NO_MEMORY)))
    (tmp_path / "error.txt").write_text("in words")
    paths = {"pickled_error_file": str(tmp_path / "error.pkl"), "error_file": str(tmp_path / "error.txt")}
    assert classify_loss(error_of(SimpleNamespace(**paths))) is FailureClass.OUT_OF_MEMORY
    assert error_of(SimpleNamespace(**paths | {"pickled_error_file": None})) == "in words"
