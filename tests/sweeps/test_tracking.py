"""MLflow as a projection of the ledger, on a real SQLite store."""

import json
import shutil
import socket
import sqlite3
import threading
import time
import urllib.request
import warnings

import fakes
import mlflow
import numpy
import pytest
import torch
import uvicorn
from projected import add, compared, complete, repaired, report, runs, synced

from segda.checkpoint import Interval, save_checkpoint
from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.losses import SegmentationLoss
from segda.methods import METHODS
from segda.models import build_segmenter
from segda.models.bisenet_v1 import BiSeNetV1
from segda.prediction import predict_batch
from sweeps.failures import FailureClass
from sweeps.file.spec import SweepSpec
from sweeps.ledger.lease import Lease
from sweeps.tracking import MlflowClient, Tracker, TrackingError, compare, default_uri
from sweeps.tracking.aliases import is_alias
from sweeps.trial import TrialState


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
    others = [name for name in names[1:] if not is_alias(name)]
    assert others == sorted(others, key=lambda name: (name.startswith("profile/"), name))


def test_a_latency_reaches_mlflow_once_it_was_measured_alone(tracker, client, ledger, spec):
    doubtful = {"macs": 1e9, "latency_ms": 75.2, "latency_spread": 0.4, "latency_reliable": 0.0}
    add(ledger, spec, 0, profile=doubtful)
    report(ledger, spec, 0, 1)
    ledger.update_trial("demo", 0, state=TrialState.COMPLETE, finished=2000.0)
    following = synced(tracker())
    run = runs(client, spec)[0]
    assert {name for name in run.data.metrics if name.startswith("profile/")} == {"profile/macs"}
    assert "latency and fps are not reliable" in run.data.tags["sweep.marked"]
    assert run.info.run_name.startswith("000¶ ")
    alone = doubtful | {"latency_ms": 11.1, "latency_spread": 0.01, "latency_reliable": 1.0}
    ledger.update_trial("demo", 0, profile=alone)
    following.sync(final=True)
    run = runs(client, spec)[0]
    assert {name: run.data.metrics[f"profile/{name}"] for name in alone} == alone
    assert "sweep.marked" not in run.data.tags
    assert compared(following) == []


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


def test_of_two_runs_of_a_trial_one_is_kept_and_the_other_marked_and_deleted(tracker, client, ledger, spec):
    add(ledger, spec, 0)
    report(ledger, spec, 0, 1)
    synced(tracker())
    first = runs(client, spec)[0]
    second = client.create_run(first.info.experiment_id, tags=first.data.tags)  # by a driver at the same time
    assert any("2 runs" in problem for problem in compared(tracker(), is_driven=True))
    repaired(tracker(), final=False)
    assert runs(client, spec)[0].info.run_id == first.info.run_id
    removed = client.get_run(second.info.run_id)
    assert (removed.info.lifecycle_stage, removed.info.status) == ("deleted", "KILLED")
    assert removed.data.tags["sweep.removed"] == f"the same as run {first.info.run_id}"
    assert compared(tracker(), is_driven=True) == []


def test_a_run_of_a_trial_that_the_ledger_does_not_have_is_removed(tracker, client, ledger, spec):
    add(ledger, spec, 0)
    synced(tracker())
    first = runs(client, spec)[0]
    orphan = client.create_run(first.info.experiment_id, tags=first.data.tags | {"sweep.number": "7"})
    repaired(tracker())
    assert set(runs(client, spec)) == {0}
    assert client.get_run(orphan.info.run_id).info.lifecycle_stage == "deleted"


@pytest.mark.parametrize("lost", ["the sweep's run", "the experiment", "everything"])
def test_sync_builds_what_was_deleted_again(
    tracker, client, ledger, spec, mlflow_store, mlflow_template, tmp_path, lost
):
    for number in range(2):
        add(ledger, spec, number)
        report(ledger, spec, number, 1)
    ledger.update_trial("demo", 0, state=TrialState.COMPLETE, finished=2000.0)
    ledger.update_trial("demo", 1, state=TrialState.QUEUED)
    synced(tracker(), final=True)
    if lost == "the sweep's run":
        client.delete_run(ledger.sweep("demo").parent_run_id)
    elif lost == "the experiment":
        client.delete_experiment(client.get_experiment_by_name("demo").experiment_id)
    else:
        shutil.copy(mlflow_template, tmp_path / "new.db")
        spec = SweepSpec.model_validate(
            spec.canonical() | {"tracking": {"uri": f"sqlite:///{tmp_path / 'new.db'}", "experiment": "other"}}
        )
    found = compare(spec, ledger=ledger, store=mlflow_store, is_driven=False)
    assert not all(check.ok for check in found)
    repaired(
        Tracker(spec.tracking.uri, experiment=spec.tracking.experiment, ledger=ledger, spec=spec, store=mlflow_store)
    )
    found = compare(spec, ledger=ledger, store=mlflow_store, is_driven=False)
    assert [problem for check in found for problem in check.problems] == []
    # Two reported figures and one of the architecture each; under short names its cost again, and what the complete one reached.
    assert [check.count for check in found] == [2, 3, found[2].count, 2 * 3 + 2 + 1, 0]


def test_sync_brings_a_deleted_figure_back(tracker, ledger, spec, mlflow_store):
    add(ledger, spec, 0)
    report(ledger, spec, 0, 1)
    synced(tracker())
    with sqlite3.connect(mlflow_store.mlflow) as database:
        database.execute("DELETE FROM metrics WHERE key = 'source/val/miou'")
    assert "trial 0, source/val/miou: missing at step 1" in compared(tracker())
    repaired(tracker())
    assert compared(tracker()) == []


def test_what_became_of_a_trial_is_in_tags_and_a_failure_that_was_overcome_is_not(tracker, client, ledger, spec):
    add(ledger, spec, 0)
    ledger.update_trial(
        "demo",
        0,
        failure=FailureClass.WORKER_LOST,
        error="gone",
        worker="host:1",
        device="GPU 0",
        micro_batch=2,
        seconds=12.34,
    )
    follower = synced(tracker())
    tags = runs(client, spec)[0].data.tags
    assert {name: tags[f"sweep.{name}"] for name in ("device", "micro_batch", "seconds", "worker", "failure")} == {
        "device": "GPU 0",
        "micro_batch": "2",
        "seconds": "12.3",
        "worker": "host:1",
        "failure": "worker_lost",
    }
    assert tags["sweep.marked"] == "trained with 2 images at once instead of 4: batch normalization saw fewer images"
    assert runs(client, spec)[0].info.run_name == "000† source_only"
    ledger.update_trial("demo", 0, failure=None, error=None)
    follower.sync()
    assert not {"sweep.failure", "sweep.error"} & runs(client, spec)[0].data.tags.keys()


def test_a_driver_that_was_refused_does_not_end_the_runs_of_the_one_at_work(tracker, client, ledger, spec):
    add(ledger, spec, 0)
    report(ledger, spec, 0, 1)
    synced(tracker())
    Lease(ledger, "demo").take()
    refused = tracker()
    refused.start()
    assert refused.stop()
    assert runs(client, spec)[0].info.status == "RUNNING"
    assert runs(client, spec, "sweep")[-1].info.status == "RUNNING"


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
    inputs = {item.tags[0].value: item.dataset for item in run.inputs.dataset_inputs}
    assert {context: dataset.name for context, dataset in inputs.items()} == {
        "source": "camvid/day",
        "target": "camvid/dusk",
    }
    assert inputs["source"].digest == "0123456789abcdef"
    assert run.data.tags["mlflow.source.git.commit"] == "abc"


def test_the_sweeps_run_shows_the_pick_its_figures_the_table_and_the_front(tracker, client, ledger, spec, mlflow_store):
    complete(ledger, spec, 0, 0.5)
    follower = synced(tracker(), final=True)
    complete(ledger, spec, 1, 0.75)
    follower.sync(final=True)
    follower.sync(final=True)
    parent = runs(client, spec, "sweep")[-1]
    assert parent.data.tags["sweep.picked"] == "1"
    assert parent.data.tags["sweep.picked_run"] == ledger.trial("demo", 1).run_id
    assert parent.data.tags["pick.optimizer.lr"] == "0.01"
    assert parent.data.metrics["source/val/miou"] == 0.75
    assert parent.data.metrics["profile/macs"] == 1e9
    # One point per pick; what is sent again changes nothing.
    history = client.get_metric_history(parent.info.run_id, "source/val/miou")
    assert [(point.step, point.value, point.timestamp) for point in history] == [
        (1, 0.5, 2_000_000),
        (2, 0.75, 2_001_000),
    ]
    folder = mlflow_store.mlartifacts / parent.info.run_id / "artifacts"
    table = json.loads((folder / "trials.json").read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [(row["number"], row["source_miou"]) for row in rows] == [(0, 0.5), (1, 0.75)]
    page = (folder / "pareto.html").read_text()
    assert "Plotly.newPlot" in page
    assert "http" not in page.split("</script>")[-2].split("Plotly.newPlot")[1].split("plotlyServerURL")[0]
    assert (folder / "sweep.yaml").is_file()


def test_what_the_run_of_a_running_sweep_shows_is_updated_from_time_to_time(tracker, client, ledger, spec, monkeypatch):
    follower = synced(tracker())
    complete(ledger, spec, 0, 0.5)
    follower.sync()
    assert "sweep.picked" not in runs(client, spec, "sweep")[-1].data.tags
    monkeypatch.setattr("sweeps.tracking.follower.SUMMARY_SECONDS", 0)
    follower.sync()
    parent = runs(client, spec, "sweep")[-1]
    assert (parent.info.status, parent.data.tags["sweep.picked"]) == ("RUNNING", "0")


def asked_of_a_server(model, question):
    """Return what `mlflow models serve` answers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow about itself
        from mlflow.pyfunc import scoring_server
    server = uvicorn.Server(uvicorn.Config(scoring_server.init(model), log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            place = f"http://127.0.0.1:{listening.getsockname()[1]}/invocations"
            asked = urllib.request.Request(place, json.dumps(question).encode(), {"Content-Type": "application/json"})
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return json.load(answer)
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.mark.slow  # exports a network
def test_the_pick_is_registered_once_with_a_signature_and_gives_the_same_classes(
    make_spec, begun, client, ledger, mlflow_store
):
    spec = begun(make_spec(tracking={"register_as": "street"}))
    record = complete(ledger, spec, 0, 0.5)
    torch.manual_seed(0)
    config = TrainConfig.model_validate(record.config)
    num_classes = len(DATASETS["camvid"].classes)
    segmenter = build_segmenter(BiSeNetV1.Config(), num_classes=num_classes, pretrained=False)
    method = METHODS["source_only"](
        segmenter, config=config.method, loss=SegmentationLoss("cross_entropy"), num_classes=num_classes
    )
    save_checkpoint(
        mlflow_store.trial(record) / "checkpoint.pt",
        config=config,
        step=6,
        seconds=1.0,
        method=method,
        optimizers={},
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        history=[],
        interval=Interval(),
        round=None,
        masks={},
    )
    for _ in range(2):
        synced(Tracker(None, experiment=None, ledger=ledger, spec=spec, store=mlflow_store), final=True)
    (version,) = client.search_model_versions("name = 'street'")
    assert (
        version.tags.items()
        >= {"sweep.name": "demo", "sweep.number": "0", "sweep.selection": "source_validation"}.items()
    )
    assert version.run_id == ledger.trial("demo", 0).run_id
    place = client.get_model_version_download_uri("street", version.version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow about itself
        served = mlflow.pyfunc.load_model(place)
    for size in ((32, 32), (65, 97)):
        image = numpy.random.default_rng(1).integers(0, 256, (3, 3, *size), dtype=numpy.uint8)
        classes = served.predict(image)["classes"]
        expected = predict_batch(segmenter.eval(), image.transpose(0, 2, 3, 1))
        assert classes.dtype == numpy.uint8
        assert (classes == expected).mean() > 0.999
    answer = asked_of_a_server(served, {"inputs": image[:1].tolist()})
    assert numpy.array_equal(answer["predictions"]["classes"], classes[:1])
    assert served.metadata.signature.inputs.inputs[0].shape == (-1, 3, -1, -1)
    assert served.metadata.metadata["classes"] == list(DATASETS["camvid"].classes)
    assert served.input_example.shape[1] == 3


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


def use(follower, client):
    follower._client = follower._projection._client = client


class Faulty:
    """A client whose calls fail; `answers_are_lost`: after the server did what was asked."""

    def __init__(self, client, *, answers_are_lost=False, only=None):
        self.client, self.answers_are_lost, self.only = client, answers_are_lost, only

    def __getattr__(self, name):
        def call(*arguments, **options):
            fails = self.only in (None, name)
            result = getattr(self.client, name)(*arguments, **options) if not fails or self.answers_are_lost else None
            if fails:
                self.only = "nothing more" if self.only else None
                raise ConnectionError("http://me:secret@server did not answer")
            return result

        return call


def test_an_mlflow_that_fails_later_delays_nothing_and_is_named_at_the_end(tracker, ledger, spec):
    follower = tracker()
    follower.start()
    use(follower, Faulty(follower._client))
    add(ledger, spec, 0)
    started = time.monotonic()
    assert not follower.stop(timeout=10)
    assert time.monotonic() - started < 10
    assert follower.last_error == "http://***@server did not answer"


@pytest.mark.parametrize("call", ["create_run", "log_batch", "set_tag", "set_terminated", "log_artifact"])
def test_what_the_server_did_before_its_answer_was_lost_is_not_done_twice(tracker, client, ledger, spec, call):
    add(ledger, spec, 0)
    report(ledger, spec, 0, 1)
    ledger.update_trial("demo", 0, state=TrialState.COMPLETE, finished=2000.0)
    follower = tracker()
    follower.connect()
    use(follower, Faulty(client, answers_are_lost=True, only=call))
    with pytest.raises(ConnectionError):
        follower.sync(final=True)
    follower.sync(final=True)
    found = list(client.search_runs([client.get_experiment_by_name("demo").experiment_id]))
    assert sorted(run.data.tags["sweep.role"] for run in found) == ["sweep", "trial"]
    run = runs(client, spec)[0]
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.lr"] == "0.01"
    assert len(client.get_metric_history(run.info.run_id, "source/val/miou")) == 1
    assert all(check.ok for check in compare(spec, ledger=ledger, store=follower._store, is_driven=False))


def test_an_mlflow_that_does_not_answer_keeps_nobody_waiting(tracker, ledger, spec):
    asked, released = threading.Event(), threading.Event()

    class Silent:
        def __getattr__(self, name):
            asked.set()
            released.wait(30)
            raise ConnectionError("no answer")

    follower = tracker()
    follower.start()
    use(follower, Silent())
    add(ledger, spec, 0)
    assert asked.wait(20)
    report(ledger, spec, 0, 1)  # while the call hangs
    assert not follower.stop(timeout=0.1)
    assert follower.last_error == "MLflow did not answer within 0 s"
    released.set()
    follower._thread.join(20)


def test_an_unreachable_mlflow_stops_no_sweep_that_goes_on(spec, ledger, store, caplog):
    tracker = Tracker("http://127.0.0.1:9", experiment=None, ledger=ledger, spec=spec, store=store)
    tracker.start(required=False)
    assert "the sweep goes on" in caplog.text
    assert not tracker.stop()
    assert "refused" in tracker.last_error


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
