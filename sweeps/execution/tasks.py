"""What a worker is told about the attempt that it is to make."""

from pathlib import Path

from segda.guests import importable_folders
from sweeps.execution.worker import Task
from sweeps.file.spec import SweepSpec
from sweeps.trial import TrialRecord


def task_of(record: TrialRecord, *, spec: SweepSpec, folder: Path, train: str) -> Task:
    """Return an attempt at a trial as plain data.

    Args:
        record: the trial as the ledger gave it when it was started.
        spec: its sweep.
        folder: of the trial.
        train: training function as `module:name`.
    """
    # Places (roots, cache) come from the sweep file at hand: data sets may have moved since the row was written.
    config = spec.worker_config(record.params, seed=record.seed)
    resources = spec.resources
    return Task(
        number=record.number,
        attempt=record.attempt,
        acknowledged=record.step,
        folder=str(folder),
        config=config.model_dump(mode="json"),
        threads=resources.threads,
        train=train,
        micro_batch=record.micro_batch,
        processes=resources.processes,
        watchdog_seconds=resources.watchdog_minutes * 60,
        storage=spec.storage,
        system_metrics=spec.tracking.system_metrics,
        folders=tuple(importable_folders()),
    )
