"""What several documents have in common; none of it needs PyTorch, without which `sweeps status` does."""

from collections.abc import Mapping
from typing import Any

from segda.documents import utc
from sweeps.ledger.lease import is_free
from sweeps.metrics import has_doubts, is_oracle, visible_metrics
from sweeps.reports.status import DriverStatus
from sweeps.trial import TrialRecord


def shows_oracle(selection: str | None, *, asked: bool) -> bool:
    """Return whether a document has figures that are made from target labels.

    Args:
        selection: the sweep's criterion; a sweep that chooses by target labels hides none.
        asked: whether the user asked for them.
    """
    return asked or selection == "oracle"


def metrics_part(metrics: Mapping[str, Any], *, oracle: bool) -> dict[str, Any]:
    """Return metrics by name as `metrics`, and those that are made from target labels apart, as `oracle`, if they are shown.

    Args:
        metrics: name -> whatever is told of it.
        oracle: see `shows_oracle`.
    """
    found: dict[str, Any] = {"metrics": visible_metrics(metrics, "")}
    if oracle:
        found["oracle"] = {name: value for name, value in metrics.items() if is_oracle(name)}
    return found


def without_oracle(value: Any) -> Any:
    """Return plain data of somebody else without figures that are made from target labels, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_oracle(item) for key, item in value.items() if not is_oracle(f"{key}/")}
    return [without_oracle(item) for item in value] if isinstance(value, list | tuple) else value


def driver_part(status: DriverStatus) -> dict[str, Any]:
    """Return a sweep's state and its driver.

    Args:
        status: the sweep.
    """
    record, driver = status.record, None
    if record.driver is not None and not is_free(record.driver):
        host, process, _ = record.driver.rsplit(":", 2)
        driver = {"host": host, "process": int(process), "seen": utc(record.driver_seen)}
    return {
        "state": record.state,
        "is_driven": status.is_driven,
        "has_ended": status.has_ended,
        "text": status.state,
        "trouble": status.trouble,
        "driver": driver,
        "created": utc(record.created),
        "seconds": status.seconds,
    }


def trial_part(trial: TrialRecord, *, oracle: bool) -> dict[str, Any]:
    """Return a trial in a list of trials.

    Args:
        trial: its whole record.
        oracle: see `shows_oracle`.
    """
    return {
        "number": trial.number,
        "kind": trial.kind,
        "name": trial.name,
        "parent": trial.parent,
        "key": trial.key,
        "state": trial.state,
        "seed": trial.seed,
        "params": trial.params,
        "step": trial.step,
        "steps": trial.config["steps"],
        **metrics_part(trial.metrics, oracle=oracle),
        "cost": trial.profile,
        "cost_is_doubtful": has_doubts(trial.profile),
        "attempts": trial.attempt,
        "failure": trial.failure,
        "error": trial.error,
        "worker": trial.worker or None,
        "device": trial.device,
        "created": utc(trial.created),
        "started": utc(trial.started),
        "finished": utc(trial.finished),
        "seconds": trial.seconds,
        "micro_batch": trial.micro_batch,
        "reused": trial.reused,
        "run_id": trial.run_id,
    }


def number_of(trial: TrialRecord | None) -> int | None:
    """Return a trial's number, or None."""
    return None if trial is None else trial.number
