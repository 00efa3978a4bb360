"""What the MLflow run of a trial holds.

Run states: a queued trial is SCHEDULED, a running one RUNNING. Complete, pruned and infeasible trials are FINISHED, because
nothing went wrong; the tag `sweep.state` tells them apart. Failed trials are FAILED.
"""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

from segda.config import canonical
from sweeps.labels import method_label
from sweeps.ledger.records import Point
from sweeps.metrics import sound
from sweeps.paths import leaves
from sweeps.reports.marks import explained, mark
from sweeps.tracking.aliases import STATE, alias_params
from sweeps.tracking.limits import LONGEST_DATASET, LONGEST_NAME, Refusals, cut, key_name, limited_params, limited_tags
from sweeps.tracking.server import log_tables, milliseconds, put_tags
from sweeps.trial import TrialKind, TrialRecord, TrialState

STAR = "★"  # in front of the name of the picked trial's run
PICKED_COLOR = "#e8a400"  # of its dot and of what it is in charts
# Kept in step with the record as long as the trial is open.
STATE_TAGS = frozenset(
    {
        *("sweep.state", "sweep.attempts", "sweep.worker", "sweep.device", "sweep.seconds"),
        *("sweep.micro_batch", "sweep.marked", "sweep.reused", "sweep.failure", "sweep.error", "mlflow.runName"),
        STATE,
    }
)
FILES = (
    "config.json",
    "environment.json",
    "metrics.jsonl",
    "result.json",
    "error.txt",
    "examples_source.png",
    "examples_target.png",
)
_DIGEST_LENGTH = 36  # MLflow's limit


def flatten(plain: Mapping[str, Any]) -> dict[str, str]:
    """Return nested plain data as dotted names in stable order, with values as MLflow keeps them.

    Example:
        >>> flatten({"optimizer": {"name": "sgd", "lr": 0.1}, "crops": [1, None]})
        {'crops': '[1, null]', 'optimizer.lr': '0.1', 'optimizer.name': 'sgd'}
    """
    flat = {name: value if isinstance(value, str) else json.dumps(value) for name, value in leaves(plain)}
    return dict(sorted(flat.items()))


def params_of(record: TrialRecord) -> dict[str, str]:
    """Return a trial's parameters: its whole configuration without places, and what people compare under short names."""
    return limited_params(flatten(canonical(record.config)) | alias_params(record))


def run_name(record: TrialRecord, *, is_picked: bool = False) -> str:
    """Return what the run is called: number with its mark, method, and what else tells it from its neighbors; a star if picked."""
    label = " ".join(part for part in (record.name, method_label(record)) if part)
    seed = f" seed {record.seed}" if record.kind is TrialKind.REPLICATE else ""
    star = f"{STAR} " if is_picked else ""
    return cut(f"{star}{record.number:03d}{mark(record)} {label}{seed}", LONGEST_NAME)


def identity_tags(record: TrialRecord) -> dict[str, str]:
    """Return tags about what never changes."""
    tags = {
        "sweep.number": str(record.number),
        "sweep.key": record.key,
        "sweep.kind": str(record.kind),
        "sweep.method": str(record.config["method"]["name"]),
        "sweep.seed": str(record.seed),
    }
    if record.parent is not None:
        tags["sweep.parent"] = str(record.parent)
    if record.name is not None:
        tags["sweep.reference"] = record.name
    return limited_tags(tags)


def state_tags(record: TrialRecord, *, processes: int, is_picked: bool) -> dict[str, str]:
    """Return tags about where the trial stands, all of them from `STATE_TAGS`.

    The name is one of them: the mark of a trial that ran out of memory comes with its second attempt.

    Args:
        record: the trial.
        processes: processes that share each of its batches.
        is_picked: whether it is the sweep's pick.
    """
    tags = {
        "mlflow.runName": run_name(record, is_picked=is_picked),
        STATE: str(record.state),
        "sweep.state": str(record.state),
        "sweep.attempts": str(record.attempt),
    }
    seconds = f"{record.seconds:.1f}" if record.seconds else None
    optional = {
        "sweep.worker": record.worker,
        "sweep.device": record.device,
        "sweep.seconds": seconds,
        "sweep.micro_batch": record.micro_batch,
        "sweep.marked": "; ".join(explained(record, processes=processes).values()),
        "sweep.reused": record.reused,
        "sweep.failure": record.failure,
        "sweep.error": record.error,
    }
    return limited_tags(tags | {name: str(value) for name, value in optional.items() if value})


def run_status(state: TrialState, *, is_driven: bool) -> str:
    """Return the state that MLflow should show for a trial.

    Args:
        state: the trial's.
        is_driven: whether a driver works on the sweep; without one nothing runs, whatever the last one left behind.
    """
    match state:
        case TrialState.QUEUED:
            return "SCHEDULED"
        case TrialState.RUNNING:
            return "RUNNING" if is_driven else "SCHEDULED"
        case TrialState.FAILED:
            return "FAILED"
        case _:
            return "FINISHED"


def put_status(client: MlflowClient, run_id: str, record: TrialRecord, *, status: str) -> None:
    """Set a run's state, with the recorded time if it is an end."""
    if status in ("FINISHED", "FAILED"):
        client.set_terminated(run_id, status, milliseconds(record.finished or time.time()))
    else:
        client.update_run(run_id, status=status)


def metrics_of(point: Point, *, headline: str) -> list[Metric]:
    """Return a report as metrics.

    Args:
        point: the report.
        headline: metric to put first: MLflow's plots open with a run's first one. The others follow by name.
    """
    return to_metrics(point.metrics, headline=headline, timestamp=milliseconds(point.timestamp), step=point.step)


def to_metrics(values: Mapping[str, float], *, headline: str, timestamp: int, step: int) -> list[Metric]:
    """Return figures as metrics of one step.

    Args:
        values: name -> value.
        headline: metric to put first; the others follow by name.
        timestamp: milliseconds since 1970.
        step: training step.
    """
    names = sorted(values, key=lambda name: (name != headline, name))
    return [Metric(key_name(name), values[name], timestamp, step) for name in names]


def profile_metrics(record: TrialRecord) -> list[Metric]:
    """Return the efficiency of a trial's architecture as metrics of step 0; of a latency that was measured in company none."""
    created = milliseconds(record.created)
    figures = sound(record.profile)
    return [Metric(f"profile/{name}", figures[name], created, 0) for name in sorted(figures)]


def dataset_inputs(config: Mapping[str, Any], digest: str) -> list[DatasetInput]:
    """Return source and target as data set inputs.

    Args:
        config: the trial's configuration, plain data.
        digest: hash of the contents of every split that the training read, of both domains.
    """
    inputs = []
    for side in ("source", "target"):
        domain = config["data"][side]
        name = f"{domain['dataset']}/{domain['domain']}"
        dataset = Dataset(
            name=cut(name, LONGEST_DATASET),
            digest=digest[:_DIGEST_LENGTH],
            source_type="local",
            source=json.dumps({"dataset": domain["dataset"], "domain": domain["domain"]}),
            profile=json.dumps({"height": config["data"]["height"], "width": config["data"]["width"]}),
        )
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", side)]))
    return inputs


def send_files(
    client: MlflowClient, run_id: str, record: TrialRecord, *, folder: Path, known: Iterable[str], refusals: Refusals
) -> set[str]:
    """Send the files that a training left, and what is read from them.

    Args:
        client: MLflow.
        run_id: the trial's run.
        record: the trial.
        folder: the trial's folder; a trial that ended early has not all of them.
        known: names of files that were sent already.
        refusals: is told what MLflow refused.

    Returns:
        Names of the files that MLflow has now.
    """
    sent = set(known)
    for name in FILES:
        if name not in sent and (folder / name).is_file():
            client.log_artifact(run_id, str(folder / name))
            sent.add(name)
    environment = _read(folder / "environment.json")
    noted = {key: str(value) for key, value in environment.items() if key.startswith("guest/") and value is not None}
    if environment.get("git_commit"):
        noted["mlflow.source.git.commit"] = str(environment["git_commit"])
    put_tags(client, run_id, noted, {}, refusals)
    result = _read(folder / "result.json")
    if result:
        client.log_inputs(run_id, dataset_inputs(record.config, str(result["data_fingerprint"])))
        log_tables(client, run_id, {"per_class.json": _class_table(result)})
    return sent


def _class_table(result: Mapping[str, Any]) -> dict[str, Any]:
    splits = result["splits"]
    rows = [[name, *(figures["iou"].get(name) for figures in splits.values())] for name in result["classes"]]
    return {"columns": ["class", *splits], "data": rows}


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return content
