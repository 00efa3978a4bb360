"""MLflow as a projection of the ledger, on a real SQLite store."""

import json
import socket
import threading
import time
from dataclasses import replace

import fakes
import pytest

from sweeps.tracking import MlflowClient, Tracker, TrackingError, default_uri, masked
from sweeps.trial import FailureClass, TrialKind, TrialRecord, TrialState


@pytest.fixture
def spec(make_spec, begun):
    return begun(make_spec())


@pytest.fixture
def tracker(spec, ledger, mlflow_store):
    def make(**options):
        return Tracker(None, experiment=None, ledger=ledger, spec=spec, store=mlflow_store, **options)

    return make


@pytest.fixture
def client(mlflow_store):
    return MlflowClient(default_uri(mlflow_store))


def add(ledger, spec, number, **changes):
    config = spec.train_config({"optimizer.lr": 0.01}, seed=0)
    record = TrialRecord(
        sweep=spec.name,
        number=number,
        key=f"key{number}",
        kind=TrialKind.SEARCH,
        params={"optimizer.lr": 0.01},
        config=config.model_dump(mode="json"),
        seed=0,
        profile={"macs": 1e9},
    )
    ledger.add_trial(replace(record, **changes))
    ledger.start_attempt(spec.name, number, worker="host:1")
    return record


def report(ledger, spec, number, step, value=0.5):
    metrics = {"source/val/miou": value, "source/val/iou/Road (wet)": value}
    ledger.add_point(spec.name, number, attempt=1, step=step, timestamp=1000.0 + step, metrics=metrics)


def runs(client, spec, role="trial"):
    experiment = client.get_experiment_by_name(spec.name)
    found = client.search_runs([experiment.experiment_id], f"tags.`sweep.role` = '{role}'")
    return {int(run.data.tags.get("sweep.number", -1)): run for run in found}


def synced(tracker, **options):
    tracker.connect()
    tracker.sync(**options)


def test_each_trial_is_one_run_under_the_sweep_with_params_and_recorded_times(tracker, client, ledger, spec):
    add(ledger, spec, 0)
    report(ledger, spec, 0, 1, 0.25)
    report(ledger, spec, 0, 2, 0.5)
    synced(tracker())
    parent = runs(client, spec, "sweep")[-1]
    run = runs(client, spec)[0]
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id == ledger.sweep("demo").parent_run_id
    assert run.info.run_name == "000 source_only"
    assert run.info.status == "RUNNING"
    assert run.data.params["optimizer.lr"] == "0.01"
    assert "data.source.root" not in run.data.params
    assert run.data.metrics["profile/macs"] == 1e9
    assert run.data.metrics["source/val/iou/Road _wet_"] == 0.5
    history = client.get_metric_history(run.info.run_id, "source/val/miou")
    assert [(point.step, point.value, point.timestamp) for point in history] == [(1, 0.25, 1001000), (2, 0.5, 1002000)]
    assert ledger.trial("demo", 0).run_id == run.info.run_id


def test_the_first_metric_of_a_run_is_the_objective_which_is_what_plots_open_with(tracker, client, ledger, spec):
    add(ledger, spec, 0)
    report(ledger, spec, 0, 1, 0.25)
    synced(tracker())
    names = list(runs(client, spec)[0].data.metrics)
    assert names[0] == spec.objectives[0].metric
    assert names[1:] == sorted(names[1:], key=lambda name: (name.startswith("profile/"), name))


def test_sending_everything_again_changes_nothing(tracker, client, ledger, spec):
    add(ledger, spec, 0)
    report(ledger, spec, 0, 1)
    synced(tracker())
    run_id = runs(client, spec)[0].info.run_id
    client.set_tag(ledger.sweep("demo").parent_run_id, "sweep.cursor", "0")
    synced(tracker())
    assert [run.info.run_id for run in runs(client, spec).values()] == [run_id]
    assert len(client.get_metric_history(run_id, "source/val/miou")) == 1


def test_a_run_that_the_ledger_never_heard_of_is_adopted(tracker, client, ledger, spec):
    add(ledger, spec, 0)
    synced(tracker())
    run_id = ledger.trial("demo", 0).run_id
    ledger.update_trial("demo", 0, run_id=None)  # as if the driver had died between the two
    synced(tracker())
    assert ledger.trial("demo", 0).run_id == run_id
    assert len(runs(client, spec)) == 1


def test_a_deleted_run_is_built_again_with_all_its_points(tracker, client, ledger, spec):
    add(ledger, spec, 0)
    report(ledger, spec, 0, 1)
    synced(tracker())
    client.delete_run(ledger.trial("demo", 0).run_id)
    synced(tracker())
    run = runs(client, spec)[0]
    assert run.info.run_id == ledger.trial("demo", 0).run_id
    assert len(client.get_metric_history(run.info.run_id, "source/val/miou")) == 1


def test_no_run_stays_running_after_the_end(tracker, client, ledger, spec):
    ends = {
        0: {"state": TrialState.COMPLETE},
        1: {"state": TrialState.PRUNED},
        2: {"state": TrialState.FAILED, "failure": FailureClass.DIVERGED, "error": "loss became NaN"},
        3: {"state": TrialState.QUEUED},
    }
    for number, end in ends.items():
        add(ledger, spec, number)
        ledger.update_trial("demo", number, finished=2000.0, **end)
    synced(tracker(), final=True)
    found = runs(client, spec)
    assert {number: run.info.status for number, run in found.items()} == {
        0: "FINISHED",
        1: "FINISHED",
        2: "FAILED",
        3: "SCHEDULED",
    }
    assert found[1].data.tags["sweep.state"] == "pruned"
    assert found[2].data.tags["sweep.error"] == "loss became NaN"
    assert found[0].info.end_time == 2_000_000
    assert runs(client, spec, "sweep")[-1].info.status == "SCHEDULED"
    ledger.update_trial("demo", 3, state=TrialState.COMPLETE)
    synced(tracker(), final=True)
    assert runs(client, spec, "sweep")[-1].info.status == "FINISHED"


def test_files_of_a_finished_trial_and_the_checkpoint_of_the_picked_one_are_kept(
    tracker, client, ledger, spec, mlflow_store
):
    record = add(ledger, spec, 0)
    folder = mlflow_store.trial(record)
    folder.mkdir(parents=True)
    config = spec.train_config({"optimizer.lr": 0.01}, seed=0)
    fakes.quadratic(
        config,
        lambda step, metrics, checkpoint: ledger.add_point(
            "demo", 0, attempt=1, step=step, timestamp=1.0, metrics=metrics
        ),
        folder=folder,
    )
    ledger.update_trial("demo", 0, state=TrialState.COMPLETE, finished=2000.0)
    synced(tracker(), final=True)
    run = runs(client, spec)[0]
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"config.json", "environment.json", "result.json", "per_class.json", "checkpoint.pt"} <= names
    table = json.loads((mlflow_store.mlartifacts / run.info.run_id / "artifacts" / "per_class.json").read_text())
    assert table == {"columns": ["class", "source/val"], "data": [["Sky", 0.4], ["Road", None]]}
    assert run.inputs.dataset_inputs[0].dataset.name == "camvid/day -> camvid/dusk"
    assert run.data.tags["mlflow.source.git.commit"] == "abc"


def test_the_background_thread_follows_the_ledger_and_stops(tracker, client, ledger, spec):
    add(ledger, spec, 0)
    follower = tracker()
    follower.start()
    report(ledger, spec, 0, 1)
    deadline = time.monotonic() + 20
    while not runs(client, spec) or not runs(client, spec)[0].data.metrics.get("source/val/miou"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    ledger.update_trial("demo", 0, state=TrialState.COMPLETE, finished=2000.0)
    assert follower.stop()
    assert runs(client, spec)[0].info.status == "FINISHED"
    assert not [thread for thread in threading.enumerate() if thread.name == "mlflow-tracker"]


def test_an_mlflow_that_fails_later_delays_nothing_and_is_named_at_the_end(tracker, ledger, spec):
    follower = tracker()
    follower.start()

    class Down:
        def __getattr__(self, name):
            raise ConnectionError("http://me:secret@server refused")

    follower._client = Down()
    add(ledger, spec, 0)
    started = time.monotonic()
    assert not follower.stop(timeout=10)
    assert time.monotonic() - started < 10
    assert follower.last_error == "http://***@server refused"


def test_an_unreachable_server_is_named_without_its_password(spec, ledger, store):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://me:secret@127.0.0.1:{port}"
    tracker = Tracker(uri, experiment=None, ledger=ledger, spec=spec, store=store)
    started = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        tracker.connect()
    assert time.monotonic() - started < 10
    assert "127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [("http://a:b@h/p", "http://***@h/p"), ("sqlite:////runs/mlflow.db", "sqlite:////runs/mlflow.db")],
)
def test_credentials_are_masked(uri, shown):
    assert masked(uri) == shown
