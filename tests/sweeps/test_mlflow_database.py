"""MLflow's SQLite file under kills, several starts at once, and earlier versions of MLflow."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory
from mlflow.store.db import utils
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase

from sweeps.store import Store
from sweeps.tracking import MlflowClient, database
from sweeps.tracking.database import DatabaseError, is_whole, prepare_database, sqlite_path
from sweeps.tracking.server import TrackingError, default_uri, look_at, open_client

# Forks, because importing MLflow takes seconds; `death` ends a process as a kill would, after so many steps of a migration.
PROCESSES = """
import os, sys
from pathlib import Path
from alembic.runtime.migration import HeadMaintainer
from sweeps.tracking import database

def forked(path, death, make):
    child = os.fork()
    if child:
        return child
    step, steps = HeadMaintainer.update_to_step, []
    def dying(*arguments):
        steps.append(step(*arguments))
        if len(steps) == death:
            os._exit(9)
    HeadMaintainer.update_to_step = dying
    make(path)
    os._exit(0)

def in_place(path):
    with database._engine(path) as engine:
        database.utils._initialize_tables(engine)

folder = Path(sys.argv[1])
children = [forked(folder / f"ours-{death}.db", death, database.prepare_database) for death in (30,)]
children += [forked(folder / f"theirs-{death}.db", death, in_place) for death in (1, 30)]
children += [forked(folder / "shared.db", None, database.prepare_database) for _ in range(2)]
print(*[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch):
    monkeypatch.setattr(database, "QUIET_SECONDS", 0.0)


@pytest.fixture(scope="module")
def after_kills(tmp_path_factory):
    """A folder with what processes left that were killed, and what several that began at once made."""
    folder = tmp_path_factory.mktemp("kills")
    done = subprocess.run([sys.executable, "-c", PROCESSES, folder], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["9", "9", "9", "0", "0"]
    return folder


@pytest.fixture
def quick(mlflow_template, monkeypatch):
    """Spare the seconds of a migration where a new file is made."""

    def initialize(engine):
        shutil.copyfile(mlflow_template, engine.url.database)  # keeps the permissions

    monkeypatch.setattr(database.utils, "_initialize_tables", initialize)


def works(path):
    client = MlflowClient(f"sqlite:///{path}")
    run = client.create_run(client.create_experiment("e"))
    return client.get_run(run.info.run_id).info.status == "RUNNING"


def test_several_that_begin_at_once_share_one_file(after_kills):
    assert is_whole(after_kills / "shared.db")
    assert works(after_kills / "shared.db")


def test_a_kill_while_the_file_is_made_leaves_none_and_the_next_start_makes_it(after_kills, quick):
    path = after_kills / "ours-30.db"
    assert not path.exists()
    prepare_database(path)
    assert works(path)
    assert sorted(item.name for item in after_kills.glob(".ours*")) == [".ours-30.db.lock"]


@pytest.mark.parametrize("death", [1, 30])
def test_a_file_that_was_left_half_made_in_its_place_is_made_anew(after_kills, quick, caplog, death):
    path = after_kills / f"theirs-{death}.db"
    with pytest.raises(TrackingError, match="half made; `sweeps sync NAME` puts it right"):
        look_at(f"sqlite:///{path}")
    prepare_database(path)
    assert works(path)
    assert "half made" in caplog.text


@pytest.mark.parametrize("content", [b"", None])
def test_an_empty_or_missing_file_is_made(tmp_path, quick, content):
    path = tmp_path / "new" / "mlflow.db"
    if content is not None:
        path.parent.mkdir()
        path.write_bytes(content)
    open_client(f"sqlite:///{path}", store=Store.at(tmp_path))
    assert works(path)
    assert path.stat().st_mode & 0o777 == 0o600


def at_revision(path, revision):
    """Make a file as an earlier MLflow made it, with a run."""
    url = f"sqlite:///{path}"
    engine = sa.create_engine(url)
    InitialBase.metadata.create_all(engine)
    config = utils._get_alembic_config(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO experiments (name, lifecycle_stage) VALUES ('old', 'active')")
        connection.exec_driver_sql(
            "INSERT INTO runs (run_uuid, experiment_id, user_id, status, lifecycle_stage, start_time) "
            f"VALUES ('{'a' * 32}', 1, 'me', 'FINISHED', 'active', 0)"
        )
    engine.dispose()


def test_a_file_of_an_earlier_mlflow_keeps_its_runs(tmp_path):
    path = tmp_path / "mlflow.db"
    script = ScriptDirectory.from_config(utils._get_alembic_config(""))
    at_revision(path, script.get_revision(script.get_heads()[0]).down_revision)
    assert not is_whole(path)
    prepare_database(path)
    assert is_whole(path)
    assert MlflowClient(f"sqlite:///{path}").get_run("a" * 32).info.status == "FINISHED"


def test_a_file_with_runs_that_cannot_be_upgraded_stays_as_it_is(after_kills, tmp_path):
    path = tmp_path / "mlflow.db"
    at_revision(path, "451aebb31d03")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE latest_metrics (key TEXT)")  # as half a migration leaves it
    before = path.read_bytes()
    with pytest.raises(DatabaseError, match=r"cannot be upgraded .*latest_metrics.*move it away"):
        prepare_database(path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir() if item.is_dir()] == []


def test_what_is_no_database_is_told_and_kept(tmp_path):
    path = tmp_path / "mlflow.db"
    path.write_text("to whom it may concern\n" * 100)
    with pytest.raises(DatabaseError, match="no SQLite database or is damaged"):
        prepare_database(path)
    assert path.read_text().startswith("to whom")


def test_a_file_that_another_process_completes_is_left_to_it(tmp_path, mlflow_template, monkeypatch):
    monkeypatch.setattr(database, "QUIET_SECONDS", 30.0)
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE experiments (name TEXT)")
    monkeypatch.setattr(database.time, "sleep", lambda seconds: shutil.copy(mlflow_template, path))
    prepare_database(path)
    assert is_whole(path)


@pytest.mark.parametrize("name", ["with space", "100%", "a?b", "a#b", "50%41"])
def test_the_place_of_a_store_is_named_whatever_characters_it_has(store, name):
    odd = type(store).at(store.root.parent / name)
    assert sqlite_path(default_uri(odd)) == odd.mlflow


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:", "http://mlflow:5000", "postgresql://me@db/mlflow"])
def test_other_stores_have_no_file(uri):
    assert sqlite_path(uri) is None
