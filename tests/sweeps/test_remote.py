"""Nodes that share no folder, over a storage address."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import fakes
import fsspec
import pytest
import torch

from segda.datasets.scenes import generate_scenes
from sweeps.execution import remote, remote_folder
from sweeps.execution.attempts import StaleAttemptError
from sweeps.execution.remote import TrialStorage, check_storage, fetch
from sweeps.execution.remote_folder import StorageError
from sweeps.execution.task import Task
from sweeps.execution.trial_log import LOG
from sweeps.execution.worker import run_task
from sweeps.store import Store
from sweeps.trial import TrialKind, TrialRecord

RECORD = TrialRecord("demo", 0, "key", TrialKind.SEARCH, params={}, config={}, seed=0, attempt=1)
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(remote_folder, "FIRST_PAUSE_SECONDS", 0.0)


@pytest.fixture(params=["file", "memory"])
def storage(request, tmp_path):
    if request.param == "file":
        yield f"file://{tmp_path}/bucket"
        return
    address = f"memory://bucket-{next(_numbers)}"
    yield address
    system, root = fsspec.url_to_fs(address)
    if system.exists(root):
        system.rm(root, recursive=True)


@pytest.fixture
def task(make_spec, storage):
    """An attempt on a node with a folder of its own."""

    def make(node, *, attempt=1, acknowledged=0, train="fakes:quadratic"):
        config = make_spec().train_config({"optimizer.lr": 0.01}, seed=0).model_dump(mode="json")
        return Task(
            number=0,
            attempt=attempt,
            acknowledged=acknowledged,
            folder=str(Store.at(node).trial(RECORD)),
            config=config,
            threads=torch.get_num_threads(),
            train=train,
            storage=storage,
        )

    return make


class Driver:
    """Keeps what it is told; ends the worker's process, so to say, at a step."""

    def __init__(self, dies_at=None):
        self.messages = []
        self.dies_at = dies_at

    def __call__(self, message):
        if message["event"] == "point" and message["step"] == self.dies_at:
            raise SystemExit
        self.messages.append(message)

    @property
    def steps(self):
        return [message["step"] for message in self.messages if message["event"] == "point"]

    def work(self, task):
        try:
            run_task(task, self)
        except SystemExit:
            assert self.dies_at
        return self


def stored(storage):
    system, root = fsspec.url_to_fs(f"{storage}/demo/trials/0000-key")
    return {Path(name).name: system.cat_file(name) for name in system.find(root)}


def executed(node):
    lines = (Store.at(node).sweep("demo") / fakes.EXECUTED).read_text().splitlines()
    return [int(line.rpartition(" ")[2]) for line in lines]


def test_another_node_goes_on_from_the_checkpoint_of_one_that_died(task, storage, tmp_path):
    first = Driver(dies_at=4).work(task(tmp_path / "a"))
    second = Driver().work(task(tmp_path / "b", attempt=2, acknowledged=3))
    assert first.steps == [1, 2, 3]
    assert second.steps == [4, 5, 6]  # 4 was computed by the first, which died before it could tell
    assert executed(tmp_path / "a") == [1, 2, 3, 4]
    assert executed(tmp_path / "b") == [5, 6]
    lines = (Path(task(tmp_path / "b").folder) / LOG).read_text().splitlines()
    assert [line.partition(" ")[2].partition(":")[0] for line in lines] == ["attempt 1"] * 5 + ["attempt 2"] * 5
    assert [name for name in stored(storage) if name.endswith(LOG)] == [f"0002-{LOG}"]
    undisturbed = Driver().work(replace(task(tmp_path / "c"), storage=None))
    told = {message["step"]: message["metrics"] for message in first.messages + second.messages if "step" in message}
    assert told == {message["step"]: message["metrics"] for message in undisturbed.messages if "step" in message}
    names = stored(storage)
    assert {"attempt-0002", "0002-config.json", "0002-environment.json", "0002-result.json"} < set(names)
    assert [name for name in names if name.startswith("checkpoint")] == ["checkpoint-00000006-0002.pt"]


def test_a_node_keeps_its_own_checkpoint_when_nobody_has_a_newer_one(task, tmp_path, monkeypatch):
    Driver(dies_at=4).work(task(tmp_path / "a"))
    reads = []
    monkeypatch.setattr(remote_folder.RemoteFolder, "read", lambda self, name, destination: reads.append(name))
    assert Driver().work(task(tmp_path / "a", attempt=2, acknowledged=3)).steps == [4, 5, 6]
    assert reads == []


def test_a_node_that_had_the_trial_before_another_one_takes_the_newer_checkpoint(task, tmp_path):
    Driver(dies_at=2).work(task(tmp_path / "a"))
    Driver(dies_at=5).work(task(tmp_path / "b", attempt=2, acknowledged=1))
    Driver().work(task(tmp_path / "a", attempt=3, acknowledged=4))
    assert Counter(executed(tmp_path / "a") + executed(tmp_path / "b")) == dict.fromkeys(range(1, 7), 1)


class Cut(Exception):
    pass


@pytest.fixture
def cut(monkeypatch, storage):
    """Let uploads of checkpoints break off in the middle."""

    def begin(*, error, times=10**9):
        system, _ = fsspec.url_to_fs(storage)
        whole, left = system.put_file, [times]

        def put_file(source, place, **options):
            if "checkpoint" in place and left[0] > 0:
                left[0] -= 1
                content = Path(source).read_bytes()
                system.pipe_file(place, content[: len(content) // 2])
                raise error
            whole(source, place, **options)

        monkeypatch.setattr(system, "put_file", put_file)

    return begin


def test_an_upload_that_breaks_off_is_tried_again(task, tmp_path, storage, cut):
    cut(error=ConnectionError("reset by peer"), times=2)
    driver = Driver().work(task(tmp_path / "a"))
    assert driver.messages[-1] == {"event": "finished"}
    assert json.loads(stored(storage)["checkpoint-00000006-0001.pt"])[-1][0] == 6


def test_an_upload_that_keeps_failing_ends_the_attempt_with_nothing_half_written(task, tmp_path, storage, cut):
    Driver(dies_at=3).work(task(tmp_path / "a"))
    cut(error=ConnectionError("reset by peer"))
    end = Driver().work(task(tmp_path / "b", attempt=2, acknowledged=2)).messages[-1]
    assert (end["event"], end["failure"]) == ("failed", "storage")
    assert "reset by peer" in end["error"]
    names = stored(storage)
    assert json.loads(names["checkpoint-00000003-0001.pt"])[-1][0] == 3
    assert not [name for name in names if name.endswith(".partial") or name.endswith("-0002.pt")]
    assert "StorageError" in names["0002-error.txt"].decode()


def test_a_process_that_dies_during_an_upload_leaves_nothing_that_a_successor_reads(task, tmp_path, storage, cut):
    cut(error=SystemExit(), times=1)
    with pytest.raises(SystemExit):
        run_task(task(tmp_path / "a"), Driver())
    system, root = fsspec.url_to_fs(f"{storage}/demo/trials/0000-key")
    system.pipe_file(f"{root}/checkpoint-00000005-0001.pt.host-1.partial", b"half")  # SIGKILL removes nothing
    assert Driver().work(task(tmp_path / "b", attempt=2)).steps == [1, 2, 3, 4, 5, 6]
    assert not [name for name in stored(storage) if name.endswith(".partial")]


def test_a_worker_that_was_replaced_on_another_node_stops_and_overwrites_nothing(task, tmp_path, storage):
    class Replaced(Driver):
        def __call__(self, message):
            if message.get("step") == 2:
                Driver(dies_at=5).work(task(tmp_path / "b", attempt=2, acknowledged=1))
            super().__call__(message)

    stale = Replaced().work(task(tmp_path / "a"))
    assert stale.steps == [1, 2]
    assert (stale.messages[-1]["event"], stale.messages[-1]["failure"]) == ("failed", "worker_lost")
    names = stored(storage)
    assert [name for name in names if name.startswith("attempt")] == ["attempt-0002"]
    assert [name for name in names if name.startswith("checkpoint")] == ["checkpoint-00000005-0002.pt"]


def test_an_attempt_that_begins_after_a_later_one_leaves_the_storage_to_it(task, tmp_path, storage):
    Driver(dies_at=4).work(task(tmp_path / "a", attempt=3))
    before = stored(storage)
    end = Driver().work(task(tmp_path / "b", attempt=2)).messages[-1]
    assert (end["event"], end["failure"]) == ("failed", "worker_lost")
    assert f"attempt 2 begins after attempt 3 began in {storage}" in end["error"]
    assert stored(storage) == before


def test_a_store_that_was_deleted_begins_again_from_what_the_storage_has(task, tmp_path):
    Driver(dies_at=4).work(task(tmp_path / "a"))
    assert Driver().work(task(tmp_path / "b")).steps == [1, 2, 3, 4, 5, 6]
    assert executed(tmp_path / "b") == [5, 6]


def test_a_damaged_checkpoint_is_replaced_by_the_one_that_the_storage_has(task, tmp_path):
    Driver(dies_at=4).work(task(tmp_path / "a"))
    (Store.at(tmp_path / "a").trial(RECORD) / "checkpoint.pt").write_text("")
    assert Driver().work(task(tmp_path / "a", attempt=2, acknowledged=3)).steps == [4, 5, 6]
    assert executed(tmp_path / "a") == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_that_is_damaged_at_the_storage_too_is_removed_there(task, tmp_path, storage):
    Driver(dies_at=4).work(task(tmp_path / "a"))
    system, root = fsspec.url_to_fs(f"{storage}/demo/trials/0000-key")
    system.pipe_file(f"{root}/checkpoint-00000004-0001.pt", b"")
    second = Driver(dies_at=5).work(task(tmp_path / "b", attempt=2, acknowledged=3))
    assert second.steps == [1, 2, 3, 4]
    assert executed(tmp_path / "b") == [1, 2, 3, 4, 5]
    names = stored(storage)
    assert [name for name in names if name.startswith("checkpoint")] == ["checkpoint-00000005-0002.pt"]
    assert (Store.at(tmp_path / "b").trial(RECORD) / "checkpoint.damaged.pt").exists()


def test_the_driver_gets_the_small_files_and_on_request_the_checkpoint(task, tmp_path, storage):
    Driver().work(task(tmp_path / "a"))
    store = Store.at(tmp_path / "driver")
    folder = store.trial(RECORD)
    fetched = fetch(RECORD, store=store, storage=storage)
    assert {path.name for path in fetched} == {"config.json", "environment.json", "log.txt", "result.json"}
    assert json.loads((folder / "result.json").read_text())["classes"] == ["Sky", "Road"]
    assert fetch(RECORD, store=store, storage=storage) == []
    assert fetch(RECORD, store=store, storage=storage, with_checkpoint=True) == [folder / "checkpoint.pt"]
    assert fetch(RECORD, store=store, storage=storage, with_checkpoint=True) == []
    assert {path.name for path in fetch(replace(RECORD, attempt=2), store=store, storage=storage)} == {
        path.name for path in fetched
    }


def test_nothing_is_fetched_into_the_folder_that_the_trial_was_trained_in(task, tmp_path, storage, monkeypatch):
    Driver().work(task(tmp_path / "shared"))
    monkeypatch.setattr(remote, "RemoteFolder", None)
    assert fetch(RECORD, store=Store.at(tmp_path / "shared"), storage=storage, with_checkpoint=True) == []


def test_checkpoints_that_are_kept_on_a_node_are_neither_sent_nor_fetched(task, tmp_path, storage):
    node = tmp_path / "a"
    Driver(dies_at=4).work(task(node))
    for name in ("checkpoint-2.pt", "checkpoint.damaged.pt"):
        (Store.at(node).trial(RECORD) / name).touch()
    Driver().work(task(node, attempt=2, acknowledged=3))
    assert [name for name in stored(storage) if name.endswith(".pt")] == ["checkpoint-00000006-0002.pt"]


@pytest.mark.slow  # trains a network twice
@pytest.mark.parametrize("storage", ["file"], indirect=True)
def test_a_training_in_rounds_goes_on_on_another_node_with_its_pseudo_labels(task, tmp_path, storage):
    root = generate_scenes(tmp_path / "scenes", size=64, train=4, val=2, seed=1)
    domains = {name: {"dataset": "scenes", "root": str(root), "domain": name} for name in ("urban", "rural")}
    data = {"source": domains["urban"], "target": domains["rural"], "height": 64, "width": 64}
    method = {"name": "self_training", "warm_up": 0.25, "rounds": 2}  # rounds begin after 2 and 5 of 8 steps

    def attempt(node, **options):
        plain = task(node, train="segda.training:train", **options)
        changed = {"data": data | {"cache": str(tmp_path / "cache")}, "method": method}
        rest = {"steps": 8, "batch_size": 4, "oracle": "never", "device": "cpu"}
        return replace(plain, config=plain.config | changed | rest)

    first = Driver(dies_at=4).work(attempt(tmp_path / "a"))
    assert {"0001-round-1-labels.npy", "0001-round-1.json", "checkpoint-00000004-0001.pt"} < set(stored(storage))
    assert not [
        path for path in fetch(RECORD, store=Store.at(tmp_path / "driver"), storage=storage) if "round" in path.name
    ]

    class Second(Driver):
        def __call__(self, message):
            super().__call__(message)
            if message.get("step") in (4, 6):
                names[message["step"]] = {name for name in stored(storage) if "round" in name}

    names = {}
    second = Second().work(attempt(tmp_path / "b", attempt=2, acknowledged=3))
    assert second.messages[-1] == {"event": "finished"}
    assert second.steps == [4, 5, 6, 7, 8]
    # Step 4 was computed by the first attempt and is only reported again; from step 5 on all is the second one's.
    assert names == {
        4: {"0001-round-1-labels.npy", "0001-round-1.json"},
        6: {"0002-round-2-labels.npy", "0002-round-2.json"},
    }
    assert not [name for name in stored(storage) if "round" in name]
    undisturbed = Driver().work(replace(attempt(tmp_path / "c"), storage=None))
    told = {message["step"]: message["metrics"] for message in first.messages + second.messages if "step" in message}
    for message in undisturbed.messages:
        if "step" in message:
            differing = {name for name, value in message["metrics"].items() if told[message["step"]][name] != value}
            assert differing <= {"train/seconds_per_step", "train/images_per_second"}


def write_round(folder, number, content):
    """Leave what the middle of a round leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("round-*"):
        path.unlink()
    (folder / f"round-{number}-labels.npy").write_text(content)
    (folder / f"round-{number}.json").write_text(content)
    (folder / "checkpoint.pt").write_text(content)


def test_a_worker_that_was_replaced_takes_no_pseudo_labels_from_its_successor(storage, tmp_path):
    folders = [Store.at(tmp_path / node).trial(RECORD) for node in "abc"]
    stale, successor, third = (
        TrialStorage(storage, folder=folder, attempt=attempt) for attempt, folder in enumerate(folders, start=1)
    )
    stale.begin(local_attempt=0)
    write_round(folders[0], 1, "first")
    stale.send(step=2)
    successor.begin(local_attempt=0)
    assert {path.name: path.read_text() for path in folders[1].iterdir()} == dict.fromkeys(
        ("round-1-labels.npy", "round-1.json", "checkpoint.pt"), "first"
    )
    write_round(folders[1], 2, "second")
    successor.send(step=4)
    write_round(folders[0], 2, "stale")  # other bits, as a GPU may give
    stale.send(step=3)
    third.begin(local_attempt=0)
    assert {path.name: path.read_text() for path in folders[2].iterdir()} == dict.fromkeys(
        ("round-2-labels.npy", "round-2.json", "checkpoint.pt"), "second"
    )


def test_what_an_attempt_left_without_a_checkpoint_is_not_taken_for_another_one_s(storage, tmp_path):
    folders = [Store.at(tmp_path / node).trial(RECORD) for node in "ab"]
    first, second = (
        TrialStorage(storage, folder=folder, attempt=attempt) for attempt, folder in enumerate(folders, start=1)
    )
    first.begin(local_attempt=0)
    write_round(folders[0], 1, "first")
    first.send(step=None)  # as after an error: maps go with their checkpoint only
    assert set(stored(storage)) == {"attempt-0001"}
    second.begin(local_attempt=0)
    assert not folders[1].exists() or not list(folders[1].iterdir())


def test_a_worker_that_was_suspended_while_it_sent_takes_no_file_from_its_successor(storage, tmp_path, monkeypatch):
    folders = [Store.at(tmp_path / node).trial(RECORD) for node in "ab"]
    stale, successor = (
        TrialStorage(storage, folder=folder, attempt=attempt) for attempt, folder in enumerate(folders, start=1)
    )
    stale.begin(local_attempt=0)
    for folder, content in zip(folders, ("stale", "new"), strict=True):
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(content)
    stale.check_ours()  # here it is suspended
    successor.begin(local_attempt=0)
    successor.send()
    stale.send()
    record, store = replace(RECORD, attempt=2), Store.at(tmp_path / "driver")
    (path,) = fetch(record, store=store, storage=storage)
    assert (path.name, path.read_text()) == ("result.json", "new")


def test_a_worker_that_is_suspended_while_it_begins_does_not_take_a_trial_from_its_successor(
    storage, tmp_path, monkeypatch
):
    late, successor = (
        TrialStorage(storage, folder=Store.at(tmp_path / node).trial(RECORD), attempt=attempt)
        for node, attempt in (("a", 2), ("b", 3))
    )
    write = remote_folder.RemoteFolder.write

    def suspended(self, name, content):
        monkeypatch.setattr(remote_folder.RemoteFolder, "write", write)
        successor.begin(local_attempt=0)
        write(self, name, content)

    monkeypatch.setattr(remote_folder.RemoteFolder, "write", suspended)
    with pytest.raises(StaleAttemptError, match="attempt 2 begins after attempt 3"):
        late.begin(local_attempt=0)
    successor.check_ours()


def test_a_trial_that_no_worker_had_is_not_looked_for(tmp_path, storage, monkeypatch):
    monkeypatch.setattr(remote, "RemoteFolder", None)
    infeasible = replace(RECORD, attempt=0)
    assert fetch(infeasible, store=Store.at(tmp_path / "driver"), storage=storage, with_checkpoint=True) == []


def test_a_trial_that_never_reported_has_nothing_to_fetch(tmp_path, storage):
    assert fetch(RECORD, store=Store.at(tmp_path / "driver"), storage=storage) == []


def test_a_storage_that_can_be_written_to_passes_the_check_and_keeps_no_trace(storage):
    check_storage(storage)
    system, root = fsspec.url_to_fs(storage)
    assert system.find(root) == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [("nowhere://bucket", "cannot be opened: Protocol not known"), ("file:///proc/sweeps", "cannot write to")],
)
def test_an_address_that_cannot_be_used_is_named_on_one_line(address, expected):
    with pytest.raises(StorageError) as caught:
        check_storage(address)
    assert expected in str(caught.value)
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named_on_one_line(monkeypatch):
    def url_to_fs(address):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", url_to_fs)
    with pytest.raises(StorageError, match=r"Install s3fs to access S3.*pip install s3fs"):
        check_storage("s3://bucket/sweeps")


WORKER = """
import json, sys
from sweeps.execution.task import Task
from sweeps.execution.trial_log import LOG
from sweeps.execution.worker import run_task
run_task(Task(**json.loads(sys.argv[1])), lambda message: None)
"""


@pytest.mark.slow  # a process that imports torch
@pytest.mark.parametrize("storage", ["file"], indirect=True)
def test_a_killed_process_is_continued_on_another_node(task, tmp_path):
    dying = task(tmp_path / "a", train="fakes:dies_once")
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    command = [sys.executable, "-c", WORKER, json.dumps(dying.plain())]
    ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert executed(tmp_path / "a") == [1, 2]
    shutil.rmtree(tmp_path / "a")  # the node is gone for good
    assert Driver().work(task(tmp_path / "b", attempt=2, acknowledged=2)).steps == [3, 4, 5, 6]
    assert executed(tmp_path / "b") == [3, 4, 5, 6]
