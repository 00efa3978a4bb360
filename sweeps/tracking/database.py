"""MLflow's SQLite file, which is whole or absent, and names the files that lie beside it.

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
from urllib.parse import urlsplit
from urllib.request import url2pathname

import sqlalchemy as sa
from mlflow.store.db import utils as mlflow_utils
from sqlalchemy.engine import Engine

from segda.files import locked, make_private_folder, touch_private
from segda.masking import reason
from sweeps.suggestions import suggest

log = logging.getLogger(__name__)

utils: Any = mlflow_utils  # without types

# How long a file that is not whole must stay as it is before it is taken for abandoned: `mlflow ui` makes one in place.
QUIET_SECONDS = 5.0
_POLL_SECONDS = 0.2
_BUSY_SECONDS = 20.0
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


def file_identity(uri: str) -> tuple[int, int] | None:
    """Return what tells the SQLite file that a tracking URI names from one that takes its place; None if there is none."""
    path = sqlite_path(uri)
    try:
        found = None if path is None else path.stat()
    except FileNotFoundError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


def close_connections(uri: str) -> None:
    """Close what this process has open of a SQLite file: MLflow keeps it by the address, whatever file lies there by now."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking

    for kept in (Tracking._engine_map, Registry._engine_map):
        if uri in kept:
            kept[uri].dispose()


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
            f"{path} is no SQLite database or is damaged ({error.orig}); move it away, and {suggest('sync', 'NAME')} makes it anew"
        ) from error


def prepare_database(path: Path) -> None:
    """Make the file where there is none, or anew where one that is not whole holds no runs; upgrade one that does.

    Raises:
        DatabaseError: it cannot be upgraded; it stays as it was.
    """
    if is_whole(path):
        return
    make_private_folder(path.parent)
    with (
        locked(path.with_name(f".{path.name}.lock"), waiting=f"waiting for another process that makes {path}"),
        _workshop(path) as folder,
    ):
        if _has_tables(path):
            _mend(path, folder)
        elif not is_whole(path):
            new = folder / "new.db"
            touch_private(new, shared_as=path.parent)
            _migrate(new)
            new.replace(path)


def correct_places(path: Path, artifacts: Path) -> None:
    """Let a file that was moved or copied with its store name the files that came with it.

    MLflow notes the place of a run's files when the run is made, and would go on to write there: of a copy, into the original. An
    experiment whose files lie elsewhere and did not come along is another store's, and stays.

    Args:
        path: MLflow's SQLite file, whole.
        artifacts: the folder beside it in which the runs' files lie.

    Raises:
        DatabaseError: it would have to be corrected and cannot be written to.
    """
    here = artifacts.as_uri()
    query = (
        "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE ? AND artifact_location != ?"
    )
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as connection:
            places = [place for (place,) in connection.execute(query, [f"file:%/{artifacts.name}", here])]
            elsewhere = [place for place in places if _came_along(connection, place, artifacts)]
            if elsewhere:
                connection.execute("BEGIN IMMEDIATE")
                for place in elsewhere:
                    _replace_prefix(connection, place, here)
                connection.commit()
                log.warning("%s was at another place; what it says about files names %s now", path, artifacts)
    except sqlite3.OperationalError as error:
        raise DatabaseError(
            f"{path} was moved or copied, and what it says about the place of files cannot be corrected ({error}); make it writable"
        ) from error


def _came_along(connection: sqlite3.Connection, place: str, artifacts: Path) -> bool:
    """Return whether files that a database looks for at another place are here, or can be nowhere else."""
    query = "SELECT run_uuid FROM runs WHERE artifact_uri LIKE ? || '/%'"
    is_here = any((artifacts / run_id).is_dir() for (run_id,) in connection.execute(query, [place]))
    return is_here or not Path(url2pathname(urlsplit(place).path)).is_dir()


def _replace_prefix(connection: sqlite3.Connection, old: str, new: str) -> None:
    """Replace the beginning of every text that names a place, whatever table it is in."""
    for table in _tables_of(connection):
        columns = connection.execute(f'PRAGMA table_info("{table}")').fetchall()
        for name in [column[1] for column in columns if column[2].upper().startswith(("VARCHAR", "TEXT"))]:
            connection.execute(
                f'UPDATE "{table}" SET "{name}" = ? || substr("{name}", ?) WHERE "{name}" = ? OR substr("{name}", 1, ?) = ?',
                [new, len(old) + 1, old, len(old) + 1, f"{old}/"],
            )


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
        raise DatabaseError(
            f"{path} cannot be upgraded to the installed version of MLflow ({reason(error)}); move it away, and "
            f"{suggest('sync', 'NAME')} makes it anew from the ledger"
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
        return _tables_of(connection)


def _tables_of(connection: sqlite3.Connection) -> set[str]:
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
