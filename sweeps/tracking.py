"""MLflow as a projection of the ledger; the only file that imports mlflow.

One MLflow run per trial under one run per sweep. Everything is read from the ledger and the trials' folders, so MLflow may be
down, late or deleted: `Tracker.sync` brings it up to date, and sending something twice changes nothing (points carry the time at
which the worker measured them). Workers never talk to MLflow.

Run states: a queued trial is SCHEDULED, a running one RUNNING. Complete, pruned and infeasible trials are FINISHED, because
nothing went wrong; the tag `sweep.state` tells them apart. Failed trials are FAILED.
"""

import json
import logging
import os
import re
import socket
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# The sender's own loop tries again; inside a call, MLflow's default of many slow retries would only hide what is wrong.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

import yaml
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from segda.config import TrainConfig
from segda.errors import SegdaError
from sweeps.ledger import Ledger, Point
from sweeps.selection import select
from sweeps.spec import SweepSpec
from sweeps.store import Store
from sweeps.trial import TrialRecord, TrialState

log = logging.getLogger(__name__)
# Both tell every step of making a database.
logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

CONNECT_SECONDS = 5.0
PERIOD_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
BATCH_METRICS = 1000  # MLflow's limit per call
BATCH_PARAMS = 100
_POINTS_PER_PASS = 500
_CURSOR = "sweep.cursor"  # on the sweep's run: the ledger's last point that MLflow has
_ARTIFACTS = (
    "config.json",
    "environment.json",
    "metrics.jsonl",
    "result.json",
    "error.txt",
    "examples_source.png",
    "examples_target.png",
)
_PORTS = {"http": 80, "https": 443, "postgresql": 5432}


class TrackingError(SegdaError):
    """MLflow cannot be reached or refuses what it is sent."""


def masked(uri: str) -> str:
    """Return a URI without its password, for messages.

    Example:
        >>> masked("postgresql://me:secret@db/mlflow")
        'postgresql://***@db/mlflow'
    """
    return re.sub(r"://[^/@\s]+@", "://***@", uri)


def default_uri(store: Store) -> str:
    """Return the URI of the SQLite file that MLflow uses when no server is named."""
    return f"sqlite:///{store.mlflow}"


def flatten(plain: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested plain data as dotted names in stable order, with values as MLflow keeps them.

    Example:
        >>> flatten({"optimizer": {"name": "sgd", "lr": 0.1}, "crops": [1, None]})
        {'crops': '[1, null]', 'optimizer.lr': '0.1', 'optimizer.name': 'sgd'}
    """
    flat: dict[str, str] = {}
    for name in sorted(plain):
        value = plain[name]
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


class Tracker:
    """Keeps the MLflow runs of one sweep up to date.

    Attributes:
        uri: where MLflow is.
    """

    def __init__(
        self, uri: str | None, *, experiment: str | None, ledger: Ledger, spec: SweepSpec, store: Store
    ) -> None:
        """Connect nothing yet.

        Args:
            uri: MLflow's tracking URI: http(s) server, PostgreSQL or SQLite; unset: a SQLite file in the store.
            experiment: name of the MLflow experiment; unset: the sweep's name.
            ledger: what is projected.
            spec: the sweep.
            store: where the trials' files are.
        """
        self.uri = uri or default_uri(store)
        self._is_local = uri is None
        self._experiment = experiment or spec.name
        self._ledger = ledger
        self._spec = spec
        self._store = store
        self._client: MlflowClient | None = None
        self._runs: dict[int, str] = {}
        self._sent_states: dict[int, TrialState] = {}
        self._sent_profiles: set[int] = set()
        self._sent_files: dict[int, set[str]] = defaultdict(set)
        self._parent = ""
        self._cursor = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.last_error: str | None = None

    # Life

    def connect(self) -> None:
        """Reach MLflow, and find or make the sweep's runs.

        Raises:
            TrackingError: it cannot be reached within a few seconds or refuses the experiment.
        """
        try:
            self._check_port()
            self._client = MlflowClient(self.uri)
            self._open_parent()
            self._find_runs()
        except (MlflowException, OSError, ValueError, ImportError) as error:
            raise TrackingError(
                f"MLflow at {masked(self.uri)} cannot be used: {self._reason(error)}; start it, or change `tracking.uri` in the "
                "sweep file (null keeps everything in the store)"
            ) from error

    def start(self) -> None:
        """Connect, then follow the ledger in a background thread until `stop`.

        Raises:
            TrackingError: see `connect`.
        """
        self.connect()
        self._thread = threading.Thread(target=self._follow, name="mlflow-tracker", daemon=True)
        self._thread.start()

    def stop(self, *, timeout: float = 60.0) -> bool:
        """Send what is left and end the runs.

        Args:
            timeout: seconds to try for.

        Returns:
            Whether MLflow has everything; if not, `last_error` says why and `sweeps sync` sends the rest later.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                self.last_error = self.last_error or f"MLflow did not answer within {timeout:.0f} s"
                return False
        return self.last_error is None

    @property
    def where(self) -> str:
        """How to look at the runs: the server's address, or the command that serves the file."""
        if urlsplit(self.uri).scheme in ("http", "https"):
            return f"{masked(self.uri)} (experiment {self._experiment})"
        return f"mlflow ui --backend-store-uri {masked(self.uri)} (experiment {self._experiment})"

    def send(self, *, final: bool) -> None:
        """Send once what MLflow has not, for a command that waits for it.

        Args:
            final: see `sync`.

        Raises:
            TrackingError: something could not be sent.
        """
        if not self._try_sync(final=final):
            raise TrackingError(
                f"MLflow at {masked(self.uri)} did not take everything: {self.last_error}; try again later"
            )

    def _follow(self) -> None:
        pause = PERIOD_SECONDS
        while not self._stopping.wait(pause):
            pause = PERIOD_SECONDS if self._try_sync() else min(2 * pause, LONGEST_PAUSE_SECONDS)
        self._try_sync(final=True)

    def _try_sync(self, *, final: bool = False) -> bool:
        try:
            self.sync(final=final)
        # Training goes on whatever MLflow or the network do, and the thread must live to try again.
        except Exception as error:
            self.last_error = self._reason(error)
            log.debug("MLflow is not up to date: %s", self.last_error)
            return False
        self.last_error = None
        return True

    # The projection

    def sync(self, *, final: bool = False) -> None:
        """Send everything that the ledger has and MLflow has not.

        Args:
            final: whether no driver works on the sweep any more: then the sweep's run ends too, and the checkpoint of the picked
                trial is sent.

        Raises:
            TrackingError: `connect` was not called.
            MlflowException: a call failed; what was sent before stays.
        """
        records = {record.number: record for record in self._ledger.trials(self._spec.name)}
        for record in records.values():
            if record.number not in self._runs:
                self._create_run(record)
        self._send_points(records)
        for record in records.values():
            if self._sent_states.get(record.number) is not record.state:
                self._send_state(record)
        if final:
            self._end(list(records.values()))

    @property
    def _mlflow(self) -> MlflowClient:
        if self._client is None:
            raise TrackingError("the tracker is not connected; call connect() first")
        return self._client

    def _check_port(self) -> None:
        """Fail early: the database driver behind MLflow would try for minutes."""
        parts = urlsplit(self.uri)
        scheme = parts.scheme.partition("+")[0]
        if scheme in _PORTS and parts.hostname:
            socket.create_connection((parts.hostname, parts.port or _PORTS[scheme]), timeout=CONNECT_SECONDS).close()

    def _reason(self, error: Exception) -> str:
        text = masked(" ".join(str(error).split()))
        return text[:300] or type(error).__name__

    @property
    def _sweep_id(self) -> str:
        # The name alone could be another sweep's in another store that uses the same server.
        return f"{self._spec.name}@{self._ledger.sweep(self._spec.name).created:.6f}"

    def _search(self, experiment: str, condition: str) -> Iterable[Run]:
        token: str | None = None
        while True:
            page = self._mlflow.search_runs([experiment], condition, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _open_parent(self) -> None:
        found = self._mlflow.get_experiment_by_name(self._experiment)
        if found is not None and found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"MLflow experiment {self._experiment!r} was deleted; restore it or name another one under tracking.experiment"
            )
        if found is not None:
            experiment = found.experiment_id
        else:
            location = self._store.mlartifacts.as_uri() if self._is_local else None
            experiment = self._mlflow.create_experiment(self._experiment, artifact_location=location)
        self._experiment_id: str = experiment
        parents = list(
            self._search(experiment, f"tags.`sweep.id` = '{self._sweep_id}' and tags.`sweep.role` = 'sweep'")
        )
        record = self._ledger.sweep(self._spec.name)
        if parents:
            self._parent = parents[0].info.run_id
        else:
            run = self._mlflow.create_run(
                experiment,
                start_time=_ms(record.created),
                run_name=self._spec.name,
                tags={
                    "sweep.id": self._sweep_id,
                    "sweep.name": self._spec.name,
                    "sweep.role": "sweep",
                    "sweep.selection": self._spec.selection,
                    "mlflow.note.content": self._spec.question or "",
                },
            )
            self._parent = run.info.run_id
        if record.parent_run_id != self._parent:
            self._ledger.update_sweep(self._spec.name, parent_run_id=self._parent)
        self._mlflow.update_run(self._parent, status="RUNNING")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "sweep.yaml"
            path.write_text(yaml.safe_dump(dict(record.spec), sort_keys=False))
            self._mlflow.log_artifact(self._parent, str(path))

    def _find_runs(self) -> None:
        """Adopt the runs of earlier drivers, also those whose creation the ledger never heard of."""
        condition = f"tags.`sweep.id` = '{self._sweep_id}' and tags.`sweep.role` = 'trial'"
        runs = list(self._search(self._experiment_id, condition))
        self._runs = {int(run.data.tags["sweep.number"]): run.info.run_id for run in runs}
        states = {int(run.data.tags["sweep.number"]): run.data.tags.get("sweep.sent") for run in runs}
        self._sent_states = {number: TrialState(state) for number, state in states.items() if state}
        is_whole = True
        for record in self._ledger.trials(self._spec.name):
            found = self._runs.get(record.number)
            if found is not None and record.run_id != found:
                self._ledger.update_trial(self._spec.name, record.number, run_id=found)
            is_whole = is_whole and (found is not None or record.run_id is None)
        # Kept in MLflow: a cursor is only good for the server that it was written for. If runs were deleted there, all is sent.
        cursor = self._mlflow.get_run(self._parent).data.tags.get(_CURSOR, "0")
        self._cursor = int(cursor) if is_whole else 0

    def _create_run(self, record: TrialRecord) -> None:
        config = TrainConfig.model_validate(record.config)
        method = config.method.name
        discriminator = getattr(config.method, "discriminator", None)
        label = " ".join(str(part) for part in (record.name, method, discriminator) if part)
        run = self._mlflow.create_run(
            self._experiment_id,
            start_time=_ms(record.started or record.created),
            run_name=f"{record.number:03d} {label}" + (f" seed {record.seed}" if record.kind == "replicate" else ""),
            tags={
                "mlflow.parentRunId": self._parent,
                "sweep.id": self._sweep_id,
                "sweep.name": self._spec.name,
                "sweep.role": "trial",
                "sweep.number": str(record.number),
                "sweep.key": record.key,
                "sweep.kind": str(record.kind),
                "sweep.method": method,
                "sweep.seed": str(record.seed),
                **({"sweep.parent": str(record.parent)} if record.parent is not None else {}),
                **({"sweep.reference": record.name} if record.name is not None else {}),
            },
        )
        self._runs[record.number] = run.info.run_id
        self._ledger.update_trial(self._spec.name, record.number, run_id=run.info.run_id)
        params = flatten(config.canonical())
        self._log(run.info.run_id, params=[Param(name, value) for name, value in params.items()])

    def _log(self, run_id: str, *, metrics: Sequence[Metric] = (), params: Sequence[Param] = ()) -> None:
        for start in range(0, len(metrics), BATCH_METRICS):
            self._mlflow.log_batch(run_id, metrics=metrics[start : start + BATCH_METRICS])
        for start in range(0, len(params), BATCH_PARAMS):
            self._mlflow.log_batch(run_id, params=params[start : start + BATCH_PARAMS])

    def _send_points(self, records: Mapping[int, TrialRecord]) -> None:
        while points := self._ledger.points_after(self._spec.name, self._cursor, limit=_POINTS_PER_PASS):
            by_trial: dict[int, list[Metric]] = defaultdict(list)
            for point in points:
                by_trial[point.number] += self._metrics(point)
            for number, metrics in by_trial.items():
                if number not in self._runs:  # its row came after the trials were read
                    self._create_run(self._ledger.trial(self._spec.name, number))
                self._log(self._runs[number], metrics=metrics)
                self._send_profile(records.get(number) or self._ledger.trial(self._spec.name, number))
            self._cursor = points[-1].id
            self._mlflow.set_tag(self._parent, _CURSOR, str(self._cursor))

    def _metrics(self, point: Point) -> list[Metric]:
        # MLflow's plots open with a run's first metric: the one that the sweep is about. The others follow by name.
        headline = self._spec.objectives[0].metric
        names = sorted(point.metrics, key=lambda name: (name != headline, name))
        return [Metric(_allowed(name), point.metrics[name], _ms(point.timestamp), point.step) for name in names]

    def _send_profile(self, record: TrialRecord) -> None:
        """Send the efficiency of a trial's architecture, behind its first metrics."""
        if record.number not in self._sent_profiles:
            profile = [
                Metric(f"profile/{name}", record.profile[name], _ms(record.created), 0)
                for name in sorted(record.profile)
            ]
            self._log(self._runs[record.number], metrics=profile)
            self._sent_profiles.add(record.number)

    def _send_state(self, record: TrialRecord) -> None:
        run_id = self._runs[record.number]
        if record.state.is_finished:
            self._send_profile(record)
            self._send_files(record)
        tags = {
            "sweep.state": str(record.state),
            "sweep.attempts": str(record.attempt),
            "sweep.worker": record.worker or "",
        }
        if record.error is not None:
            tags |= {"sweep.failure": str(record.failure or ""), "sweep.error": record.error}
        self._mlflow.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        match record.state:
            case TrialState.QUEUED:
                self._mlflow.update_run(run_id, status="SCHEDULED")
            case TrialState.RUNNING:
                self._mlflow.update_run(run_id, status="RUNNING")
            case TrialState.FAILED:
                self._mlflow.set_terminated(run_id, "FAILED", _ms(record.finished or time.time()))
            case _:
                self._mlflow.set_terminated(run_id, "FINISHED", _ms(record.finished or time.time()))
        # Last: a run without this tag, or with another state in it, is sent again by the next driver.
        self._mlflow.set_tag(run_id, "sweep.sent", str(record.state))
        self._sent_states[record.number] = record.state

    def _send_files(self, record: TrialRecord) -> None:
        run_id, folder = self._runs[record.number], self._store.trial(record)
        for name in _ARTIFACTS:
            if name not in self._sent_files[record.number] and (folder / name).is_file():
                self._mlflow.log_artifact(run_id, str(folder / name))
                self._sent_files[record.number].add(name)
        environment = _read(folder / "environment.json")
        if environment:
            tags = [RunTag(f"environment.{name}", str(value)) for name, value in environment.items()]
            self._mlflow.log_batch(run_id, tags=tags[:BATCH_PARAMS])
            if environment.get("git_commit"):
                self._mlflow.set_tag(run_id, "mlflow.source.git.commit", str(environment["git_commit"]))
        result = _read(folder / "result.json")
        if result:
            self._send_result(record, run_id, result)

    def _send_result(self, record: TrialRecord, run_id: str, result: Mapping[str, Any]) -> None:
        data = record.config["data"]
        domains = [f"{data[side]['dataset']}/{data[side]['domain']}" for side in ("source", "target")]
        dataset = Dataset(
            name=" -> ".join(domains),
            digest=str(result["data_fingerprint"])[:36],
            source_type="local",
            source=json.dumps({"source": domains[0], "target": domains[1]}),
        )
        self._mlflow.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
        splits = result["splits"]
        classes = result["classes"]
        table = {
            "columns": ["class", *splits],
            "data": [[name, *(figures["iou"].get(name) for figures in splits.values())] for name in classes],
        }
        # What `log_table` writes, which would append the rows when they are sent a second time.
        self._mlflow.log_dict(run_id, table, "per_class.json")
        self._mlflow.set_tag(
            run_id, "mlflow.loggedArtifacts", json.dumps([{"path": "per_class.json", "type": "table"}])
        )

    def _end(self, records: Sequence[TrialRecord]) -> None:
        picked = select(records, self._spec).picked
        if picked is not None:
            checkpoint = self._store.trial(picked) / "checkpoint.pt"
            self._mlflow.set_tag(self._parent, "sweep.picked", str(picked.number))
            known = {item.path for item in self._mlflow.list_artifacts(self._runs[picked.number])}
            if checkpoint.is_file() and checkpoint.name not in known:
                self._mlflow.log_artifact(self._runs[picked.number], str(checkpoint))
        for suffix in (".html", ".md"):
            report = self._store.report(self._spec.name, suffix=suffix)
            if report.is_file():
                self._mlflow.log_artifact(self._parent, str(report))
        if all(record.state.is_finished for record in records):
            self._mlflow.set_terminated(self._parent, "FINISHED")
        else:
            self._mlflow.update_run(self._parent, status="SCHEDULED")


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def _allowed(name: str) -> str:
    """Return a metric's name as MLflow takes it: it allows fewer characters than data sets use in names of classes."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def _read(path: Path) -> dict[str, Any]:
    """Read a trial's JSON file; a trial that ended early has none."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return content
