"""Reaching MLflow, and the calls that have to mind its limits."""

import json
import logging
import socket
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import sqlalchemy as sa
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache
from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy
from sqlalchemy.exc import SQLAlchemyError

from segda.errors import SegdaError
from segda.masking import masked, reason
from sweeps.ledger.connection import database_url
from sweeps.store import ARTIFACTS, Store
from sweeps.suggestions import suggest
from sweeps.tracking.database import close_connections, correct_places, is_whole, prepare_database, sqlite_path
from sweeps.tracking.limits import Refusals, limited_params, limited_tags

# Both tell every step of making a database.
logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

# What reaching and asking MLflow may raise: its own errors, the network's, its database's, a missing database driver.
FAILURES = (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ValueError, ImportError)

_CONNECT_SECONDS = 5.0
_BATCH_METRICS = 1000  # MLflow's limits per call
_BATCH_PARAMS = 100
_Entry = TypeVar("_Entry", Metric, Param, RunTag)
_TABLES_LOCK = 0x3F10  # any number that all programs agree on
_PORTS = {"http": 80, "https": 443, "postgresql": 5432}
_SOCKS_PORT = 1080  # of proxies of that kind


class TrackingError(SegdaError):
    """MLflow cannot be reached or refuses what it is sent."""


def default_uri(store: Store) -> str:
    """Return the URI of the SQLite file that MLflow uses when no server is named."""
    return sa.URL.create("sqlite", database=str(store.mlflow)).render_as_string()


def open_client(uri: str, *, store: Store) -> MlflowClient:
    """Reach MLflow to write to it; a SQLite file is made or upgraded if need be.

    Args:
        uri: MLflow's tracking URI.
        store: whose file is corrected if the store was moved or copied.

    Raises:
        OSError: nobody listens there.
        DatabaseError: the file cannot be used.
    """
    check_port(uri)
    path = sqlite_path(uri)
    if path is not None:
        close_connections(uri)
        prepare_database(path)
        # One elsewhere may be that of several stores.
        if path.resolve() == store.mlflow:
            correct_places(path, store.mlartifacts)
    # MLflow remembers by a run's id alone where its files lie, and a copy of a store has the same runs.
    _artifact_repos_cache.clear()
    with _making_tables(uri):
        return MlflowClient(uri)


@contextmanager
def _making_tables(uri: str) -> Iterator[None]:
    """Let one process at a time make MLflow's tables in a PostgreSQL database; a kill undoes what it had made."""
    if not uri.startswith("postgresql"):
        yield
        return
    engine = sa.create_engine(uri)
    try:
        with engine.begin() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_TABLES_LOCK)))
            yield
    finally:
        engine.dispose()


def look_at(uri: str, *, with_files: bool = False) -> MlflowClient:
    """Reach MLflow to read from it; a SQLite file stays as it is.

    Args:
        uri: MLflow's tracking URI.
        with_files: whether the runs' files are read too; what a SQLite file says about their places is corrected if it was moved or
            copied with them.

    Raises:
        OSError: nobody listens there.
        TrackingError: there is no such file.
        DatabaseError: the file cannot be used.
    """
    check_port(uri)
    path = sqlite_path(uri)
    if path is not None and not path.is_file():
        raise TrackingError(
            f"there is no MLflow database {path}; name another one, or {suggest('sync', 'NAME')} makes it from the ledger"
        )
    if path is not None and not is_whole(path):
        # MLflow would begin to make its tables there.
        raise TrackingError(
            f"{path} is not of the installed version of MLflow, or half made; {suggest('sync', 'NAME')} puts it right"
        )
    if path is not None:
        close_connections(uri)
    if path is not None and with_files and path.with_name(ARTIFACTS).is_dir():
        correct_places(path, path.with_name(ARTIFACTS))
    # MLflow remembers by a run's id alone where its files lie, and a copy of a store has the same runs.
    _artifact_repos_cache.clear()
    return MlflowClient(uri)


def check_port(uri: str) -> None:
    """Fail early when nobody listens: the HTTP client and database drivers behind MLflow would try for minutes.

    Args:
        uri: MLflow's tracking URI; nothing is done for a file.

    Raises:
        OSError: the port cannot be reached within a few seconds.
        ValueError: the address has no valid port.
        ConfigError: it is one of a database and has an unquoted @ in its password.
    """
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme not in _PORTS:
        return
    # A server that only a proxy can reach is asked there, as MLflow's client will do.
    proxy = select_proxy(uri, get_environ_proxies(uri)) if scheme in ("http", "https") else None
    if proxy is not None:
        uri = prepend_scheme_if_needed(proxy, "http")
        scheme = uri.partition(":")[0]
    host, port = _listener(uri, is_database=scheme == "postgresql")
    if host:
        socket.create_connection((host, port or _PORTS.get(scheme, _SOCKS_PORT)), timeout=_CONNECT_SECONDS).close()


def _listener(uri: str, *, is_database: bool) -> tuple[str | None, int | None]:
    """Return host and port of an address; what the standard library says of a bad one would show a part of the password."""
    if is_database:
        url = database_url(uri)
        return url.host, url.port
    parts = urlsplit(uri)
    try:
        return parts.hostname, parts.port
    except ValueError:
        raise ValueError(
            "its port is no number; characters such as / and # in a password are written %2F and %23"
        ) from None


def check_server(uri: str | None, *, experiment: str) -> None:
    """Find out whether an MLflow server answers; nothing is left there, nor made where MLflow is a file.

    Args:
        uri: MLflow's tracking URI; None: a file in the store.
        experiment: name of the experiment to ask for, which need not exist.

    Raises:
        TrackingError: it does not answer within a few seconds.
    """
    if uri is None:
        return
    try:
        check_port(uri)
        if urlsplit(uri).scheme in ("http", "https"):
            MlflowClient(uri).get_experiment_by_name(experiment)
    except FAILURES as error:
        raise not_usable(uri, error) from error


def not_usable(uri: str, error: Exception) -> TrackingError:
    """Return what to tell of an MLflow that cannot be reached."""
    return TrackingError(
        f"MLflow at {masked(uri)} cannot be used: {reason(error)}; start it, or change `tracking.uri` in the sweep file (null "
        "keeps everything in the store)"
    )


def search(client: MlflowClient, experiment: str, condition: str, *, view: int = ViewType.ACTIVE_ONLY) -> Iterable[Run]:
    """Yield all runs of an experiment that meet a condition, over as many pages as there are.

    Args:
        client: MLflow.
        experiment: id of the experiment.
        condition: in MLflow's search syntax.
        view: active runs, deleted ones, or both.
    """
    token: str | None = None
    while True:
        page = client.search_runs([experiment], condition, view, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def log_metrics(client: MlflowClient, run_id: str, metrics: Sequence[Metric], refusals: Refusals) -> None:
    """Send metrics in as many calls as MLflow's limit asks for; those that it refuses are left out."""

    def send(batch: Sequence[Metric]) -> None:
        client.log_batch(run_id, metrics=batch)

    for start in range(0, len(metrics), _BATCH_METRICS):
        _send(client, run_id, metrics[start : start + _BATCH_METRICS], send, refusals)


def log_params(client: MlflowClient, run_id: str, params: Mapping[str, str], refusals: Refusals) -> None:
    """Send parameters in as many calls as MLflow's limit asks for; those that it refuses are left out."""
    entries = [Param(name, value) for name, value in limited_params(params).items()]

    def send(batch: Sequence[Param]) -> None:
        client.log_batch(run_id, params=batch)

    for start in range(0, len(entries), _BATCH_PARAMS):
        _send(client, run_id, entries[start : start + _BATCH_PARAMS], send, refusals)


def put_tags(
    client: MlflowClient, run_id: str, wanted: Mapping[str, str], known: Mapping[str, str], refusals: Refusals
) -> None:
    """Make a run's tags what they should be; those that MLflow refuses are left out.

    Args:
        client: MLflow.
        run_id: the run.
        wanted: name -> value.
        known: what the run has of the tags that are kept in step; one that is not wanted any more is deleted.
        refusals: is told what MLflow refused.
    """
    allowed = limited_tags(wanted)
    news = [RunTag(name, value) for name, value in allowed.items() if known.get(name) != value]

    def send(batch: Sequence[RunTag]) -> None:
        client.log_batch(run_id, tags=batch)

    for start in range(0, len(news), _BATCH_PARAMS):
        _send(client, run_id, news[start : start + _BATCH_PARAMS], send, refusals)
    for name in known.keys() - allowed.keys():
        client.delete_tag(run_id, name)


def _send(
    client: MlflowClient,
    run_id: str,
    batch: Sequence[_Entry],
    send: Callable[[Sequence[_Entry]], None],
    refusals: Refusals,
) -> None:
    """Send a batch; of one that is refused, which MLflow then takes nothing of, all but what it is refused for."""
    if len(batch) == 1:
        with refusals.skipping(
            client, f"{type(batch[0]).__name__.lower()} {batch[0].key} of run {run_id}", run_id=run_id
        ):
            send(batch)
        return
    refused = Refusals(quiet=True)
    with refused.skipping(client, "all", run_id=run_id):
        send(batch)
    if refused.reasons:
        for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
            _send(client, run_id, half, send, refusals)


def log_text(client: MlflowClient, run_id: str, name: str, text: str) -> None:
    """Send text as a file; it replaces one of the same name.

    `MlflowClient.log_text` writes with the machine's own encoding.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(text, encoding="utf-8")
        client.log_artifact(run_id, str(path))


def log_tables(client: MlflowClient, run_id: str, tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Send tables that MLflow's page shows as such.

    `MlflowClient.log_table` would append the rows when they are sent a second time.

    Args:
        client: MLflow.
        run_id: the run; these are all tables that it has.
        tables: file name -> `columns` and `data`.
    """
    for name, table in tables.items():
        log_text(client, run_id, name, json.dumps(table))
    listed = [{"path": name, "type": "table"} for name in tables]
    client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps(listed))


def milliseconds(seconds: float) -> int:
    """Return a time in the unit of MLflow's time stamps."""
    return int(seconds * 1000)
