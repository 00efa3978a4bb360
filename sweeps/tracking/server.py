"""Reaching MLflow, and the calls that have to mind its limits."""

import json
import logging
import re
import socket
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from segda.errors import SegdaError
from sweeps.store import Store
from sweeps.tracking.database import is_whole, prepare_database, sqlite_path

# Both tell every step of making a database.
logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

# What reaching and asking MLflow may raise: its own errors, the network's, its database's, a missing database driver.
FAILURES = (MlflowException, SQLAlchemyError, OSError, ValueError, ImportError)

_CONNECT_SECONDS = 5.0
_BATCH_METRICS = 1000  # MLflow's limits per call
_BATCH_PARAMS = 100
_PORTS = {"http": 80, "https": 443, "postgresql": 5432}
_LONGEST_REASON = 300  # characters


class TrackingError(SegdaError):
    """MLflow cannot be reached or refuses what it is sent."""


def default_uri(store: Store) -> str:
    """Return the URI of the SQLite file that MLflow uses when no server is named."""
    return sa.URL.create("sqlite", database=str(store.mlflow)).render_as_string()


def open_client(uri: str) -> MlflowClient:
    """Reach MLflow to write to it; a SQLite file is made or upgraded if need be.

    Args:
        uri: MLflow's tracking URI.

    Raises:
        OSError: nobody listens there.
        DatabaseError: the file cannot be used.
    """
    check_port(uri)
    path = sqlite_path(uri)
    if path is not None:
        prepare_database(path)
    return MlflowClient(uri)


def look_at(uri: str) -> MlflowClient:
    """Reach MLflow to read from it; a SQLite file stays as it is.

    Args:
        uri: MLflow's tracking URI.

    Raises:
        OSError: nobody listens there.
        TrackingError: there is no such file.
        DatabaseError: the file cannot be used.
    """
    check_port(uri)
    path = sqlite_path(uri)
    if path is not None and not path.is_file():
        raise TrackingError(
            f"there is no MLflow database {path}; name another one, or `sweeps sync` makes it from the ledger"
        )
    if path is not None and not is_whole(path):
        # MLflow would begin to make its tables there.
        raise TrackingError(
            f"{path} is not of the installed version of MLflow, or half made; `sweeps sync` puts it right"
        )
    return MlflowClient(uri)


def masked(uri: str) -> str:
    """Return a URI without its password, for messages.

    Example:
        >>> masked("postgresql://me:secret@db/mlflow")
        'postgresql://***@db/mlflow'
    """
    return re.sub(r"://[^/@\s]+@", "://***@", uri)


def reason(error: Exception) -> str:
    """Return why a call failed as one line without passwords."""
    return masked(" ".join(str(error).split()))[:_LONGEST_REASON] or type(error).__name__


def check_port(uri: str) -> None:
    """Fail early when nobody listens: the HTTP client and database drivers behind MLflow would try for minutes.

    Args:
        uri: MLflow's tracking URI; nothing is done for a file.

    Raises:
        OSError: the port cannot be reached within a few seconds.
    """
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    if scheme in _PORTS and parts.hostname:
        socket.create_connection((parts.hostname, parts.port or _PORTS[scheme]), timeout=_CONNECT_SECONDS).close()


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


def log_metrics(client: MlflowClient, run_id: str, metrics: Sequence[Metric]) -> None:
    """Send metrics in as many calls as MLflow's limit asks for."""
    for start in range(0, len(metrics), _BATCH_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + _BATCH_METRICS])


def log_params(client: MlflowClient, run_id: str, params: Mapping[str, str]) -> None:
    """Send parameters in as many calls as MLflow's limit asks for."""
    entries = [Param(name, value) for name, value in params.items()]
    for start in range(0, len(entries), _BATCH_PARAMS):
        client.log_batch(run_id, params=entries[start : start + _BATCH_PARAMS])


def put_tags(client: MlflowClient, run_id: str, wanted: Mapping[str, str], known: Mapping[str, str]) -> None:
    """Make a run's tags what they should be.

    Args:
        client: MLflow.
        run_id: the run.
        wanted: name -> value.
        known: what the run has of the tags that are kept in step; one that is not wanted any more is deleted.
    """
    news = [RunTag(name, value) for name, value in wanted.items() if known.get(name) != value]
    for start in range(0, len(news), _BATCH_PARAMS):
        client.log_batch(run_id, tags=news[start : start + _BATCH_PARAMS])
    for name in known.keys() - wanted.keys():
        client.delete_tag(run_id, name)


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


def metric_name(name: str) -> str:
    """Return a metric's name as MLflow takes it: it allows fewer characters than data sets use in names of classes.

    Example:
        >>> metric_name("source/val/iou/Road (wet)")
        'source/val/iou/Road _wet_'
    """
    return re.sub(r"[^\w\-. :/]", "_", name)


def milliseconds(seconds: float) -> int:
    """Return a time in the unit of MLflow's time stamps."""
    return int(seconds * 1000)
