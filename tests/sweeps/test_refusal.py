"""What a sweep that is refused leaves behind: nothing, neither in the store nor in the ledger nor in MLflow."""

import sqlite3

import fakes
import pytest
import sqlalchemy as sa
import yaml

from segda.errors import ConfigError
from sweeps.commands.cut_short import LedgerGoneError
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import Lease


@pytest.fixture
def run(call, store, tmp_path):
    """Run a sweep that is refused; return the line."""

    def run(**changes):
        path = tmp_path / "demo.yaml"
        path.write_text(yaml.safe_dump(fakes.plain_spec(**changes)))
        code, _, error = call("run", path, "--store", store.root)
        assert (code, error.count("\n")) == (2, 1), error
        return error

    return run


@pytest.fixture
def refuse(monkeypatch):
    """Let whatever runs a sweep refuse it after it looked at the ledger."""
    from sweeps.execution import runner

    def install(error, *, before=lambda ledger: None):
        def run_sweep(spec, *, ledger, **_):
            with Lease(ledger, spec.name).held(lambda: 0.0):
                ledger.add_event(spec.name, "note", "latency was measured")
                before(ledger)
                raise error

        monkeypatch.setattr(runner, "run_sweep", run_sweep)

    return install


def test_missing_data_make_no_store(run, store, monkeypatch):
    monkeypatch.delenv("SEGDA_CAMVID_ROOT", raising=False)
    assert "SEGDA_CAMVID_ROOT" in run()
    assert not store.root.exists()


def test_storage_that_cannot_be_written_to_makes_no_store(run, store, has_camvid):
    assert "nosuch" in run(storage="nosuch://bucket")
    assert not store.root.exists()


def test_a_wrong_file_makes_no_store(run, store):
    assert "unknown key" in run(colour="red")
    assert not store.root.exists()


def test_a_sweep_that_the_machines_refuse_leaves_no_row_and_tells_mlflow_nothing(run, refuse, store, has_camvid):
    refuse(ConfigError("no architecture of sweep 'demo' meets its constraints"))
    assert "meets its constraints" in run()
    with Ledger.open(store.ledger, create=False) as ledger:
        assert ledger.sweeps() == []
        with ledger.reading() as connection:
            assert connection.execute(sa.text("SELECT count(*) FROM event")).scalar_one() == 0
    assert {path.name for path in store.root.iterdir()} <= {"ledger.db", "ledger.db-wal", "ledger.db-shm"}


def test_an_mlflow_that_refuses_when_the_sweep_is_admitted_leaves_no_row(run, store, tmp_path, monkeypatch, has_camvid):
    from sweeps.execution import runner

    def run_sweep(spec, *, admitted, **_):
        admitted()
        raise AssertionError

    monkeypatch.setattr(runner, "run_sweep", run_sweep)
    (tmp_path / "file").touch()
    assert "cannot be used" in run(tracking={"uri": f"sqlite:///{tmp_path}/file/mlflow.db"})
    with Ledger.open(store.ledger, create=False) as ledger:
        assert ledger.sweeps() == []


def test_a_sweep_that_was_there_before_stays_when_it_is_refused(run, refuse, ledger, make_spec, has_camvid):
    ledger.create_sweep("demo", spec=make_spec().canonical())
    refuse(ConfigError("the cluster cannot be reached"))
    run()
    assert [sweep.name for sweep in ledger.sweeps()] == ["demo"]


def test_a_sweep_that_another_process_took_over_stays(run, refuse, store, has_camvid):
    def take(ledger):
        with sqlite3.connect(store.ledger) as connection:
            connection.execute("UPDATE sweep SET driver = 'another 1 host 1 x'")

    refuse(ConfigError("another process has taken over"), before=take)
    run()
    with sqlite3.connect(store.ledger) as connection:
        assert connection.execute("SELECT name FROM sweep").fetchall() == [("demo",)]


def test_a_sweep_whose_ledger_went_away_stays(refuse, store, call, tmp_path, has_camvid):
    refuse(LedgerGoneError("the ledger's database went away"))
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump(fakes.plain_spec()))
    call("run", path, "--store", store.root)
    with Ledger.open(store.ledger, create=False) as ledger:
        assert [sweep.name for sweep in ledger.sweeps()] == ["demo"]
