"""Rounds of a training: from time to time the method changes itself, labels the target's training images, chooses the source's.

What a round goes on with lies beside the checkpoint: perhaps maps, `round-<n>-labels.npy` and `round-<n>-weights.npy`, and their
checksums and the images to draw in `round-<n>.json`, which is written last. At the beginning of a round the method changes in
memory; then these files are written, and at last a checkpoint that names their digest and holds the changed method. So whatever is
killed when, a checkpoint inside a round finds its files, or a run from an earlier one begins the round again and makes the same
ones. The files of earlier rounds are deleted after that, and the last ones at the end of the training.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
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
from segda.splits import Splits
from segda.types import IGNORE_INDEX, PseudoLabel

BATCH_SIZE = 8  # images at once
FULL_WEIGHT = 255  # what a weight of 1 is stored as

_BEGINNINGS = ("begin_round", "pseudo_labels", "choose_source")  # methods of a `Method`, in the order of their calls
_Kind = Literal["labels", "weights"]
_FILE = re.compile(r"round-(?P<number>\d+)(-labels\.npy|-weights\.npy|\.json)")


@dataclass(frozen=True)
class Round:
    """What one round goes on with.

    Attributes:
        number: of the round, from 1.
        digest: of the maps, of the images to draw and of the images that both belong to, 64 hexadecimal digits.
        target: the target's training images, with pseudo-labels if the round has some.
        drawn_target: numbers of the target images to draw, ascending; None: all.
        drawn_source: numbers of the supervised training images to draw, ascending; None: all.
        shares: for reports, each in [0, 1]: `pseudo_labeled`, the share of the target's pixels that have a pseudo-label, if the
            round has some; `drawn_target` and `drawn_source`, the shares of the images that are drawn, where not all are.
    """

    number: int
    digest: str
    target: DecodedSplit
    drawn_target: tuple[int, ...] | None
    drawn_source: tuple[int, ...] | None
    shares: Mapping[str, float]


def round_steps(method: Method, *, steps: int) -> list[int]:
    """Return the numbers of updates after which a method's rounds begin, ascending.

    In a short training several may begin at once, of which the last one counts, or after the last update, which is never.

    Args:
        method: says at which shares of the training.
        steps: of the whole training.

    Raises:
        ValueError: the method says something else than shares in order, or lacks or has what rounds need or cannot have.
    """
    starts = list(method.round_starts())
    if starts != sorted(starts) or not all(0 <= start < 1 for start in starts):
        raise ValueError(f"{type(method).__name__}.round_starts must be ascending in [0, 1), got {starts}")
    kind = type(method)
    if starts and method.needs_external_labels:
        raise ValueError(
            f"{kind.__name__} has rounds, whose labels would replace the external ones; needs_external_labels must be false"
        )
    own = [name for name in _BEGINNINGS if getattr(kind, name) is not getattr(Method, name)]
    if starts and not own:
        raise ValueError(
            f"{kind.__name__} has rounds, so it must say what they begin with: {', '.join(_BEGINNINGS)} are missing"
        )
    if "pseudo_labels" in own and not method.needs_target:
        raise ValueError(f"{kind.__name__} has pseudo_labels, so it must have needs_target: labels come with images")
    if method.draws_labeled_only and "pseudo_labels" not in own:
        raise ValueError(
            f"{kind.__name__} draws_labeled_only, so it must say which images have labels: pseudo_labels is missing"
        )
    return [round(start * steps) for start in starts]


def make_round(
    method: Method, splits: Splits, folder: Path, *, number: int, device: torch.device, dtype: torch.dtype
) -> Round:
    """Let a method that has begun a round label and choose training images, and write that down.

    Args:
        method: its mode is restored at the end.
        splits: of the run.
        folder: of the run.
        number: of the round, from 1.
        device: where to compute.
        dtype: what convolutions compute in.

    Returns:
        The round, once a loss of power can no more undo it.

    Raises:
        ValueError: the method labelled other images than it was given, or with what is no label, or it chose no image; no file is
            left of it then.
    """
    was_training = method.training
    method.eval()
    with ExitStack() as files, torch.inference_mode():
        files.callback(method.train, was_training)
        with autocast(device, dtype):
            written = _write_maps(method, splits.target, folder, files, number=number, device=device)
            chosen = method.choose_source(_Images(splits.labeled, device), number=number)
        drawn_source = None if chosen is None else _numbers(chosen, method, len(splits.labeled))
    labels = written.get("labels")
    record = {
        "labeled": None if labels is None else sum(labels.labeled) / labels.pixels,
        "digests": {kind: sha256_of(_path(folder, number, kind)) for kind in written},
        "drawn_target": None,
        "drawn_source": drawn_source,
        "target": splits.target.fingerprint,
        "source": splits.labeled.fingerprint,
    }
    if labels is not None and method.draws_labeled_only and any(labels.labeled):
        record["drawn_target"] = [image for image, count in enumerate(labels.labeled) if count]
    write_json(_record(folder, number), record)
    return _opened(splits, folder, number, record)


def find_round(splits: Splits, folder: Path, *, number: int, digest: str) -> Round:
    """Find the round that a checkpoint goes on with.

    Args:
        splits: of the run.
        folder: of the run.
        number: of the round.
        digest: that the checkpoint names.

    Raises:
        DamagedCheckpointError: its files are missing, or they or the images are others than the checkpoint was made with.
    """
    try:
        record = json.loads(_record(folder, number).read_text())
        present = {kind: sha256_of(_path(folder, number, kind)) for kind in record["digests"]}
        found = record | {
            "digests": present,
            "target": splits.target.fingerprint,
            "source": splits.labeled.fingerprint,
        }
    # What was not written by this module makes its reader raise nearly anything; a disk that fails says nothing about the files.
    except (FileNotFoundError, IsADirectoryError, ValueError, KeyError, TypeError, RecursionError):
        found = {}
    if _joint(found) != digest:
        raise DamagedCheckpointError(
            f"the checkpoint in {folder} goes on with round {number}, and the round-{number}* files beside it are missing or "
            "changed, or the training images are; bring them back, or delete the checkpoint to train again"
        )
    return _opened(splits, folder, number, found)


def open_round(splits: Splits, folder: Path, *, number: int) -> Round:
    """Open a round that another process of the same training has just made or found.

    Args:
        splits: of the run.
        folder: of the run.
        number: of the round.
    """
    return _opened(splits, folder, number, json.loads(_record(folder, number).read_text()))


def is_round_file(name: str) -> bool:
    """Tell whether a file of a run's folder belongs to a round."""
    return _FILE.fullmatch(name) is not None


def forget_rounds(folder: Path, *, keep: int | None = None) -> None:
    """Delete the files of rounds that no checkpoint goes on with any more.

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
    """All images of a split in order, batch by batch, as often as asked for."""

    def __init__(self, split: DecodedSplit, device: torch.device) -> None:
        self._split = split
        self._device = device

    def __iter__(self) -> Iterator[Tensor]:
        for batch in evaluation_batches(self._split, batch_size=BATCH_SIZE):
            yield normalize(batch.image.to(self._device, non_blocking=True))


class _Maps(ArrayFile):
    """A new .npy file of maps uint8 [N, H, W], written batch by batch.

    Attributes:
        pixels: that it has room for.
        labeled: number of pixels that have a label, of each image so far.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        super().__init__(path, shape)
        self.pixels = math.prod(shape)
        self.labeled: list[int] = []

    def add(self, maps: Tensor) -> None:
        if maps.shape[1:] != self._shape[1:]:
            raise ValueError(
                f"pseudo-labels must have the images' size {tuple(self._shape[1:])}, got {tuple(maps.shape[1:])}"
            )
        for item in maps.cpu().numpy():
            self.write(len(self.labeled), item)
            self.labeled.append(int(np.count_nonzero(item != IGNORE_INDEX)))


def _write_maps(
    method: Method, target: DecodedSplit, folder: Path, files: ExitStack, *, number: int, device: torch.device
) -> "dict[_Kind, _Maps]":
    """Write the pseudo-labels of a round, if it has some, into files that are kept if their context ends well."""
    writers: dict[_Kind, _Maps] = {}
    labels_of_batches = method.pseudo_labels(_Images(target, device), number=number)
    if labels_of_batches is None:
        return writers
    for labels in labels_of_batches:
        for kind, maps in _stored(labels, method).items():
            if kind not in writers:
                path = files.enter_context(replacing(_path(folder, number, kind), durable=True))
                writers[kind] = files.enter_context(_Maps(path, target.images.shape[:3]))
            writers[kind].add(maps)
    for kind in ("labels", *writers):
        count = len(writers[kind].labeled) if kind in writers else 0
        if count != len(target):
            raise ValueError(
                f"{type(method).__name__}.pseudo_labels gave {kind} of {count} images in round {number}, the target "
                f"has {len(target)}; yield one PseudoLabel for every batch, with weights in all or in none"
            )
    return writers


def _numbers(chosen: Tensor, method: Method, count: int) -> list[int]:
    """Return the numbers of the chosen images, ascending."""
    name = f"{type(method).__name__}.choose_source"
    if chosen.dtype != torch.bool or chosen.shape != (count,):
        raise ValueError(
            f"{name} must give bool [{count}], one per training image, got {chosen.dtype} {list(chosen.shape)}"
        )
    if not chosen.any():
        raise ValueError(f"{name} chose none of {count} images; the steps of a round need at least one to draw")
    return torch.nonzero(chosen).flatten().tolist()


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


def _opened(splits: Splits, folder: Path, number: int, record: dict[str, Any]) -> Round:
    target, shares = splits.target, {}
    if "labels" in record["digests"]:
        weights = _path(folder, number, "weights") if "weights" in record["digests"] else None
        target = target.with_maps(_path(folder, number, "labels"), weights)
        shares["pseudo_labeled"] = record["labeled"]
    drawn: dict[str, tuple[int, ...] | None] = {"drawn_target": None, "drawn_source": None}
    for name, split in (("drawn_target", splits.target), ("drawn_source", splits.labeled)):
        if record[name] is not None:
            drawn[name] = tuple(record[name])
            shares[name] = len(record[name]) / len(split)
    return Round(number, _joint(record), target, **drawn, shares=shares)


def _joint(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _path(folder: Path, number: int, kind: _Kind) -> Path:
    return folder / f"round-{number}-{kind}.npy"


def _record(folder: Path, number: int) -> Path:
    return folder / f"round-{number}.json"
