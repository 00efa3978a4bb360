"""Rounds of a training: from time to time the method labels the target's training images anew, and goes on with these labels.

The maps of a round lie beside the checkpoint, `round-<n>-labels.npy`, perhaps `round-<n>-weights.npy`, and `round-<n>.json` with
their checksums, which is written last. At the beginning of a round the maps are written first and a checkpoint that names their
digest second. So whatever is killed when, a checkpoint inside a round finds its maps, or a run from an earlier one makes the
same maps again. The maps of earlier rounds are deleted after that, and the last ones at the end of the training.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from segda.datasets.array_file import ArrayFile
from segda.datasets.cache import DecodedSplit
from segda.datasets.loaders import evaluation_batches, normalize
from segda.device import autocast
from segda.errors import DamagedCheckpointError
from segda.files import replacing, sha256_of, write_json
from segda.methods import Method
from segda.types import IGNORE_INDEX, PseudoLabel

BATCH_SIZE = 8  # images at once
FULL_WEIGHT = 255  # what a weight of 1 is stored as

_Kind = Literal["labels", "weights"]
_FILE = re.compile(r"round-(?P<number>\d+)(-labels\.npy|-weights\.npy|\.json)")


@dataclass(frozen=True)
class Round:
    """The maps of one round.

    Attributes:
        number: of the round, from 1.
        digest: of the maps and of the images that they belong to, 64 hexadecimal digits.
        labeled: share of the pixels that have a pseudo-label, in [0, 1].
        target: the target's training images with these labels.
    """

    number: int
    digest: str
    labeled: float
    target: DecodedSplit


def round_steps(method: Method, *, steps: int) -> list[int]:
    """Return the numbers of updates after which a method's rounds begin, ascending.

    In a short training several may begin at once, of which the last one counts, or after the last update, which is never.

    Args:
        method: says at which shares of the training.
        steps: of the whole training.

    Raises:
        ValueError: the method says something else than shares in order, or lacks what rounds need.
    """
    starts = list(method.round_starts())
    if starts != sorted(starts) or not all(0 <= start < 1 for start in starts):
        raise ValueError(f"{type(method).__name__}.round_starts must be ascending in [0, 1), got {starts}")
    if starts and not method.needs_target:
        raise ValueError(f"{type(method).__name__} has rounds, so it must have needs_target: labels come with images")
    if starts and type(method).pseudo_labels is Method.pseudo_labels:
        raise ValueError(
            f"{type(method).__name__} has rounds, so it must say what they begin with: pseudo_labels is missing"
        )
    return [round(start * steps) for start in starts]


def make_round(
    method: Method, target: DecodedSplit, folder: Path, *, number: int, device: torch.device, dtype: torch.dtype
) -> Round:
    """Let a method label the target's training images, and write that down.

    Args:
        method: its mode is restored at the end.
        target: the images, without labels.
        folder: of the run.
        number: of the round, from 1.
        device: where to compute.
        dtype: what convolutions compute in.

    Returns:
        The round, once a loss of power can no more undo it.

    Raises:
        ValueError: the method labelled other images than it was given, or with what is no label; no file is left of it then.
    """
    was_training = method.training
    method.eval()
    with ExitStack() as files, torch.inference_mode():
        files.callback(method.train, was_training)
        writers: dict[_Kind, _Maps] = {}
        with autocast(device, dtype):
            for labels in method.pseudo_labels(_Images(target, device), number=number):
                for kind, maps in _stored(labels, method).items():
                    if kind not in writers:
                        path = files.enter_context(replacing(_path(folder, number, kind), durable=True))
                        writers[kind] = files.enter_context(_Maps(path, target.images.shape[:3]))
                    writers[kind].add(maps)
        for kind in ("labels", *writers):
            if kind not in writers or writers[kind].count != len(target):
                count = writers[kind].count if kind in writers else 0
                raise ValueError(
                    f"{type(method).__name__}.pseudo_labels gave {kind} of {count} images in round {number}, the target "
                    f"has {len(target)}; yield one PseudoLabel for every batch, with weights in all or in none"
                )
        labeled = writers["labels"].labeled
    record = {
        "labeled": labeled,
        "images": target.fingerprint,
        "digests": {kind: sha256_of(_path(folder, number, kind)) for kind in writers},
    }
    write_json(_record(folder, number), record)
    return _opened(target, folder, number, record)


def find_round(target: DecodedSplit, folder: Path, *, number: int, digest: str) -> Round:
    """Find the round that a checkpoint goes on with.

    Args:
        target: the images, without labels.
        folder: of the run.
        number: of the round.
        digest: that the checkpoint names.

    Raises:
        DamagedCheckpointError: the maps are missing, or they or the images are others than the checkpoint was made with.
    """
    try:
        record = json.loads(_record(folder, number).read_text())
        present = {kind: sha256_of(_path(folder, number, kind)) for kind in record["digests"]}
        found = record | {"digests": present, "images": target.fingerprint}
    # What was not written by this module makes its reader raise nearly anything; a disk that fails says nothing about the files.
    except (FileNotFoundError, IsADirectoryError, ValueError, KeyError, TypeError, RecursionError):
        found = {}
    if _joint(found) != digest:
        raise DamagedCheckpointError(
            f"the checkpoint in {folder} goes on with the pseudo-labels of round {number}, and the round-{number}* files beside "
            "it are missing or changed, or the target's images are; bring them back, or delete the checkpoint to train again"
        )
    return _opened(target, folder, number, found)


def open_round(target: DecodedSplit, folder: Path, *, number: int) -> Round:
    """Open a round that another process of the same training has just made or found.

    Args:
        target: the images, without labels.
        folder: of the run.
        number: of the round.
    """
    return _opened(target, folder, number, json.loads(_record(folder, number).read_text()))


def is_round_file(name: str) -> bool:
    """Tell whether a file of a run's folder belongs to a round."""
    return _FILE.fullmatch(name) is not None


def forget_rounds(folder: Path, *, keep: int | None = None) -> None:
    """Delete the maps of rounds that no checkpoint goes on with any more.

    Args:
        folder: of the run.
        keep: number of the first round to keep; None: none is needed any more.
    """
    for path in folder.iterdir():
        match = _FILE.fullmatch(path.name)
        # Never a later one: a process that was suspended just before this, and replaced, would take it from its successor.
        if match is not None and (keep is None or int(match["number"]) < keep):
            path.unlink(missing_ok=True)


class _Images:
    """All target images in order, batch by batch, as often as asked for."""

    def __init__(self, target: DecodedSplit, device: torch.device) -> None:
        self._target = target
        self._device = device

    def __iter__(self) -> Iterator[Tensor]:
        for batch in evaluation_batches(self._target, batch_size=BATCH_SIZE):
            yield normalize(batch.image.to(self._device, non_blocking=True))


class _Maps(ArrayFile):
    """A new .npy file of maps uint8 [N, H, W], written batch by batch."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        super().__init__(path, shape)
        self.count = 0
        self._labeled = 0

    def add(self, maps: Tensor) -> None:
        if maps.shape[1:] != self._shape[1:]:
            raise ValueError(
                f"pseudo-labels must have the images' size {tuple(self._shape[1:])}, got {tuple(maps.shape[1:])}"
            )
        plain = maps.cpu().numpy()
        for item in plain:
            self.write(self.count, item)
            self.count += 1
        self._labeled += int(np.count_nonzero(plain != IGNORE_INDEX))

    @property
    def labeled(self) -> float:
        return self._labeled / float(np.prod(self._shape))


def _stored(labels: PseudoLabel, method: Method) -> dict[_Kind, Tensor]:
    """Return the maps as they are stored, uint8 [B, H, W], after a look at what uint8 would wrap around."""
    name = f"{type(method).__name__}.pseudo_labels"
    label = labels.label
    if not ((label >= 0) & (label < method.num_classes) | (label == IGNORE_INDEX)).all():
        raise ValueError(f"{name} gave labels other than 0..{method.num_classes - 1} and {IGNORE_INDEX} for none")
    maps: dict[_Kind, Tensor] = {"labels": label.to(torch.uint8)}
    if labels.weight is not None:
        weight = (labels.weight.float() * FULL_WEIGHT).round()
        if not ((weight >= 0) & (weight <= FULL_WEIGHT)).all():
            raise ValueError(f"{name} gave weights outside of [0, 1]")
        maps["weights"] = weight.to(torch.uint8)
    return maps


def _opened(target: DecodedSplit, folder: Path, number: int, record: dict[str, Any]) -> Round:
    weights = _path(folder, number, "weights") if "weights" in record["digests"] else None
    return Round(number, _joint(record), record["labeled"], target.with_maps(_path(folder, number, "labels"), weights))


def _joint(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _path(folder: Path, number: int, kind: _Kind) -> Path:
    return folder / f"round-{number}-{kind}.npy"


def _record(folder: Path, number: int) -> Path:
    return folder / f"round-{number}.json"
