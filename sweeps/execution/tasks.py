"""What a worker is told about the attempt that it is to make."""

from pathlib import Path

from segda.config import TrainConfig
from segda.guests import importable_folders
from sweeps.execution.worker import Task
from sweeps.file.spec import SweepSpec
from sweeps.trial import TrialRecord


def task_of(record: TrialRecord, config: TrainConfig, *, spec: SweepSpec, folder: Path, train: str) -> Task:
    """Return an attempt at a trial as plain data.

    Args:
        record: the trial as the ledger gave it when it was started.
        config: its training configuration by the sweep file at hand, since the row's places (roots, cache) may be old.
        spec: its sweep.
        folder: of the trial.
        train: training function as `module:name`.
    """
    resources = spec.resources
    return Task(
        number=record.number,
        attempt=record.attempt,
        acknowledged=record.step,
        folder=str(folder),
        config=spec.worker_config(config).model_dump(mode="json"),
        threads=resources.threads,
        train=train,
        micro_batch=record.micro_batch,
        processes=resources.processes,
        watchdog_seconds=resources.watchdog_minutes * 60,
        storage=spec.storage,
        system_metrics=spec.tracking.system_metrics,
        folders=tuple(importable_folders()),
    )
