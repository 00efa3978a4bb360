"""MLflow's page of a store, served on this machine."""

import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO
from urllib.parse import urlsplit

from segda.errors import ConfigError
from segda.masking import masked
from sweeps.checks.makers import stored_spec
from sweeps.ledger.database import Ledger
from sweeps.store import Store
from sweeps.tracking.experiment import find_experiment
from sweeps.tracking.saved_views import page_path, view_keys, view_path
from sweeps.tracking.server import default_uri, look_at

HOST = "127.0.0.1"  # never to other machines: MLflow asks nobody who they are
APP = "sweeps"
_STARTS_SECONDS = 90.0
_ENDS_SECONDS = 10.0


@dataclass(frozen=True)
class Page:
    """Where a sweep can be looked at.

    Attributes:
        sweep: its name.
        uri: MLflow's server or database.
        path: what comes behind the server's address to open the sweep's view.
    """

    sweep: str
    uri: str
    path: str


def pages(ledger: Ledger, store: Store) -> list[Page]:
    """Return where the sweeps of a store can be looked at, the one that began last first.

    Args:
        ledger: has the sweeps; those that MLflow does not have yet are left out.
        store: where MLflow's database is, unless a sweep names another place.

    Raises:
        MlflowException: MLflow cannot be asked.
    """
    found = []
    for record in sorted(ledger.sweeps(), key=lambda record: record.created, reverse=True):
        spec = stored_spec(record)
        uri = spec.tracking.uri or default_uri(store)
        if uri == default_uri(store) and not store.mlflow.is_file():
            continue
        experiment = find_experiment(look_at(uri), record, name=spec.tracking.experiment or spec.name)
        if experiment is not None and experiment.lifecycle_stage != "deleted":
            is_server = urlsplit(uri).scheme in ("http", "https")  # with pages that are perhaps MLflow's own
            shared = view_path(experiment.experiment_id, view_keys(record)[0])
            found.append(Page(spec.name, uri, shared if is_server else page_path(experiment, record)))
    return found


@contextmanager
def served(uri: str, *, port: int | None) -> Iterator[str]:
    """Serve MLflow's pages over a database for a block, to this machine alone.

    Args:
        uri: MLflow's database.
        port: where; None: 5000, or the next one that is free.

    Yields:
        The server's address.

    Raises:
        ConfigError: the port is taken, or the server does not start.
    """
    chosen = _free_port(5000) if port is None else port
    if port is not None and not _is_free(port):
        raise ConfigError(f"port {port} is taken; name another one with --port, or none, and a free one is taken")
    words = [sys.executable, "-m", "mlflow", "server", "--app-name", APP, "--host", HOST, "--port", str(chosen)]
    # One worker: with several, uvicorn delays every call on a kept connection by about 40 ms.
    words += ["--workers", "1", "--backend-store-uri", uri]
    # A file, since nobody reads while it runs, and a full pipe would stop it.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
        try:
            _wait(server, errors, f"http://{HOST}:{chosen}/health")
            yield f"http://{HOST}:{chosen}"
        finally:
            server.terminate()
            try:
                server.wait(_ENDS_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait(server: "subprocess.Popen[bytes]", errors: IO[str], address: str) -> None:
    deadline = time.monotonic() + _STARTS_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            errors.seek(0)
            told = errors.read().strip().splitlines()
            raise ConfigError(f"MLflow's server ended at once: {masked(told[-1]) if told else 'it does not say why'}")
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise ConfigError(f"MLflow's server did not answer within {_STARTS_SECONDS:.0f} s; try again on an idle machine")


def _free_port(first: int) -> int:
    return next(port for port in range(first, first + 1000) if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError:
            return False
    return True
