"""MLflow's pages of a store, served to this machine: what `sweeps ui` does."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from segda.errors import ConfigError, SegdaError
from segda.masking import masked, reason
from sweeps.checks.makers import stored_spec
from sweeps.ledger.database import Ledger
from sweeps.store import Store
from sweeps.suggestions import suggest
from sweeps.tracking.experiment import find_experiment
from sweeps.tracking.saved_views import page_path, view_keys, view_path
from sweeps.tracking.server import FAILURES, default_uri, look_at

HOST = "127.0.0.1"  # never to other machines: MLflow asks nobody who they are
USUAL_PORT = 5000
_APP = "sweeps"  # see `sweeps.tracking.app`
_PORTS = 1000  # that are tried for a free one
_STARTS_SECONDS = 120.0
_ENDS_SECONDS = 10.0


@dataclass(frozen=True)
class SweepPage:
    """Where a sweep can be looked at.

    Attributes:
        sweep: its name.
        uri: MLflow's server or database.
        path: what comes behind the server's address to open the sweep's table.
    """

    sweep: str
    uri: str
    path: str

    @property
    def is_at_server(self) -> bool:
        """Whether somebody serves it already."""
        return urlsplit(self.uri).scheme in ("http", "https")

    def link(self, address: str) -> str:
        """Return the address of the sweep's table.

        Args:
            address: of the server.
        """
        return f"{address.rstrip('/')}/{self.path}"


def pages(ledger: Ledger, store: Store, *, name: str | None = None) -> list[SweepPage]:
    """Return where the sweeps of a store can be looked at, the one that began last first.

    Args:
        ledger: has the sweeps.
        store: where MLflow's database is, unless a sweep names another place.
        name: one sweep; unset: all that are at the place of the last one that MLflow has.

    Raises:
        ConfigError: MLflow does not have the sweep, or has none.
    """
    records = sorted(ledger.sweeps(), key=lambda record: record.created, reverse=True)
    if name is not None:
        records = [ledger.sweep(name)]
    found: list[SweepPage] = []
    problem = "there is no sweep"
    client = None
    for record in records:
        try:
            spec = stored_spec(record)
            uri = spec.tracking.uri or default_uri(store)
            if found and uri != found[0].uri:
                continue
            client = client if found and client is not None else look_at(uri, with_files=True)
            experiment = find_experiment(client, record, name=spec.tracking.experiment or spec.name)
        except (*FAILURES, SegdaError) as error:
            problem = reason(error)
            continue
        if experiment is None or experiment.lifecycle_stage == "deleted":
            problem = f"MLflow does not have sweep {record.name!r}"
            continue
        is_server = urlsplit(uri).scheme in ("http", "https")  # with a page that is perhaps MLflow's own
        if is_server or not has_page():
            path = view_path(experiment.experiment_id, view_keys(record)[0])
        else:
            path = page_path(experiment, record)
        found.append(SweepPage(record.name, uri, path))
    if not found:
        what = f"sweep {name!r}" if name else "a sweep of this store"
        sync = suggest("sync", name or "NAME")
        raise ConfigError(f"MLflow has no page of {what}: {problem}; {sync} sends what the ledger has")
    return found


def has_page() -> bool:
    """Return whether MLflow finds our first page among the installed packages."""
    return any(point.name == _APP for point in metadata.entry_points(group="mlflow.app"))


@contextlib.contextmanager
def served(uri: str, *, port: int | None = None) -> "Iterator[Served]":
    """Serve MLflow's pages over a database for a block, to this machine alone.

    Args:
        uri: MLflow's database.
        port: where; unset: 5000, or the next one that is free.

    Yields:
        The server; it has ended when the block has.

    Raises:
        ConfigError: the port is taken, or the server does not start.
    """
    chosen = _free_port() if port is None else port
    if port is not None and not _is_free(port):
        raise ConfigError(f"port {port} is taken; name another one with --port, or none, and a free one is taken")
    # One worker: with several, uvicorn delays every call on a kept connection by about 40 ms.
    words = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(chosen), "--workers", "1"]
    if has_page():
        words += ["--app-name", _APP]
    # Not among the words, which everybody on the machine can read: the address of a database may hold a password.
    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # processes of MLflow's own that pages need not
    }
    with tempfile.TemporaryDirectory(prefix="sweeps-ui-") as folder:
        log = Path(folder) / "mlflow.log"
        with log.open("wb") as said:
            # A group of its own: Ctrl-C reaches us alone, and what MLflow starts ends with it.
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment, start_new_session=True
            )
        server = Served(f"http://{HOST}:{chosen}", process, log)
        try:
            server.wait_for_start()
            yield server
        finally:
            _end(process)


@dataclass(frozen=True)
class Served:
    """A server that runs.

    Attributes:
        address: where it answers.
    """

    address: str
    _process: "subprocess.Popen[bytes]"
    _log: Path

    def wait_for_start(self) -> None:
        """Return when it answers.

        Raises:
            ConfigError: it ended, or does not answer within two minutes.
        """
        deadline = time.monotonic() + _STARTS_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ConfigError(f"MLflow's server ended at once: {self._last_words()}")
            # A proxy of the environment is for other machines.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with contextlib.suppress(OSError), opener.open(f"{self.address}/health", timeout=2):
                return
            time.sleep(0.1)
        raise ConfigError(
            f"MLflow's server did not answer within {_STARTS_SECONDS:.0f} s; try again when the machine is less busy"
        )

    def wait_for_end(self) -> None:
        """Return never, unless somebody else ends it.

        Raises:
            ConfigError: it has ended.
        """
        self._process.wait()
        raise ConfigError(f"MLflow's server has ended: {self._last_words()}")

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return masked(lines[-1].strip()) if lines else "it does not say why"


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a server with the processes that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_ENDS_SECONDS)
    # What did not listen, and what is left of the group when its first process has ended.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    """Return the usual port, or the next one that is free."""
    for port in range(USUAL_PORT, USUAL_PORT + _PORTS):
        if _is_free(port):
            return port
    raise ConfigError(f"no port from {USUAL_PORT} to {USUAL_PORT + _PORTS - 1} is free; name one that is with --port")


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError:
            return False
    return True


def has_screen(environment: Mapping[str, str]) -> bool:
    """Return whether a browser can open a window here; else one that draws in the terminal would take that.

    Args:
        environment: variables of the process.

    Example:
        >>> has_screen({"DISPLAY": ":0"})
        True
    """
    return sys.platform in ("darwin", "win32") or any(environment.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
