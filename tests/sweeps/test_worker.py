"""One attempt at one trial, as its driver sees it."""

import errno
import json
import os
import re
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

from segda.errors import (
    CacheError,
    ConfigError,
    CorruptSampleError,
    DamagedCheckpointError,
    DatasetNotFoundError,
    DeviceError,
    OutOfMemoryError,
    ProcessLostError,
    TrainingDivergedError,
    WeightsError,
)
from segda.files import write_text
from sweeps.execution import worker
from sweeps.execution.digests import file_digest
from sweeps.execution.remote_folder import StorageError
from sweeps.execution.worker import StaleAttemptError, classify, describe_device, run_task
from sweeps.failures import FailureClass, summary


def messages(task):
    sent = []
    run_task(task, sent.append)
    return sent


def test_an_attempt_tells_its_start_its_points_and_its_end(task):
    start, *points, files, end = messages(task())
    assert (start["event"], end["event"]) == ("started", "finished")
    folder = Path(task().folder)
    left = ("checkpoint.pt", "config.json", "environment.json", "result.json")
    assert files == {"event": "files", "digests": {name: file_digest(folder / name) for name in left}}
    assert start["worker"].endswith(f":{os.getpid()}")
    assert start["device"] == "cpu"
    assert [point["step"] for point in points] == [1, 2, 3, 4, 5, 6]
    assert points[0]["metrics"]["source/val/miou"] < points[-1]["metrics"]["source/val/miou"]


def test_acknowledged_points_are_not_told_again(task):
    messages(task())
    told = messages(task(attempt=2, acknowledged=4))
    assert [message["step"] for message in told if message["event"] == "point"] == [5, 6]


def test_what_is_as_usual_is_not_passed_to_the_training_function(task, trains):
    def train(config, report, *, folder, acknowledged, **options):
        report(1, {"given": len(options), **options}, folder / "checkpoint.pt")

    usual = messages(task(trains(train)))[1]["metrics"]
    other = messages(task(trains(train), micro_batch=2, processes=3))[1]["metrics"]
    assert usual == {"given": 0.0}
    assert other == {"given": 2.0, "micro_batch": 2.0, "processes": 3.0}


def test_an_attempt_whose_trial_was_taken_over_stops_and_leaves_the_folder_alone(task, trains):
    folder = Path(task().folder)

    def train(config, report, *, folder, acknowledged):
        (folder / "attempt").write_text("2\n")
        report(1, {"source/val/miou": 0.5}, folder / "checkpoint.pt")

    start, end = messages(task(trains(train)))
    assert start["event"] == "started"
    assert (end["event"], end["failure"]) == ("failed", "worker_lost")
    assert "replaced by a later one" in end["error"]
    assert not (folder / "error.txt").exists()


def test_a_worker_that_wakes_up_after_its_successor_replaces_none_of_its_files(task, trains):
    folder = Path(task().folder)
    left = {}

    def train(config, report, *, folder, acknowledged):
        write_text(folder / "checkpoint.pt", "[]")
        report(1, {"source/val/miou": 0.5}, folder / "checkpoint.pt")
        messages(task(attempt=2))  # while this one was suspended
        left.update({path.name: path.read_bytes() for path in folder.iterdir()})
        write_text(folder / "checkpoint.pt", "[1]")

    end = messages(task(trains(train), acknowledged=1))[-1]
    assert (end["event"], end["failure"]) == ("failed", "worker_lost")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == left
    assert "result.json" in left


def test_an_attempt_that_begins_after_a_later_one_leaves_the_trial_to_it(task):
    folder = Path(task().folder)
    messages(task(attempt=2))
    (folder / "checkpoint.pt").unlink()
    (folder / "hang.txt").write_text("where attempt 2 stands")
    *_, end = messages(task(attempt=1, watchdog_seconds=60.0))
    assert (end["event"], end["failure"]) == ("failed", "worker_lost")
    assert "attempt 1 begins after attempt 2 began in" in end["error"]
    assert (folder / "attempt").read_text() == "2\n"
    assert not (folder / "checkpoint.pt").exists()
    assert (folder / "hang.txt").exists()


@pytest.mark.parametrize("content", ["", "[[1, {"])
def test_a_damaged_checkpoint_is_put_aside_and_the_trial_trains_from_the_start(task, content):
    folder = Path(task().folder)
    expected = [message.get("metrics") for message in messages(task()) if message.get("step", 0) > 4]
    (folder / "checkpoint.pt").write_text(content)
    told = messages(task(attempt=2, acknowledged=4))
    assert told[1]["event"] == "note"
    assert told[1]["message"].startswith(
        "the trial goes on from the start, its own checkpoint is kept as checkpoint.damaged.pt: "
    )
    assert [message["step"] for message in told[2:-2]] == [1, 2, 3, 4, 5, 6]  # the driver hears that it is alive
    assert [message.get("metrics") for message in told[6:-2]] == expected
    assert told[-1] == {"event": "finished"}
    assert (folder / "checkpoint.damaged.pt").read_text() == content
    assert len(json.loads((folder / "checkpoint.pt").read_text())) == 6


def test_damage_elsewhere_than_in_the_trial_s_checkpoint_is_a_failure(task, trains):
    def train(config, report, *, folder, acknowledged):
        raise DamagedCheckpointError("of something else")

    end = messages(task(trains(train)))[-1]
    assert (end["failure"], end["error"]) == ("data", "DamagedCheckpointError: of something else")


def test_a_fence_that_lost_its_content_stops_nobody(task):
    folder = Path(task().folder)
    folder.mkdir(parents=True)
    (folder / "attempt").touch()
    assert messages(task())[-1] == {"event": "finished"}


def test_a_worker_that_is_told_to_stop_at_once_takes_nothing_over(task):
    def send(message):
        raise SystemExit

    with pytest.raises(SystemExit):
        run_task(task(), send)
    assert not Path(task().folder).exists()


def test_a_folder_that_cannot_be_made_is_a_failure_that_is_told(task, tmp_path):
    (tmp_path / "file").touch()
    end = messages(task(folder=str(tmp_path / "file" / "trial")))[-1]
    assert (end["event"], end["failure"]) == ("failed", "data")


def test_the_traceback_of_a_failure_is_kept_without_passwords(task, trains):
    def train(config, report, *, folder, acknowledged):
        raise KeyError("no answer from http://me:s3cret@host")

    end = messages(task(trains(train)))[-1]
    assert (end["failure"], end["error"]) == ("error", "KeyError: 'no answer from http://***@host'")
    kept = (Path(task().folder) / "error.txt").read_text()  # MLflow is sent this file
    assert "in train" in kept
    assert "http://***@host" in kept
    assert "s3cret" not in kept


def test_figures_of_the_machine_join_each_point_when_asked_for(task, monkeypatch):
    monkeypatch.setattr(worker, "sample", lambda: {"system/cpu_percent": 50.0})
    with_figures = messages(task(system_metrics=True))[1]["metrics"]
    without = messages(task(attempt=2))[1]["metrics"]
    assert set(with_figures) - set(without) == {"system/cpu_percent"}


@pytest.mark.parametrize(
    ("device", "visible", "has_gpu", "expected"),
    [
        ("auto", "", False, "cpu"),
        ("cpu", "1", True, "cpu"),
        ("auto", "3", True, "GPU 3"),
        ("cuda", "2,5", True, "GPU 2,5"),
        ("cuda:1", "2,5", True, "GPU 5"),
        ("auto", None, True, "GPU 0"),
    ],
)
def test_the_device_of_an_attempt_is_the_one_that_its_node_gave_it(
    task, monkeypatch, device, visible, has_gpu, expected
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert describe_device(task(config={"device": device})) == expected


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (TrainingDivergedError("NaN"), FailureClass.DIVERGED),
        (OutOfMemoryError("GPU"), FailureClass.OUT_OF_MEMORY),
        (MemoryError(), FailureClass.OUT_OF_MEMORY),
        (torch.OutOfMemoryError(), FailureClass.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `x`"), FailureClass.OUT_OF_MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), FailureClass.OUT_OF_MEMORY),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"), FailureClass.DEVICE_LOST),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), FailureClass.ERROR),
        (ConfigError("key"), FailureClass.INVALID),
        (DeviceError("cuda:9"), FailureClass.INVALID),
        (DatasetNotFoundError("camvid"), FailureClass.DATA),
        (CorruptSampleError("a.png"), FailureClass.DATA),
        (CacheError("full"), FailureClass.DATA),
        (WeightsError("no file"), FailureClass.DATA),
        (OSError(errno.ENOSPC, "no space left"), FailureClass.DISK),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), FailureClass.DISK),
        (ProcessLostError("rank 1 failed: OSError: [Errno 122] Disk quota exceeded"), FailureClass.DISK),
        (PermissionError(errno.EACCES, "denied", "/data"), FailureClass.DATA),
        (FileNotFoundError(errno.ENOENT, "missing", "/data"), FailureClass.DATA),
        (OSError(errno.ESTALE, "stale handle"), FailureClass.DATA),
        (StorageError("s3://bucket"), FailureClass.STORAGE),
        (StaleAttemptError("2"), FailureClass.WORKER_LOST),
        (ProcessLostError("rank 1"), FailureClass.WORKER_LOST),
        (ConnectionResetError(errno.ECONNRESET, "peer"), FailureClass.ERROR),
        (KeyError("bug"), FailureClass.ERROR),
    ],
)
def test_failures_are_told_apart(error, failure):
    assert classify(error) is failure


def test_a_disk_that_is_full_is_named_with_what_is_left_there(task, trains):
    def train(config, report, *, folder, acknowledged):
        torch.save({"a": torch.zeros(1000)}, "/dev/full")

    end = messages(task(trains(train)))[-1]
    assert (end["event"], end["failure"]) == ("failed", "disk")
    assert re.search(r"unexpected pos .* \(\d+\.\d MB free in /.*/0000-key\)", end["error"])


def test_what_a_failed_training_held_is_let_go_before_the_driver_hears_of_it(task, trains):
    """A file that found no room on a full disk takes up that room until it is closed."""
    held, left = [], []

    def train(config, report, *, folder, acknowledged):
        file = (folder / "checkpoint.pt").open("wb")
        held.append(weakref.ref(file))
        itself = []
        itself.append((itself, file))
        raise OSError(errno.ENOSPC, "No space left on device")

    def send(message):
        if message["event"] == "failed":
            left.append(held[0]())

    with pytest.warns(ResourceWarning, match="unclosed file"):
        run_task(task(trains(train)), send)
    assert left == [None]


def test_a_disk_behind_another_error_is_found(task, trains):
    def train(config, report, *, folder, acknowledged):
        try:
            raise OSError(errno.EROFS, "Read-only file system")
        except OSError as error:
            raise CacheError("decoded images cannot be kept") from error

    assert messages(task(trains(train)))[-1]["failure"] == "disk"


def test_a_summary_is_one_short_line():
    assert summary(ValueError("a\n  b")) == "ValueError: a b"
    assert len(summary(ValueError("x" * 1000))) == 500
    assert summary(KeyboardInterrupt()) == "KeyboardInterrupt"


HANGING = """
import ctypes, json, sys, time
from pathlib import Path
from sweeps.execution import worker
from sweeps.execution.task import Task
from sweeps.execution.worker import run_task

def train(config, report, *, folder, acknowledged):
    report(1, {"loss": 1.0}, folder / "checkpoint.pt")
    report(2, {"loss": 1.0}, folder / "checkpoint.pt")
    ctypes.PyDLL(None).sleep(60)  # holds the interpreter's lock

def send(message):
    print(json.dumps(message), flush=True)
    if message.get("step") == 2:
        time.sleep(1.5)  # a busy driver

run_task(Task(**json.loads(sys.argv[1])), send)
"""


@pytest.mark.slow  # a process that imports torch, and waits
def test_a_process_that_hangs_inside_a_call_ends_itself_and_leaves_its_stacks(task, tmp_path):
    script = tmp_path / "hanging.py"
    script.write_text(HANGING)
    plain = task("__main__:train", watchdog_seconds=1.0).plain()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(
        [sys.executable, script, json.dumps(plain)], env=environment, capture_output=True, text=True, timeout=50
    )
    assert ended.returncode == 1
    assert [json.loads(line)["event"] for line in ended.stdout.splitlines()] == ["started", "point", "point"]
    traces = Path(task().folder) / "hang.txt"
    assert "in train" in traces.read_text()
    messages(task(attempt=2, watchdog_seconds=60.0))
    assert not traces.exists()


def test_a_watchdog_does_not_outlive_its_attempt(task, monkeypatch):
    calls = []
    monkeypatch.setattr("faulthandler.dump_traceback_later", lambda *_, **options: calls.append(options["exit"]))
    monkeypatch.setattr("faulthandler.cancel_dump_traceback_later", lambda: calls.append("cancelled"))
    messages(task(train="fakes:quadratic", watchdog_seconds=60.0))
    assert calls == [True, *["cancelled", True] * 6, "cancelled"]
