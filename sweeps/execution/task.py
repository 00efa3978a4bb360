"""One attempt at one trial, as plain data: what a worker is given to do."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segda.config import TrainConfig
from segda.guests import importable_folders
from sweeps.file.spec import SweepSpec
from sweeps.trial import TrialRecord

DEFAULT_TRAIN = "segda.training:train"


@dataclass(frozen=True)
class Task:
    """One attempt at one trial, as plain data.

    Attributes:
        number: the trial.
        attempt: number of the attempt; a higher one makes this one stale.
        acknowledged: last step that the driver has on disk.
        folder: the trial's folder.
        config: `TrainConfig` as plain data.
        threads: threads that the trial may compute with.
        train: the training function as `module:name`. It has the contract of `segda.train`, that it writes with `segda.files`
            included: only so can a worker that was replaced not undo what its successor wrote.
        micro_batch: images of each domain per forward and backward pass; None: the whole batch.
        processes: processes of the trial that share each batch, one per GPU.
        watchdog_seconds: longest time without a report, the start included, after which the process ends itself; None: for
            ever.
        storage: fsspec address under which trials are kept as well, for nodes that do not share `folder`.
        system_metrics: whether each point gets figures of the machine too.
        folders: where dotted names in the configuration are looked for, see `segda.guests`.
    """

    number: int
    attempt: int
    acknowledged: int
    folder: str
    config: Mapping[str, Any]
    threads: int
    train: str = DEFAULT_TRAIN
    micro_batch: int | None = None
    processes: int = 1
    watchdog_seconds: float | None = None
    storage: str | None = None
    system_metrics: bool = False
    folders: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)


def task_of(
    record: TrialRecord, config: TrainConfig, *, spec: SweepSpec, gpus: float, folder: Path, train: str
) -> Task:
    """Return an attempt at a trial as plain data.

    Args:
        record: the trial as the ledger gave it when it was started.
        config: its training configuration by the sweep file at hand, since the row's places (roots, cache) may be old.
        spec: its sweep.
        gpus: of a trial.
        folder: of the trial.
        train: training function as `module:name`.
    """
    resources = spec.resources
    return Task(
        number=record.number,
        attempt=record.attempt,
        acknowledged=record.step,
        folder=str(folder),
        config=spec.worker_config(config, gpus=gpus).model_dump(mode="json"),
        threads=resources.threads,
        train=train,
        micro_batch=record.micro_batch,
        processes=resources.processes,
        watchdog_seconds=resources.watchdog_minutes * 60,
        storage=spec.storage,
        system_metrics=spec.tracking.system_metrics,
        folders=tuple(importable_folders()),
    )
