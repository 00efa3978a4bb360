"""Label the target's training images once, for all students: by networks of ours, or by what another program says of them.

No label of the target is opened, and networks that have seen any are refused as teachers.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from segda.black_box import BlackBox
from segda.checkpoint import load_segmenter
from segda.config import DataConfig
from segda.datasets import DATASETS
from segda.datasets.cache import DecodedSplit
from segda.datasets.external_labels import Confidence, ExternalMaps, Job, Maps, levels_of, write_external_labels
from segda.datasets.loaders import normalize
from segda.device import Precision, autocast, resolve_device, resolve_precision
from segda.device_errors import is_out_of_memory
from segda.errors import ConfigError, OutOfMemoryError
from segda.files import expanded, sha256_of
from segda.loading import load_data
from segda.models import Segmenter
from segda.predecessors import check_classes, check_unseen
from segda.prediction import SMALLEST_SIDE
from segda.progress import notices, progress_bar
from segda.resizing import resize_label
from segda.splits import open_target
from segda.types import IGNORE_INDEX, Pixels

log = logging.getLogger(__name__)


class _Labeler(Protocol):
    """What labels the images.

    Attributes:
        confidence: what its confidences are.
        made_by: what it is, without places.
    """

    confidence: Confidence
    made_by: dict[str, Any]

    def label_from(self, first: int) -> Iterator[Maps]:
        """Yield the maps of all images from the one with a number on, in order."""


class _View(NamedTuple):
    """One way in which teachers look at an image: at a scale of the size that they were trained at, perhaps mirrored."""

    scale: float
    is_flipped: bool


def teach(
    source: Path | str | Mapping[str, Any],
    folder: Path | str,
    *,
    checkpoints: Sequence[Path | str] = (),
    predictions: Path | str | None = None,
    confidences: Path | str | None = None,
    temperature: float = 1.0,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    changes: Mapping[str, Any] | None = None,
    data_roots: Mapping[str, Path | str] | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    batch_size: int = 8,
) -> ExternalMaps:
    """Write labels with confidences for all target training images of a configuration, once.

    Networks: probs = mean over teachers and views of softmax(logits / temperature), the label is the class with the largest of them
    and the confidence its margin to the second largest. A teacher sees images at the size that it was trained at, times the scale;
    its probabilities are resized bilinearly to the size of the configuration, with averaging where they shrink.

    Another program: its probabilities are resized in the same way. Of its ids each pixel gets the one that covers most of it
    (`segda.resizing`), and of its confidences the mean over that area; where it says nothing the label is void.

    A call that was interrupted is gone on with when it is given again; the result is the same byte for byte on a CPU.

    Args:
        source: configuration of a student, a YAML file or plain data: its block `data` says which images and which size.
        folder: where nothing is yet, or what the same call has written before.
        checkpoints: of one or more networks that segment together, each with the same weight.
        predictions: folder of what another program says instead, see `segda.black_box`.
        confidences: folder of its confidences, beside PNGs of ids.
        temperature: of the checkpoints' softmax, > 0; above 1 confidences are smaller.
        flip: whether teachers look at each image mirrored too.
        scales: of the size that teachers see, > 0.
        changes: dotted key -> value, put over the configuration.
        data_roots: name of a data set -> its folder.
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`.
        precision: arithmetic of convolutions.
        batch_size: images at once; an interrupted call is gone on with at the same one.

    Returns:
        The labels.

    Raises:
        SegdaError: configuration, data, teachers, predictions, folder or device cannot be used.
    """
    if bool(checkpoints) == (predictions is not None):
        raise ConfigError("labels come either from checkpoints or from a folder of predictions; give one of the two")
    if confidences is not None and predictions is None:
        raise ConfigError("confidences belong to predictions of another program; checkpoints tell their own")
    views = [_View(float(scale), mirrored) for scale in scales for mirrored in ([False, True] if flip else [False])]
    if predictions is not None and (views != [_View(1.0, False)] or temperature != 1):
        raise ConfigError("temperature, flip and scales are ways to ask a network; leave them out with predictions")
    if not views or not all(0 < view.scale < math.inf for view in views) or not 0 < temperature < math.inf:
        raise ConfigError(f"scales and temperature must be greater than 0, got {list(scales)} and {temperature}")
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    data = load_data(source, changes=changes, data_roots=data_roots)
    target = open_target(data, progress=notices().is_terminal)
    labeler: _Labeler
    if predictions is not None:
        labeler = _Program(expanded(predictions), None if confidences is None else expanded(confidences), target, data)
    else:
        labeler = _Teachers(
            [expanded(path) for path in checkpoints],
            target,
            data,
            views=views,
            temperature=float(temperature),
            device=resolve_device(device),
            precision=precision,
            batch_size=batch_size,
        )
    job = Job(
        classes=DATASETS[data.target.dataset].classes,
        names=target.names,
        images=target.fingerprint,
        size=(data.height, data.width),
        confidence=labeler.confidence,
        made_by=labeler.made_by,
    )
    try:
        with progress_bar("labelling", total=len(target)) as show:
            return write_external_labels(expanded(folder), job, labeler.label_from, progress=show)
    except OSError as error:
        raise ConfigError(
            f"external labels cannot be written to {folder} ({error.strerror or error}); free space, or choose another folder"
        ) from error


class _Teachers:
    """Networks of ours, which label together."""

    confidence: Confidence = "margin"

    def __init__(
        self,
        paths: Sequence[Path],
        target: DecodedSplit,
        data: DataConfig,
        *,
        views: Sequence[_View],
        temperature: float,
        device: torch.device,
        precision: Precision,
        batch_size: int,
    ) -> None:
        self._device = device
        self._dtype = resolve_precision(precision, device)
        self._temperature = temperature
        self._batch_size = batch_size
        self._size = (data.height, data.width)
        self._count = len(target)
        self._asked: list[tuple[Segmenter, DecodedSplit, bool]] = []
        described = []
        images = {self._size: target}
        for path in paths:
            segmenter, own = load_segmenter(path)
            check_classes(path, own.data, data)
            check_unseen(path, own, data)
            described.append(
                {
                    "sha256": sha256_of(path),
                    "network": own.model.label(),
                    "method": own.method.name,
                    "seed": own.seed,
                }
            )
            for view in views:
                seen = (
                    max(round(own.data.height * view.scale), SMALLEST_SIDE),
                    max(round(own.data.width * view.scale), SMALLEST_SIDE),
                )
                if seen not in images:
                    images[seen] = open_target(data, size=seen, progress=notices().is_terminal)
                self._asked.append((segmenter.to(device), images[seen], view.is_flipped))
        self.made_by: dict[str, Any] = {
            "checkpoints": described,
            "temperature": temperature,
            "views": [list(view) for view in views],
            "precision": str(self._dtype).removeprefix("torch."),
            "batch_size": batch_size,
        }

    @torch.inference_mode()
    def label_from(self, first: int) -> Iterator[Maps]:
        for start in range(first, self._count, self._batch_size):
            part = slice(start, start + self._batch_size)
            try:
                probs = sum(
                    self._probs(segmenter, images.images[part], mirrored) for segmenter, images, mirrored in self._asked
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise OutOfMemoryError(
                    f"{self._batch_size} images at once do not fit on {self._device}; choose a smaller batch_size"
                ) from error
            yield _maps(cast(Tensor, probs) / len(self._asked))

    def _probs(self, segmenter: Segmenter, images: Pixels, mirrored: bool) -> Tensor:
        """Return what a teacher says of images uint8 [B, h, w, 3], float32 [B, C, H, W] at the size of the labels."""
        image = normalize(torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).to(self._device))
        with autocast(self._device, self._dtype):
            logits = segmenter(image.flip(3) if mirrored else image, auxiliary=False).logits
        probs = (logits.float() / self._temperature).softmax(1)
        return resized_probs(probs.flip(3) if mirrored else probs, self._size)


class _Program:
    """What another program says of the images."""

    def __init__(self, folder: Path, confidences: Path | None, target: DecodedSplit, data: DataConfig) -> None:
        self._box = BlackBox(
            folder,
            names=target.names,
            num_classes=len(DATASETS[data.target.dataset].classes),
            confidences=confidences,
        )
        if self._box.surplus:
            log.warning("%d files in %s belong to no target training image: left alone", len(self._box.surplus), folder)
        self._size = (data.height, data.width)
        self._count = len(target)
        self.confidence: Confidence = (
            "margin" if self._box.has_probs else "given" if self._box.has_confidences else "none"
        )
        self.made_by: dict[str, Any] = {"predictions": self._box.digest()}

    def label_from(self, first: int) -> Iterator[Maps]:
        for number in range(first, self._count):
            said = self._box.read(number)
            if said.probs is not None:
                yield _maps(resized_probs(torch.from_numpy(said.probs)[None], self._size))
                continue
            assert said.label is not None
            label = resize_label(said.label, self._size)
            level = None
            if said.confidence is not None:
                level = levels_of(_resized_confidence(said.confidence, self._size))
                level[label == IGNORE_INDEX] = 0
            yield Maps(label[None], None if level is None else level[None])


def resized_probs(probs: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize probabilities bilinearly, over the area of an output pixel where they shrink.

    Args:
        probs: float32 [B, C, h, w], which sum to 1 over C.
        size: height and width of the result.

    Returns:
        float32 [B, C, *size], which sum to 1 too; the argument itself if it has that size already.
    """
    if probs.shape[2:] == size:
        return probs
    # Without averaging a smaller map would take its values from few of the pixels.
    shrinks = size[0] < probs.shape[2] or size[1] < probs.shape[3]
    return functional.interpolate(probs, size, mode="bilinear", align_corners=False, antialias=shrinks)


def _resized_confidence(confidence: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.floating[Any]]:
    if confidence.shape == size:
        return confidence
    shrinks = size[0] <= confidence.shape[0] and size[1] <= confidence.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(confidence, size[::-1], interpolation=interpolation))


def _maps(probs: Tensor) -> Maps:
    """Return class and level of probabilities float32 [B, C, H, W]."""
    largest, label = probs.max(1)
    second = probs.scatter(1, label.unsqueeze(1), -1).max(1).values.clamp(min=0)
    margin = (largest - second).cpu().numpy()
    if not np.isfinite(margin).all():
        raise ConfigError(
            "a teacher says NaN of an image; choose a checkpoint whose weights are numbers, or precision fp32"
        )
    return Maps(label.to(torch.uint8).cpu().numpy(), levels_of(margin))
