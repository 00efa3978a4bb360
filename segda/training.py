"""Training one network, from report to report.

`train(config, report, folder=...)` is the trainable function that this library supplies. `report` is its only seam to the
outside: a command line draws a progress bar with it, an orchestrator decides with it whether the run goes on. Whatever it writes
goes through `segda.files`, so whoever calls it can keep a run from replacing files of a folder that is no longer its own
(`segda.files.claiming`).
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segda.allocator import give_back_freed_memory
from segda.checkpoint import read_checkpoint
from segda.config import TrainConfig
from segda.device_errors import is_out_of_memory
from segda.environment import describe_environment, describe_guests
from segda.errors import OutOfMemoryError
from segda.files import expanded, remove_unfinished, write_json, write_text
from segda.gradients import images_at_once
from segda.processes import assembled
from segda.progress import Update, notices, progress_bar
from segda.scoring import RESULT
from segda.splits import Splits, data_fingerprint, open_splits
from segda.team import Team
from segda.training_run import OnStep, TrainingRun

__all__ = ["OnStep", "Report", "TrainResult", "data_fingerprint", "train"]

log = logging.getLogger(__name__)

REPORTS = "metrics.jsonl"  # in the run folder: one report a line

Report = Callable[[int, Mapping[str, float], Path], None]


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves.

    Attributes:
        step: number of updates made.
        metrics: the last report's metrics.
        folder: the run folder.
    """

    step: int
    metrics: Mapping[str, float]
    folder: Path

    @property
    def checkpoint(self) -> Path:
        """Where the trained network is."""
        return self.folder / "checkpoint.pt"


def train(
    config: TrainConfig,
    report: Report | None = None,
    *,
    folder: Path | str | None = None,
    acknowledged: int = 0,
    on_step: OnStep | None = None,
    micro_batch: int | None = None,
    processes: int = 1,
) -> TrainResult:
    """Train one network, or go on with a run that stopped.

    `micro_batch` and `processes` say how a step is computed, not which: they are no part of the configuration, may differ from one
    start of the run to the next, and are recorded in `environment.json`. Several processes compute what one does, up to the
    rounding of sums in another order. Micro-batches do so but for BatchNorm, whose statistics are those of a micro-batch (over all
    processes) and whose running averages move once per micro-batch. Layers on pooled maps see one value per image, and there that
    matters: on a trained BiSeNet-R18 and batches of 8, the gradient's cosine to that of the whole batch is 0.86 with
    micro-batches of 4 and 0.47 with 2. So fewer than 4 images at once are refused where the batch has them, and a run that was
    trained in micro-batches is one with another result, not the same with less memory.

    Args:
        config: everything that decides the result.
        report: called with (step, metrics, checkpoint) every `report_every` steps and at the end, after the checkpoint of that
            step is on disk, where no loss of power can take it away. It may raise to stop the run. None: a progress bar shows
            loss and source mIoU where somebody watches.
        folder: where the run lives; a checkpoint of the same configuration found there is continued. None: a folder in `runs`
            that is named by the configuration's fingerprint.
        acknowledged: last step whose report is known to have arrived; kept reports after it are sent again on a resume.
        on_step: called with (step, loss of the segmenter) about every second, for progress bars.
        micro_batch: images of each domain that pass through the network at once; one of `segda.gradients.micro_batches`.
            Gradients add up over the micro-batches of a step, at the price of one more forward pass. None: the whole batch at once.
        processes: how many processes on this node train together, each on an equal part of every batch and, with CUDA, on a GPU of
            its own. This one is the first: it alone reports, scores and writes.

    Returns:
        The last step and its metrics.

    Raises:
        TrainingDivergedError: if a loss is NaN or infinite.
        OutOfMemoryError: if the device runs out of memory; a smaller `micro_batch` needs less.
        ProcessLostError: if another of the processes died; what it told of before is raised as what it is, an OSError included.
        DamagedCheckpointError: if the folder's checkpoint cannot be read; it is left as it is, and without it the run begins anew.
        SegdaError: if configuration, data, weights or device cannot be used.
    """
    folder = Path("runs") / config.fingerprint() if folder is None else expanded(folder)
    if report is None:
        open_splits(config, progress=notices().is_terminal)  # under a bar of its own
        with _shown(config) as bar:
            return train(
                config,
                bar.report,
                folder=folder,
                acknowledged=acknowledged,
                on_step=on_step or bar.on_step,
                micro_batch=micro_batch,
                processes=processes,
            )
    images_at_once(config, micro_batch=micro_batch, processes=processes)
    try:
        with assembled(config, folder=folder, micro_batch=micro_batch, processes=processes) as team:
            splits = open_splits(config)
            # The other processes wait for this: they would decode the same images.
            team.start_together()
            return take_part(
                config,
                splits,
                team,
                report,
                folder=folder,
                acknowledged=acknowledged,
                on_step=on_step,
                micro_batch=micro_batch,
            )
    finally:
        give_back_freed_memory()


class _Shown:
    """Shows loss and source mIoU on a progress bar."""

    def __init__(self, update: Update) -> None:
        self._update = update
        self._figures: dict[str, float] = {}

    def on_step(self, step: int, loss: float) -> None:
        self._figures["loss"] = loss
        self._show(step)

    def report(self, step: int, metrics: Mapping[str, float], _checkpoint: Path) -> None:
        losses = {name.removeprefix("train/"): value for name, value in metrics.items() if "/loss_" in name}
        self._figures.update(losses)
        self._figures["source mIoU"] = metrics["source/val/miou"]
        self._show(step)

    def _show(self, step: int) -> None:
        self._update(step, text=" | ".join(f"{name} {value:.3f}" for name, value in self._figures.items()))


@contextmanager
def _shown(config: TrainConfig) -> Iterator[_Shown]:
    with progress_bar("starting", total=config.steps) as update:
        yield _Shown(update)


def take_part(
    config: TrainConfig,
    splits: Splits,
    team: Team,
    report: Report,
    *,
    folder: Path,
    acknowledged: int = 0,
    on_step: OnStep | None = None,
    micro_batch: int | None = None,
) -> TrainResult:
    """Train as one of the processes that train together; `train` is how to start them all.

    Args:
        config: as in `train`.
        splits: its decoded images.
        team: the processes, seen from this one.
        report: as in `train`; called on rank 0.
        folder: as in `train`; the other ranks read the checkpoint there.
        acknowledged: as in `train`.
        on_step: as in `train`; called on rank 0.
        micro_batch: as in `train`.

    Returns:
        The last step, and on rank 0 its metrics.

    Raises:
        SegdaError: as in `train`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if team.rank == 0:
        remove_unfinished(folder)  # as large as a checkpoint where a save was killed
    checkpoint = folder / "checkpoint.pt"
    state = read_checkpoint(checkpoint) if checkpoint.exists() else None

    run = TrainingRun(config, splits, team, folder, resumed=state is not None, micro_batch=micro_batch)
    if state is not None:
        run.restore(state)
    if team.rank == 0:
        _record(run, resumed=state is not None)
        for kept in run.history:
            if kept["step"] > acknowledged:
                report(kept["step"], kept["metrics"], checkpoint)

    with run.loading():
        _advance_and_report(run, report, on_step)
    return TrainResult(step=run.step, metrics=run.history[-1]["metrics"] if run.history else {}, folder=folder)


def _record(run: TrainingRun, *, resumed: bool) -> None:
    """Write what is trained, and with what; a resumed run keeps its first record, but for how a step is computed from now on."""
    environment = run.folder / "environment.json"
    if resumed:
        log.info("continues at step %d of %d", run.step, run.config.steps)
    else:
        write_json(run.folder / "config.json", run.config.model_dump(mode="json"))
    guests = describe_guests(run.config)
    described = (_read_kept(environment) if resumed else {}) or describe_environment(run.device) | guests
    for name, value in guests.items():
        if described.get(name) != value:
            log.warning(
                "%s was %s when this run began, is %s now: what follows may not fit", name, described.get(name), value
            )
    write_json(environment, described | {"micro_batch": run.gradients.at_once, "processes": run.team.size})
    if resumed:
        # The run may have ended after its checkpoint was written and before this was.
        _write_reports(run)
        if run.step == run.config.steps and not _read_kept(run.folder / RESULT):
            run.score(final=True)


def _read_kept(path: Path) -> dict[str, Any]:
    """Read what a run wrote beside its checkpoint; empty if that is lost, which is no reason to lose the run."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        log.warning("%s is damaged and is written again, as the run is now", path)
        return {}
    return found


def _write_reports(run: TrainingRun) -> None:
    """Write the reports so far as one JSON object per line."""
    write_text(run.folder / REPORTS, "".join(json.dumps(kept) + "\n" for kept in run.history))


def _advance_and_report(run: TrainingRun, report: Report, on_step: OnStep | None) -> None:
    """Train to the end, from report to report."""
    config = run.config
    while run.step < config.steps:
        until = min((run.step // config.report_every + 1) * config.report_every, config.steps)
        try:
            metrics = run.advance(until, on_step)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            height, width = config.data.train_size
            raise OutOfMemoryError(
                f"{run.device} ran out of memory with {run.gradients.at_once} images of {height}x{width} at once (batch_size "
                f"{config.batch_size}, processes {run.team.size}); use a smaller micro_batch, batch or crop"
            ) from error
        if run.team.rank > 0:
            continue
        run.team.check()
        metrics |= run.score(final=until == config.steps)
        run.history.append({"step": run.step, "time": time.time(), "seconds": run.seconds, "metrics": metrics})
        run.save()
        _write_reports(run)
        report(run.step, metrics, run.checkpoint)
