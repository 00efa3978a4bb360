"""Results that are taken over, where sweeps keep their files at a storage address; see also test_coordinator.py."""

import json
import shutil
import time
from dataclasses import replace

import pytest
import torch

from sweeps.audit.audit import audit
from sweeps.execution import remote_folder
from sweeps.execution.remote import fetch
from sweeps.execution.reuse import take_over
from sweeps.execution.task import DEFAULT_TRAIN, Task
from sweeps.execution.worker import run_task
from sweeps.reports.view import load_view
from sweeps.store import Store
from sweeps.trial import TrialKind, TrialRecord, TrialState

QUADRATIC = "fakes:quadratic"


@pytest.fixture
def storage(tmp_path):
    return f"file://{tmp_path}/bucket"


@pytest.fixture
def trained(make_spec, begun, ledger, tmp_path, storage):
    """A complete trial of a sweep with a storage address, whose worker had a folder of its own."""
    spec = begun(make_spec(storage=storage))
    config = spec.train_config({"optimizer.lr": 0.01}, seed=0).model_dump(mode="json")
    params = {"optimizer.lr": 0.01}
    record = TrialRecord("demo", 0, "key", TrialKind.SEARCH, params=params, config=config, seed=0)
    ledger.add_trial(record)
    attempt = ledger.start_attempt("demo", 0, worker="elsewhere:1").attempt
    folder = Store.at(tmp_path / "elsewhere").trial(record)
    threads = torch.get_num_threads()
    task = Task(0, attempt, 0, str(folder), config, threads, train=QUADRATIC, storage=storage)

    def send(message):
        if message["event"] == "point":
            told = {name: message[name] for name in ("step", "metrics")}
            ledger.add_point("demo", 0, attempt=attempt, timestamp=time.time(), **told)

    run_task(task, send)
    ledger.update_trial("demo", 0, state=TrialState.COMPLETE, finished=4e9)
    shutil.rmtree(tmp_path / "elsewhere")
    return ledger.trial("demo", 0)


@pytest.fixture
def twin(trained, make_spec, begun, storage):
    """The same trial, about to be added to another sweep."""
    begun(make_spec(name="twin", storage=storage))
    fresh = {"state": TrialState.QUEUED, "attempt": 0, "step": 0, "metrics": {}, "started": None, "finished": None}
    return replace(trained, sweep="twin", created=5e9, **fresh)


def test_a_result_that_lies_at_a_storage_address_is_taken_over_with_its_checkpoint(twin, ledger, store, tmp_path):
    finished, points = take_over(twin, ledger=ledger, store=store, train=QUADRATIC)
    assert (finished.state, finished.reused, finished.step) == (TrialState.COMPLETE, "demo/0", 6)
    assert [point.step for point in points] == [1, 2, 3, 4, 5, 6]
    content = (store.trial(finished) / "checkpoint.pt").read_text()
    assert json.loads(content)[-1][0] == 6
    # Where the other sweep's files are is no concern of this one any more.
    shutil.rmtree(tmp_path / "bucket" / "demo")
    other_node = Store.at(tmp_path / "other-node")
    fetch(finished, store=other_node, storage=f"file://{tmp_path}/bucket", with_checkpoint=True)
    assert (other_node.trial(finished) / "checkpoint.pt").read_text() == content


def test_a_result_that_was_taken_over_passes_the_audit_on_every_node(twin, ledger, store, tmp_path):
    finished, points = take_over(twin, ledger=ledger, store=store, train=QUADRATIC)
    ledger.add_trial(finished, points=points)

    def history(checkpoint):
        return [(step, metrics) for step, metrics in json.loads(checkpoint.read_text())]

    for place in (store, Store.at(tmp_path / "other-node")):
        found = audit("twin", ledger=ledger, store=place, mlflow=False, train=QUADRATIC, history=history)
        assert [problem for check in found for problem in check.problems] == []
        counts = {check.claim: check.count for check in found}
        assert counts["the trials' checkpoints have the same reports"] == 6


@pytest.mark.parametrize("name", ["0001-result.json", "checkpoint-00000006-0001.pt"])
def test_what_is_not_whole_at_the_storage_address_is_trained(twin, ledger, store, tmp_path, name):
    (tmp_path / "bucket" / "demo" / "trials" / "0000-key" / name).unlink()
    assert take_over(twin, ledger=ledger, store=store, train=QUADRATIC) is None


def test_a_result_whose_checkpoint_has_other_bytes_than_were_written_is_trained(twin, ledger, store, tmp_path, caplog):
    path = tmp_path / "bucket" / "demo" / "trials" / "0000-key" / "checkpoint-00000006-0001.pt"
    torch.save({"weight": torch.zeros(100)}, path)
    assert take_over(twin, ledger=ledger, store=store, train=DEFAULT_TRAIN) is not None
    (store.trial(twin) / "checkpoint.pt").unlink()
    path.write_bytes(path.read_bytes().replace(bytes(100), bytes(99) + b"1", 1))
    shutil.rmtree(store.sweep("demo"))
    assert take_over(twin, ledger=ledger, store=store, train=DEFAULT_TRAIN) is None
    assert "is trained although demo/0 has its result" in caplog.text


def test_a_storage_address_that_does_not_answer_is_a_reason_to_train(twin, ledger, store, monkeypatch, caplog):
    def names(self):
        raise remote_folder.StorageError("bucket is away")

    monkeypatch.setattr(remote_folder.RemoteFolder, "names", names)
    assert take_over(twin, ledger=ledger, store=store, train=QUADRATIC) is None
    assert "is trained although demo/0 has its result: bucket is away" in caplog.text


def test_a_report_has_the_files_of_trials_that_ran_on_other_nodes(trained, ledger, store):
    view = load_view(ledger, store, "demo")
    assert view.results[0]["classes"] == ["Sky", "Road"]
    assert view.environments[0]["git_commit"] == "abc"
    assert not (store.trial(trained) / "checkpoint.pt").exists()


def test_a_report_is_written_while_the_storage_address_is_away(trained, ledger, store, monkeypatch, caplog):
    def names(self):
        raise remote_folder.StorageError("bucket is away")

    monkeypatch.setattr(remote_folder.RemoteFolder, "names", names)
    assert load_view(ledger, store, "demo").results == {}
    assert "lacks files of trials that ran on other nodes: bucket is away" in caplog.text
