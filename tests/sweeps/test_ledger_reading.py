"""Who only reads a ledger needs no lock, no permission and no writer's help."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import sqlalchemy as sa
from records import trial

from segda.errors import ConfigError
from sweeps.ledger.database import Ledger

NOBODY = 65534
HOLD = """
import os, signal, sqlite3, sys
ledger = sqlite3.connect(sys.argv[1], isolation_level=None)
ledger.execute(f"BEGIN {sys.argv[2]}")
ledger.execute("UPDATE sweep SET state = 'failed'")
print(flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.fixture
def filled(begun, make_spec, ledger, store):
    """A store with a sweep of one trial, whose ledger is open for writing."""
    spec = begun(make_spec())
    config = spec.train_config({"optimizer.lr": 0.01}, seed=0).model_dump(mode="json")
    ledger.add_trial(trial(0, config=config))
    ledger.update_sweep("demo", state="running")
    return store


@pytest.fixture
def archive(filled, ledger, tmp_path):
    """A folder that this process cannot write to, with a copy of the store as a kill would leave it."""
    with tempfile.TemporaryDirectory(prefix="archive-") as folder:
        place = Path(folder)
        for name in ("ledger.db", "ledger.db-wal"):
            shutil.copyfile(filled.root / name, place / name)
        place.chmod(0o555)
        yield place
        place.chmod(0o755)


@contextlib.contextmanager
def unprivileged():
    """Let this process have no more rights than a user."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.parametrize("lock", ["IMMEDIATE", "EXCLUSIVE"])
def test_readers_do_not_wait_behind_a_suspended_writer(filled, call, lock):
    command = [sys.executable, "-c", HOLD, filled.ledger, lock]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        try:
            writer.stdout.readline()
            for words in (["status"], ["status", "demo"], ["report", "demo"], ["export", "demo", "--csv", "out.csv"]):
                if words[-1] == "out.csv":
                    words[-1] = filled.root / "out.csv"
                code, out, error = call(*words, "--store", filled.root)
                assert (code, error) == (0, ""), out
        finally:
            writer.send_signal(signal.SIGKILL)


def test_nothing_is_written_while_a_ledger_is_read(filled):
    with Ledger.to_read(filled.ledger) as reader:
        assert reader.trial("demo", 0).step == 100
        with pytest.raises(sa.exc.OperationalError, match="readonly"):
            reader.update_sweep("demo", state="failed")


def test_a_reader_sees_what_is_committed_meanwhile(filled, ledger):
    with Ledger.to_read(filled.ledger) as reader:
        ledger.add_trial(trial(1))
        assert len(reader.trials("demo")) == 2


@pytest.fixture
def scratch(monkeypatch):
    """A folder that every user may write to, also for temporary files."""
    with tempfile.TemporaryDirectory(prefix="scratch-") as folder:
        Path(folder).chmod(0o777)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_an_archive_is_read_with_the_log_that_a_killed_writer_left(archive, scratch):
    checkpointed = sqlite3.connect(f"file:{archive}/ledger.db?mode=ro&immutable=1", uri=True)
    assert checkpointed.execute("SELECT name FROM sqlite_master").fetchall() == []  # all of it is in the log
    checkpointed.close()
    with unprivileged():
        with Ledger.to_read(archive / "ledger.db") as reader:
            assert [record.number for record in reader.trials("demo")] == [0]
            assert len(list(scratch.iterdir())) == 1
        assert list(scratch.iterdir()) == []
    assert sorted(path.name for path in archive.iterdir()) == ["ledger.db", "ledger.db-wal"]


def test_an_archive_is_read_where_it_lies_when_its_last_writer_closed_it(archive):
    archive.chmod(0o755)
    Ledger.open(archive / "ledger.db").close()
    assert [path.name for path in archive.iterdir()] == ["ledger.db"]
    archive.chmod(0o555)
    with unprivileged(), Ledger.to_read(archive / "ledger.db") as reader:
        assert [record.number for record in reader.trials("demo")] == [0]


def test_every_reading_command_works_on_a_read_only_store(archive, filled, call, scratch):
    call("report", "demo", "--store", filled.root)  # imports modules, which a user may not be allowed to read
    with unprivileged():
        assert call("status", "demo", "--store", archive)[0] == 0
        assert call("export", "demo", "--csv", scratch / "trials.csv", "--store", archive)[0] == 0
        assert call("audit", "demo", "--no-mlflow", "--store", archive)[0] == 1  # its trial has no files
        code, _, error = call("report", "demo", "--store", archive)
        assert code == 2
        assert error.startswith("Error: the report cannot be written (")
        assert "name another folder for it with --to" in error
        code, out, _ = call("report", "demo", "--store", archive, "--to", scratch)
        assert (code, out.split()) == (0, [str(scratch / "report.html"), str(scratch / "report.md")])


def test_what_is_no_ledger_is_told_in_one_line(tmp_path, filled):
    with pytest.raises(ConfigError, match="there is no ledger at"):
        Ledger.to_read(tmp_path / "missing.db")
    (tmp_path / "empty.db").touch()
    with pytest.raises(ConfigError, match="there is no ledger at"):
        Ledger.to_read(tmp_path / "empty.db")
    (tmp_path / "other.db").write_text("something else, which is longer than the header of a database " * 20)
    with pytest.raises(ConfigError, match="file is not a database; name another"):
        Ledger.to_read(tmp_path / "other.db")
    with pytest.raises(ConfigError, match="no file can be there"):
        Ledger.to_read(tmp_path)


def test_a_ledger_of_another_version_is_refused_and_left_as_it_was(filled, ledger):
    with ledger.writing() as connection:
        connection.exec_driver_sql("UPDATE ledger_schema SET version = 4")
    with pytest.raises(ConfigError, match="has schema version 4, this program reads version 5"):
        Ledger.to_read(filled.ledger)


def test_a_server_is_asked_to_refuse_changes(postgresql, make_spec):
    with pytest.raises(ConfigError, match="there is no ledger at"):
        Ledger.to_read(postgresql)
    with Ledger.open(postgresql) as writer:
        writer.create_sweep("demo", spec=make_spec().canonical())
        with writer.writing() as connection, Ledger.to_read(postgresql) as reader:
            connection.exec_driver_sql("SELECT * FROM sweep FOR UPDATE")
            assert reader.sweep("demo").name == "demo"
            with pytest.raises(sa.exc.InternalError, match="read-only transaction"):
                reader.put_packing("key", 1)
