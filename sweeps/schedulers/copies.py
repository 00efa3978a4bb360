"""Checkpoints that are kept so that other trials can go on from them; see `sweeps.schedulers.pbt`."""

import logging
import os
import shutil
from pathlib import Path

from segda.checkpoint import fork_checkpoint
from segda.config import TrainConfig
from segda.errors import WeightsError
from segda.files import replacing

log = logging.getLogger(__name__)

_CHECKPOINT = "checkpoint.pt"


def copy_at(folder: Path, step: int) -> Path:
    """Return where a trial's checkpoint of a step is kept.

    Args:
        folder: of the trial.
        step: number of updates made.
    """
    return folder / f"checkpoint-{step}.pt"


def keep_copy(checkpoint: Path, *, step: int) -> None:
    """Keep a checkpoint that the next one will replace. A copy that is there already stays: a resumed trial reports again.

    Args:
        checkpoint: the file as training has just written it.
        step: its step.
    """
    copy = copy_at(checkpoint.parent, step)
    if copy.exists():
        return
    try:
        # A link costs nothing, and is safe: trainings replace checkpoints, they never write into them.
        os.link(checkpoint, copy)
    except OSError:
        with replacing(copy) as temporary:
            shutil.copyfile(checkpoint, temporary)


def begin_from(source: Path, *, config: TrainConfig, folder: Path) -> None:
    """Let a new trial go on from a kept checkpoint; where that is not at hand, it trains from the start, to the same result.

    Args:
        source: the kept checkpoint.
        config: of the new trial.
        folder: of the new trial; a checkpoint of its own there is left alone.
    """
    if (folder / _CHECKPOINT).exists():
        return
    if not source.is_file():
        log.warning("%s is not at hand; the trial trains from the start", source)
        return
    try:
        fork_checkpoint(source, config=config, folder=folder)
    except WeightsError as error:
        log.warning("%s; the trial trains from the start", error)


def drop_copies(folder: Path) -> None:
    """Delete the kept checkpoints of a trial, when no other trial can go on from them any more."""
    for copy in folder.glob("checkpoint-*.pt"):
        copy.unlink(missing_ok=True)
