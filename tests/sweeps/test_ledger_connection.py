"""Databases that go away and come back, and places where SQLite must not lie."""

from collections import namedtuple
from pathlib import Path

import pytest
import sqlalchemy as sa

from segda.errors import ConfigError
from sweeps.ledger import connection as ledger_connection
from sweeps.ledger.connection import check_file_system, file_system_of, survives_restart
from sweeps.ledger.database import Ledger

Partition = namedtuple("Partition", "mountpoint fstype")


@pytest.fixture
def mounts(monkeypatch, tmp_path):
    """A machine with a network file system at tmp_path/shared and a local disk inside it."""
    found = [
        Partition("/", "ext4"),
        Partition(str(tmp_path / "shared"), "nfs4"),
        Partition(str(tmp_path / "shared" / "scratch"), "xfs"),
    ]
    monkeypatch.setattr(ledger_connection.psutil, "disk_partitions", lambda all: found)
    return tmp_path


def test_the_innermost_mount_decides_on_the_file_system(mounts):
    assert file_system_of(mounts / "here") == "ext4"
    assert file_system_of(mounts / "shared" / "runs" / "ledger.db") == "nfs4"
    assert file_system_of(mounts / "shared" / "scratch" / "ledger.db") == "xfs"
    assert file_system_of(mounts / "shared_too" / "ledger.db") == "ext4"


def test_a_ledger_on_a_network_file_system_is_refused_with_two_ways_out(mounts):
    with pytest.raises(ConfigError, match=r"network file system \(nfs4\).*local disk.*PostgreSQL"):
        Ledger.open(mounts / "shared" / "runs" / "ledger.db")
    assert not (mounts / "shared").exists()


@pytest.mark.parametrize(
    "kind",
    ["nfs", "panfs", "9p", "virtiofs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.juicefs"],
)
def test_every_kind_of_network_file_system_is_refused(monkeypatch, tmp_path, kind):
    monkeypatch.setattr(ledger_connection, "file_system_of", lambda path: kind)
    with pytest.raises(ConfigError, match=f"network file system .{kind}."):
        check_file_system(tmp_path / "ledger.db")


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "overlay", "tmpfs", "apfs", "fuseblk", "fuse.fuse-overlayfs", "fuse", ""]
)
def test_local_file_systems_are_accepted(monkeypatch, tmp_path, kind):
    monkeypatch.setattr(ledger_connection, "file_system_of", lambda path: kind)
    check_file_system(tmp_path / "ledger.db")


def test_a_link_to_a_network_file_system_does_not_hide_it(mounts):
    (mounts / "shared").mkdir()
    (mounts / "link").symlink_to(mounts / "shared")
    with pytest.raises(ConfigError, match="nfs4"):
        check_file_system(mounts / "link" / "ledger.db")


class Server:
    """A database that fails some times before it answers."""

    def __init__(self, failures, *, has_server=True):
        self.failures = failures
        self.calls = 0
        self.has_server = has_server

    @survives_restart
    def read(self):
        self.calls += 1
        if self.calls <= self.failures:
            raise sa.exc.OperationalError("select", {}, Exception("server closed the connection unexpectedly"))
        return "answer"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(ledger_connection, "_PAUSE_SECONDS", 0.01)


def test_a_server_that_restarts_is_waited_for():
    server = Server(failures=5)
    assert server.read() == "answer"
    assert server.calls == 6


def test_a_server_that_stays_away_is_given_up(monkeypatch):
    monkeypatch.setattr(ledger_connection, "RECONNECT_SECONDS", 0.05)
    with pytest.raises(sa.exc.OperationalError):
        Server(failures=10**9).read()


def test_a_file_that_cannot_be_read_is_told_at_once():
    file = Server(failures=1, has_server=False)
    with pytest.raises(sa.exc.OperationalError):
        file.read()
    assert file.calls == 1


def test_a_disk_that_is_full_for_a_moment_is_waited_for(tmp_path):
    place = tmp_path / "small.db"
    with Ledger.open(place) as ledger, ledger.writing() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    ledger = Ledger.open(place)
    limits = iter([pages, pages, 10**6])

    @survives_restart
    def write(self):
        with self.writing() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count={next(limits)}")
            connection.exec_driver_sql("CREATE TABLE large (text)")
            connection.exec_driver_sql(f"INSERT INTO large VALUES ('{'x' * 100_000}')")

    write(ledger)
    assert next(limits, None) is None
    ledger.close()


def test_the_file_system_of_this_very_path_is_known():
    assert file_system_of(Path(__file__))
