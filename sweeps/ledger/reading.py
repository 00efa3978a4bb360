"""How a ledger is opened by those who only read: they need neither its write lock nor permission to write.

SQLite reads a file with a write-ahead log beside its writers, whatever these do or hold, but shares an index of that log with them
in another file. Where that one is missing and cannot be made, on a read-only mount or in a folder of somebody else, nobody writes:
there the file is read as it lies, and if the last writer was killed and left a log, a copy of both is.
"""

import shutil
import sqlite3
import tempfile
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from sweeps.ledger.plain import read
from sweeps.ledger.tables import BUSY_SECONDS

# The folder or the file cannot be written, or the file system does not share memory.
_NO_INDEX = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR})
_PRIMARY = 0xFF  # bits of SQLite's error codes that say what happened; the others say where


def engine_to_read(url: sa.URL) -> Engine:
    """Return an engine whose transactions only read; nothing is opened yet.

    Args:
        url: address of the ledger's database.
    """
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(
            url, json_deserializer=read, pool_pre_ping=True, execution_options={"postgresql_readonly": True}
        )
    file = _File(Path(str(url.database)))
    # A connection per transaction, because writers may come where there were none.
    engine = sa.create_engine("sqlite://", json_deserializer=read, creator=file.connect, poolclass=sa.pool.NullPool)

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    @sa.event.listens_for(engine, "engine_disposed")
    def _on_dispose(engine: Engine) -> None:
        file.forget()

    return engine


class _File:
    """A SQLite file that is not ours to write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._copies: tempfile.TemporaryDirectory[str] | None = None

    def connect(self) -> sqlite3.Connection:
        """Return a connection that sees what was committed.

        Raises:
            sqlite3.Error: it is no database, or cannot be read.
            OSError: it cannot be copied.
        """
        try:
            return _connected(self._path, "mode=ro")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & _PRIMARY not in _NO_INDEX:
                raise
        log = _log_of(self._path)
        if log.is_file() and log.stat().st_size:
            return _connected(self._copied(), "mode=rw")
        return _connected(self._path, "mode=ro&immutable=1")

    def _copied(self) -> Path:
        if self._copies is None:
            self._copies = tempfile.TemporaryDirectory(prefix="ledger-")
            folder = Path(self._copies.name)
            for path in (self._path, _log_of(self._path)):
                shutil.copyfile(path, folder / path.name)
        return Path(self._copies.name) / self._path.name

    def forget(self) -> None:
        if self._copies is not None:
            self._copies.cleanup()
            self._copies = None


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _connected(path: Path, how: str) -> sqlite3.Connection:
    address = f"file:{quote(str(path.absolute()))}?{how}"
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()  # opens it, and what lies beside it
    except BaseException:
        connection.close()
        raise
    return connection
