"""What the MLflow run of a trial says about how it was trained and what came out: all that is needed to train it again."""

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# MLflow draws a bar for every small file.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient
from mlflow.entities import Run

from segda.checkpoint import read_checkpoint
from segda.config import TrainConfig
from segda.config_problems import validated
from segda.masking import masked, reason
from sweeps.suggestions import suggest
from sweeps.tracking.aliases import is_alias_param
from sweeps.tracking.server import FAILURES, TrackingError, look_at


@dataclass(frozen=True)
class RecordedRun:
    """A trial as MLflow has it.

    Attributes:
        run_id: its run.
        name: what the run is called.
        config: how it was configured, with the places of the machine that ran it.
        environment: what `segda.environment.describe_environment` said there, `micro_batch` and `processes`.
        reports: step -> metric name as MLflow spells it -> value.
        data_fingerprint: of the data that it read; None if the run ended before that was written.
        precision: what it computed in: `float32`, `bfloat16` or `float16`; None as above.
        weights: the last checkpoint's state of the method, if the run has a checkpoint.
        weights_step: step of that checkpoint.
        attempts: how many workers had it.
    """

    run_id: str
    name: str
    config: TrainConfig
    environment: Mapping[str, Any]
    reports: Mapping[int, Mapping[str, float]]
    data_fingerprint: str | None
    precision: str | None
    weights: Mapping[str, Any] | None
    weights_step: int | None
    attempts: int


def read_run(run_id: str, *, uri: str) -> RecordedRun:
    """Read the run of a trial; nothing is written but the place of a store that was moved.

    Args:
        run_id: MLflow's id of the run.
        uri: MLflow's tracking URI.

    Raises:
        TrackingError: MLflow cannot be reached, or the run is not there, is no trial's, or holds too little.
    """
    try:
        client = look_at(uri, with_files=True)
        run = client.get_run(run_id)
        with tempfile.TemporaryDirectory() as folder:
            files = _download(client, run_id, Path(folder))
            _check_trained(run, files)
            state = read_checkpoint(files["checkpoint.pt"]) if "checkpoint.pt" in files else None
            config, environment, result = (
                _read(files, name) for name in ("config.json", "environment.json", "result.json")
            )
        reports = _reports(client, run)
    except FAILURES as error:
        raise TrackingError(f"run {run_id} cannot be read from MLflow at {masked(uri)}: {reason(error)}") from error
    if not reports:
        raise TrackingError(
            f"run {run_id} has no metrics: it ended before its first report, and there is nothing to compare"
        )
    return RecordedRun(
        run_id=run_id,
        name=run.info.run_name,
        config=_config(config or unflatten(run.data.params), run_id),
        environment=environment,
        reports=reports,
        data_fingerprint=result.get("data_fingerprint"),
        precision=result.get("precision"),
        weights=state["method"] if state else None,
        weights_step=int(state["step"]) if state else None,
        attempts=int(run.data.tags.get("sweep.attempts", "1")),
    )


def unflatten(params: Mapping[str, str]) -> dict[str, Any]:
    """Return parameters as nested plain data; the reverse of how a trial's parameters are written. Short names are left out.

    Example:
        >>> unflatten({"optimizer.name": "sgd", "optimizer.lr": "0.1", "data.crop_height": "null"})
        {'optimizer': {'name': 'sgd', 'lr': 0.1}, 'data': {'crop_height': None}}
    """
    plain: dict[str, Any] = {}
    for name, text in params.items():
        if is_alias_param(name):
            continue
        *parents, last = name.split(".")
        place = plain
        for parent in parents:
            place = place.setdefault(parent, {})
        try:
            place[last] = json.loads(text)
        except json.JSONDecodeError:
            place[last] = text
    return plain


def _download(client: MlflowClient, run_id: str, folder: Path) -> dict[str, Path]:
    wanted = ("config.json", "environment.json", "result.json", "checkpoint.pt")
    names = {item.path for item in client.list_artifacts(run_id)}
    return {name: Path(client.download_artifacts(run_id, name, str(folder))) for name in wanted if name in names}


def _check_trained(run: Run, files: Mapping[str, Path]) -> None:
    tags = run.data.tags
    if tags.get("sweep.role") != "trial":
        raise TrackingError(
            f"run {run.info.run_id} ({run.info.run_name}) is no trial of a sweep; name the run of a trial"
        )
    if "environment.json" in files:
        return
    if "sweep.reused" in tags:
        raise TrackingError(
            f"run {run.info.run_id} took its result from trial {tags['sweep.reused']} (sweep/number); name the run of that one"
        )
    raise TrackingError(
        f"run {run.info.run_id} has no environment.json: the trial is {tags.get('sweep.state', 'unknown')}; files are there when "
        f"a trial has ended, and {suggest('sync', 'NAME')} sends what is missing"
    )


def _config(plain: Mapping[str, Any], run_id: str) -> TrainConfig:
    return validated(TrainConfig, plain, where=f"run {run_id}")


def _read(files: Mapping[str, Path], name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(files[name].read_text(encoding="utf-8")) if name in files else {}
    return content


def _reports(client: MlflowClient, run: Run) -> dict[int, dict[str, float]]:
    reports: dict[int, dict[str, float]] = defaultdict(dict)
    for name in sorted(run.data.metrics):
        if not name.startswith("profile/"):  # of the architecture, not of the training
            for point in client.get_metric_history(run.info.run_id, name):
                if point.step > 0:  # short names are at step 0, where no training reports
                    reports[point.step][name] = point.value
    return {step: reports[step] for step in sorted(reports)}
