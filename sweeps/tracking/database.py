"""MLflow's SQLite file, which is whole or absent.

MLflow makes and upgrades its tables in place and in many steps: whatever ends it meanwhile leaves a file that it refuses for ever,
and two processes that begin at once break each other's. So the file is made elsewhere, by one process at a time, and takes its
place when it is complete.
"""

import logging
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from mlflow.store.db import utils as mlflow_utils
from sqlalchemy.engine import Engine

from segda.files import locked

log = logging.getLogger(__name__)

utils: Any = mlflow_utils  # without types

# How long a file that is not whole must stay as it is before it is taken for abandoned: `mlflow ui` makes one in place.
QUIET_SECONDS = 5.0
_POLL_SECONDS = 0.2
_RESULTS = {"runs", "registered_models", "logged_models", "trace_info", "evaluation_datasets"}


class DatabaseError(ValueError):
    """MLflow's SQLite file cannot be used as it is."""


def sqlite_path(uri: str) -> Path | None:
    """Return the file that a tracking URI names; None for a server, another database or one in memory.

    Example:
        >>> sqlite_path("sqlite:////runs/mlflow.db"), sqlite_path("http://mlflow:5000")
        (PosixPath('/runs/mlflow.db'), None)
    """
    if not uri.startswith("sqlite:"):
        return None
    name = sa.make_url(uri).database
    return None if name in (None, "", ":memory:") else Path(str(name))


def is_whole(path: Path) -> bool:
    """Return whether a file has all tables of the installed version of MLflow; one that is missing or empty has not.

    Raises:
        DatabaseError: it is no SQLite file, or it is damaged.
    """
    if not path.is_file():
        return False
    try:
        with _engine(path) as engine:
            return bool(utils._all_tables_exist(engine)) and utils._get_schema_version(engine) == _newest_version()
    except sa.exc.DatabaseError as error:
        if isinstance(
            error, sa.exc.OperationalError
        ):  # locked, no permission, a full disk: it says nothing about the file
            raise
        raise DatabaseError(
            f"{path} is no SQLite database or is damaged ({error.orig}); move it away, and `sweeps sync` makes it anew"
        ) from error


def prepare_database(path: Path) -> None:
    """Make the file where there is none, or anew where one that is not whole holds no runs; upgrade one that does.

    Raises:
        DatabaseError: it cannot be upgraded; it stays as it was.
    """
    if is_whole(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        locked(path.with_name(f".{path.name}.lock"), waiting=f"waiting for another process that makes {path}"),
        _workshop(path) as folder,
    ):
        if _has_tables(path):
            _mend(path, folder)
        elif not is_whole(path):
            new = folder / "new.db"
            _migrate(new)
            new.replace(path)


@contextmanager
def _workshop(path: Path) -> Iterator[Path]:
    """Give an empty folder beside a file; the caller holds the file's lock, so what lies there is of a killed process."""
    folder = path.with_name(f".{path.name}.making")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _mend(path: Path, folder: Path) -> None:
    """Bring a file with tables to what the installed MLflow wants; others may have it open."""
    if _becomes_whole(path):
        return
    mended = folder / "mended.db"
    if _holds_runs(path):
        _copy(path, mended)
    try:
        _migrate(mended)
    except Exception as error:  # whatever a migration stumbles over in tables that it does not expect
        reason = " ".join(str(error).split())[:200]
        raise DatabaseError(
            f"{path} cannot be upgraded to the installed version of MLflow ({reason}); move it away, and `sweeps sync` makes "
            "it anew from the ledger"
        ) from error
    _copy(mended, path)
    log.warning("MLflow's database %s was half made or of another version of MLflow; it is whole now", path)


def _becomes_whole(path: Path) -> bool:
    """Wait while another process works on a file that is not whole; return whether it becomes so."""
    with closing(sqlite3.connect(path)) as connection:
        last, since = None, time.monotonic()
        while True:
            if is_whole(path):
                return True
            version = connection.execute("PRAGMA data_version").fetchone()
            if version != last:
                last, since = version, time.monotonic()
            if time.monotonic() - since >= QUIET_SECONDS:
                return False
            time.sleep(_POLL_SECONDS)


def _migrate(path: Path) -> None:
    with _engine(path) as engine:
        if _has_tables(path):
            utils._upgrade_db(engine)
        else:
            utils._initialize_tables(engine)
    if not is_whole(path):
        raise DatabaseError("tables are missing")


def _copy(source: Path, destination: Path) -> None:
    """Copy a database in one transaction: whoever has the destination open sees it before or after."""
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(destination)) as written:
        read.backup(written)


def _has_tables(path: Path) -> bool:
    return path.is_file() and bool(_tables(path))


def _holds_runs(path: Path) -> bool:
    """Return whether anything was logged; experiments without runs are nothing."""
    with closing(sqlite3.connect(path)) as connection:
        return any(
            connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in _RESULTS & _tables(path)
        )


def _tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _newest_version() -> str:
    return str(utils._get_latest_schema_revision())


@contextmanager
def _engine(path: Path) -> Iterator[Engine]:
    engine = utils.create_sqlalchemy_engine(sa.URL.create("sqlite", database=str(path)).render_as_string())
    try:
        yield engine
    finally:
        engine.dispose()
