"""A store that was moved or copied: its files are those that came with it, and nothing is written to where it was."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from projected import compared, complete, runs

from sweeps.ledger.database import Ledger
from sweeps.store import Store
from sweeps.tracking import MlflowClient, Tracker, default_uri
from sweeps.tracking.database import DatabaseError, correct_places
from sweeps.tracking.server import look_at


def follow(spec, store, ledger, *, final=True):
    tracker = Tracker(None, experiment=None, ledger=ledger, spec=spec, store=store)
    tracker.connect()
    tracker.send(final=final)
    return tracker


@pytest.fixture
def original(make_spec, store, mlflow_store):
    """A store with a trained trial that MLflow has; closed."""
    with Ledger.open(store.ledger) as ledger:
        spec = make_spec()
        ledger.create_sweep(spec.name, spec=spec.canonical())
        folder = store.trial(complete(ledger, spec, 0, 0.5))
        folder.mkdir(parents=True)
        for name in ("config.json", "checkpoint.pt"):
            (folder / name).write_text("{}")
        follow(spec, mlflow_store, ledger)
        client = MlflowClient(default_uri(mlflow_store))
        client.create_registered_model("street")
        run = runs(client, spec)[0]
        client.create_model_version("street", f"{run.info.artifact_uri}/model", run_id=run.info.run_id)
    return spec, mlflow_store


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def dump(path):
    with closing(sqlite3.connect(path)) as connection:
        return "\n".join(connection.iterdump())


@pytest.mark.parametrize("is_copy", [True, False])
def test_what_goes_on_in_it_is_written_into_it_alone(original, is_copy, tmp_path, caplog):
    spec, store = original
    there = Store.at(tmp_path / "an other place" / "runs")
    there.root.parent.mkdir()
    (shutil.copytree if is_copy else shutil.move)(store.root, there.root)
    before = contents(store.root)
    with Ledger.open(there.ledger) as ledger:
        complete(ledger, spec, 1, 0.75)
        folder = there.trial(ledger.trial("demo", 1))
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        tracker = follow(spec, there, ledger)
        assert compared(tracker) == []
    assert contents(store.root) == before
    assert store.root.exists() == is_copy
    assert str(store.root) not in dump(there.mlflow)
    assert str(store.root) not in dump(there.ledger)
    client = MlflowClient(default_uri(there))
    found = runs(client, spec)
    assert {item.path for item in client.list_artifacts(found[1].info.run_id)} >= {"config.json"}
    assert (there.mlartifacts / found[1].info.run_id / "artifacts" / "config.json").is_file()
    assert client.get_model_version("street", "1").source.startswith(there.mlartifacts.as_uri())
    assert caplog.text.count("was at another place") == 1


def test_files_of_a_moved_store_are_read_where_they_are(original, tmp_path):
    spec, store = original
    there = Store.at(tmp_path / "moved")
    shutil.move(store.root, there.root)
    client = look_at(default_uri(there), with_files=True)
    run = runs(client, spec)[0]
    assert run.info.artifact_uri.startswith(there.mlartifacts.as_uri())
    client.download_artifacts(run.info.run_id, "config.json", str(tmp_path))
    assert (tmp_path / "config.json").read_text() == "{}"


def test_files_of_another_store_in_the_same_database_stay_where_they_are(original, tmp_path):
    _, store = original
    other = tmp_path / "other" / "mlartifacts"
    other.mkdir(parents=True)
    client = MlflowClient(default_uri(store))
    place = client.create_experiment("of another store", artifact_location=other.as_uri())
    run = client.create_run(place)
    correct_places(store.mlflow, store.mlartifacts)
    assert client.get_run(run.info.run_id).info.artifact_uri.startswith(other.as_uri())


def test_a_moved_store_that_cannot_be_written_to_is_told(original, tmp_path, monkeypatch):
    _, store = original
    there = Store.at(tmp_path / "moved")
    shutil.move(store.root, there.root)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **options: connect(f"file:{path}?mode=ro", uri=True))
    with pytest.raises(DatabaseError, match=r"was moved or copied.*readonly.*make it writable"):
        correct_places(there.mlflow, there.mlartifacts)
