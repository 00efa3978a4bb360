"""MLflow when somebody has renamed, deleted or restored something, and when it refuses what it is sent."""

import math
import shutil
import sqlite3
from contextlib import closing

import pytest
from mlflow.exceptions import MlflowException
from projected import add, compared, complete, repaired, report, runs, synced

from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import Point
from sweeps.tracking import MlflowClient, Tracker, default_uri, limits, registry
from sweeps.tracking.aliases import is_alias
from sweeps.tracking.limits import cut, key_name
from sweeps.tracking.runs import cursor_text
from sweeps.trial import TrialState


@pytest.fixture
def spec(make_spec, begun):
    return begun(make_spec())


@pytest.fixture
def tracker(spec, ledger, mlflow_store):
    def make(*, spec=spec, ledger=ledger, uri=None):
        return Tracker(uri, experiment=spec.tracking.experiment, ledger=ledger, spec=spec, store=mlflow_store)

    return make


@pytest.fixture
def client(mlflow_store):
    return MlflowClient(default_uri(mlflow_store))


def all_runs(client):
    places = [experiment.experiment_id for experiment in client.search_experiments()]
    return {run.info.run_id: run for run in client.search_runs(places)}


# Experiments


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_renamed_experiment_stays_the_sweeps(tracker, client, ledger, spec, is_taken):
    add(ledger, spec, 0)
    report(ledger, spec, 0, 1)
    first = synced(tracker())
    before = all_runs(client).keys()
    client.rename_experiment(client.get_experiment_by_name("demo").experiment_id, "for the paper")
    if is_taken:
        client.create_experiment("demo")  # by somebody else
    report(ledger, spec, 0, 2)
    first.sync()
    repaired(tracker())
    follower = tracker()
    assert all_runs(client).keys() == before
    assert (client.get_experiment_by_name("demo") is not None) == is_taken
    assert compared(follower) == []
    synced(follower)
    assert all_runs(client).keys() == before


def test_a_renamed_experiment_is_found_after_the_sweeps_run_was_removed_for_good(
    tracker, client, ledger, spec, mlflow_store
):
    add(ledger, spec, 0)
    synced(tracker())
    parent = ledger.sweep("demo").parent_run_id
    client.rename_experiment(client.get_experiment_by_name("demo").experiment_id, "for the paper")
    with closing(sqlite3.connect(mlflow_store.mlflow)) as database, database:
        for table in ("tags", "params", "metrics", "latest_metrics", "runs"):
            database.execute(f"DELETE FROM {table} WHERE run_uuid = ?", [parent])
    repaired(tracker())
    assert client.get_experiment_by_name("demo") is None
    assert compared(tracker()) == []


def test_another_experiment_in_the_sweep_file_is_followed(tracker, client, ledger, spec):
    add(ledger, spec, 0)
    synced(tracker())
    other = SweepSpec.model_validate(spec.canonical() | {"tracking": {"experiment": "other"}})
    synced(tracker(spec=other))
    place = client.get_experiment_by_name("other").experiment_id
    assert {run.data.tags["sweep.role"] for run in client.search_runs([place])} == {"sweep", "trial"}


def test_a_deleted_experiment_comes_back_with_its_runs_while_the_sweep_goes_on(tracker, client, ledger, spec, caplog):
    add(ledger, spec, 0)
    follower = synced(tracker())
    before = all_runs(client).keys()
    client.delete_experiment(client.get_experiment_by_name("demo").experiment_id)
    report(ledger, spec, 0, 1)
    with pytest.raises(MlflowException):
        follower.sync()
    follower.sync()
    assert all_runs(client).keys() == before
    assert "had been deleted and was restored" in caplog.text
    assert compared(follower, is_driven=True) == []


def test_another_mlflow_gets_everything(tracker, ledger, spec, tmp_path, mlflow_template):
    add(ledger, spec, 0)
    report(ledger, spec, 0, 1)
    synced(tracker())
    shutil.copy(mlflow_template, tmp_path / "other.db")
    uri = f"sqlite:///{tmp_path / 'other.db'}"
    synced(tracker(uri=uri))
    assert [run.data.metrics["source/val/miou"] for run in runs(MlflowClient(uri), spec).values()] == [0.5]


# A ledger that was restored from a backup


@pytest.fixture
def backup(ledger, store, tmp_path):
    def make():
        with closing(sqlite3.connect(store.ledger)) as source, closing(sqlite3.connect(tmp_path / "old.db")) as kept:
            source.backup(kept)
        return lambda: Ledger.open(tmp_path / "old.db")

    return make


def history(client, run, name="source/val/miou"):
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]


def test_points_of_a_restored_ledger_are_sent_although_their_ids_were_given_before(
    tracker, client, ledger, spec, backup
):
    add(ledger, spec, 0)
    add(ledger, spec, 1)
    report(ledger, spec, 0, 1)
    restore = backup()
    for step in (1, 2, 3, 4):
        report(ledger, spec, 1, step, 0.25)
    synced(tracker())
    with restore() as restored:
        report(restored, spec, 0, 2, 0.75)
        report(restored, spec, 0, 3, 0.875)
        synced(tracker(ledger=restored))
        found = runs(client, spec)
        assert history(client, found[0]) == [(1, 0.5), (2, 0.75), (3, 0.875)]
        # Trial 1 has reported nothing as far as this ledger knows.
        assert history(client, found[1]) == []
        assert compared(tracker(ledger=restored), is_driven=True) == []


def test_what_a_restored_ledger_trains_again_replaces_what_was_there(tracker, client, ledger, spec, backup):
    add(ledger, spec, 0)
    restore = backup()
    complete_as(ledger, 0.9)
    add(ledger, spec, 1)
    synced(tracker(), final=True)
    with restore() as restored:
        complete_as(restored, 0.4, timestamp=5000.0)
        synced(tracker(ledger=restored), final=True)
        found = runs(client, spec)
        assert found.keys() == {0}
        assert history(client, found[0]) == [(6, 0.4)]
        assert (found[0].info.status, found[0].info.end_time) == ("FINISHED", 5_000_000)
        assert compared(tracker(ledger=restored)) == []


def complete_as(ledger, value, *, timestamp=1000.0):
    ledger.add_point("demo", 0, attempt=1, step=6, timestamp=timestamp, metrics={"source/val/miou": value})
    ledger.update_trial("demo", 0, state=TrialState.COMPLETE, finished=timestamp)


def test_another_trial_of_the_same_number_gets_a_run_of_its_own(tracker, client, ledger, spec, backup):
    restore = backup()
    add(ledger, spec, 0)
    synced(tracker())
    with restore() as restored:
        add(restored, spec, 0, key="another", params={"optimizer.lr": 0.1})
        synced(tracker(ledger=restored))
        assert runs(client, spec)[0].data.tags["sweep.key"] == "another"
        assert compared(tracker(ledger=restored), is_driven=True) == []


def test_the_next_driver_sends_only_what_is_new(tracker, ledger, spec, monkeypatch):
    add(ledger, spec, 0)
    report(ledger, spec, 0, 1)
    synced(tracker())
    report(ledger, spec, 0, 2)
    sent = []
    monkeypatch.setattr(
        "sweeps.tracking.projection.log_metrics", lambda client, run_id, metrics, refusals: sent.extend(metrics)
    )
    synced(tracker())
    assert {metric.step for metric in sent if not metric.key.startswith("profile/") and not is_alias(metric.key)} == {2}


def test_a_cursor_says_which_point_it_means():
    assert cursor_text(Point(7, 3, 120, 1000.5, {})) == "7 trial 3 step 120 time 1000.5"


# Limits


def test_long_and_odd_texts_are_cut_with_a_mark_and_agree_with_the_ledger(tracker, client, ledger, spec):
    add(ledger, spec, 0, name="n" * 200)
    ledger.update_trial("demo", 0, state=TrialState.FAILED, error="e" * 9000 + "\0", finished=2000.0)
    names = ["source/val/iou/" + "c" * 300, "source/val/iou/" + "c" * 301, "source//val/..", "a(b"]
    values = {name: float(number) for number, name in enumerate(names)} | {"source/val/miou": math.nan, "i": math.inf}
    ledger.add_point("demo", 0, attempt=1, step=1, timestamp=1.0, metrics=values)
    synced(tracker(), final=True)
    run = runs(client, spec)[0]
    assert len(run.data.tags["sweep.error"]) == 8000
    assert run.data.tags["sweep.error"].endswith("e…")
    assert run.data.tags["sweep.state"] == "failed"
    for number, name in enumerate(names):
        assert run.data.metrics[key_name(name)] == number
    assert max(map(len, run.data.metrics)) == 250
    assert compared(tracker()) == []


def test_parameters_beyond_the_limit_are_cut_alike_in_mlflow_and_in_the_comparison(tracker, client, ledger, spec):
    config = spec.train_config({"optimizer.lr": 0.01}, seed=0).model_dump(mode="json")
    add(ledger, spec, 0, config=config | {"note": "x" * 7000})
    synced(tracker())
    assert len(runs(client, spec)[0].data.params["note"]) == 6000
    assert compared(tracker(), is_driven=True) == []


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("source/val/miou", "source/val/miou"),
        ("iou/Road [wet]", "iou/Road _wet_"),
        ("iou/../x", "iou/_/x"),
        ("/iou//", "_/iou/_/_"),
        (".", "_"),
    ],
)
def test_names_are_those_that_mlflow_takes(name, taken):
    assert key_name(name) == taken


def test_a_text_that_fits_stays_as_it_is():
    assert (cut("x" * 10, 10), cut("x" * 11, 10)) == ("x" * 10, "x" * 9 + "…")
    assert cut("half a \ud800 and \0", 20) == "half a ? and "


# Refusals


class Refusing:
    """A client that refuses for good whatever names one metric or parameter."""

    def __init__(self, client, name):
        self.client, self.name, self.calls = client, name, 0

    def __getattr__(self, method):
        return getattr(self.client, method)

    def log_batch(self, run_id, metrics=(), params=(), tags=()):
        self.calls += 1
        if self.name in {entry.key for entry in (*metrics, *params, *tags)}:
            raise MlflowException("it is not to my liking", 1000)  # INVALID_PARAMETER_VALUE
        self.client.log_batch(run_id, metrics=metrics, params=params, tags=tags)


@pytest.mark.parametrize("name", ["source/val/iou/Road _wet_", "optimizer.lr", "sweep.worker"])
def test_what_mlflow_refuses_for_good_keeps_nothing_else_from_it(tracker, client, ledger, spec, caplog, name):
    for number in range(2):
        complete(ledger, spec, number, 0.5)
        ledger.add_point("demo", number, attempt=1, step=9, timestamp=1009.0, metrics={"source/val/iou/Road (wet)": 1})
    follower = tracker()
    follower._client = Refusing(client, name)
    synced(follower, final=True)
    for run in runs(client, spec).values():
        has = {*run.data.metrics, *run.data.params, *run.data.tags}
        assert name not in has
        assert {"source/val/miou", "optimizer.momentum", "sweep.state", "profile/macs"} <= has
        assert run.info.status == "FINISHED"
    assert caplog.text.count("it is not to my liking") == len(follower.refused) >= 2
    follower.send(final=True)
    assert caplog.text.count("it is not to my liking") == len(follower.refused)


def test_a_run_that_was_deleted_under_way_is_no_refusal(tracker, client, ledger, spec):
    add(ledger, spec, 0)
    follower = synced(tracker())
    client.delete_run(ledger.trial("demo", 0).run_id)
    report(ledger, spec, 0, 1)
    with pytest.raises(MlflowException):
        follower.sync()
    follower.sync()
    assert history(client, runs(client, spec)[0]) == [(1, 0.5)]
    assert follower.refused == {}


def test_a_server_that_is_away_is_no_refusal(client):
    with (
        pytest.raises(MlflowException, match="busy"),
        limits.Refusals().skipping(client, "it", run_id="none"),
    ):
        raise MlflowException("busy")


# The registry


@pytest.mark.parametrize("name", ["it's", "a \"b\" 'c'", "100%", "name = 'x'", "ü", "a@b"])
def test_a_registered_model_of_any_allowed_name_is_found_again(client, make_spec, monkeypatch, name):
    assert make_spec(tracking={"register_as": name}).tracking.register_as == name
    monkeypatch.setattr(registry, "load_segmenter", lambda path: (None, None))
    tags = {"sweep.id": "demo@1.0", "sweep.number": "0"}
    client.create_registered_model(name)
    made = client.create_model_version(name, "file:///nowhere", tags=tags)
    client.create_registered_model("another")
    client.create_model_version("another", "file:///nowhere", tags=tags)
    found = registry.register(client, name, record=None, run_id="", experiment="0", checkpoint=None, tags=tags)
    assert found == str(made.version)


@pytest.mark.parametrize("name", ["x" * 251, "two\nlines", " x", "..", "..x", ".", "nul\0"])
def test_a_name_that_the_registry_refuses_is_told_before_anything_is_trained(make_spec, name):
    with pytest.raises(ValueError, match="must be a name for MLflow's model registry"):
        make_spec(tracking={"register_as": name})


# MLflow's file


def sent(path):
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT count(*) FROM metrics WHERE key = 'source/val/miou'").fetchone()[0]


@pytest.mark.parametrize("is_same_driver", [True, False])
def test_a_file_that_was_deleted_is_made_anew_and_gets_everything(
    tracker, ledger, spec, mlflow_store, mlflow_template, is_same_driver
):
    add(ledger, spec, 0)
    report(ledger, spec, 0, 1)
    follower = synced(tracker())
    mlflow_store.mlflow.unlink()
    shutil.copy(mlflow_template, mlflow_store.mlflow)
    report(ledger, spec, 0, 2)
    (follower if is_same_driver else synced(tracker())).sync()
    assert sent(mlflow_store.mlflow) == 2
