"""Run a segmenter over a split, and score it on a labelled one."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segda.datasets.cache import DecodedSplit
from segda.datasets.loaders import RawBatch, evaluation_batches, normalize
from segda.device import autocast
from segda.metrics import ConfusionMatrix, SegmentationMetrics
from segda.types import SegmentationOutput


def outputs(
    segmenter: nn.Module, split: DecodedSplit, *, device: torch.device, dtype: torch.dtype, batch_size: int = 8
) -> Iterator[tuple[RawBatch, SegmentationOutput]]:
    """Run a segmenter over every image of a split in order; its mode is restored at the end.

    Args:
        segmenter: maps an image to `SegmentationOutput`.
        split: decoded images.
        device: where to compute.
        dtype: what convolutions compute in.
        batch_size: images at once.

    Yields:
        The batch as decoded, and what the segmenter says of it, on the device.
    """
    was_training = segmenter.training
    segmenter.eval()
    try:
        for batch in evaluation_batches(split, batch_size=batch_size):
            with torch.inference_mode(), autocast(device, dtype):
                output = segmenter(normalize(batch.image.to(device, non_blocking=True)))
            yield batch, output
    finally:
        segmenter.train(was_training)


def predictions(
    segmenter: nn.Module, split: DecodedSplit, *, device: torch.device, dtype: torch.dtype, batch_size: int = 8
) -> Iterator[tuple[RawBatch, Tensor]]:
    """Predict every image of a split in order; the segmenter's mode is restored at the end.

    Args:
        segmenter: maps an image to `SegmentationOutput`.
        split: decoded images.
        device: where to compute.
        dtype: what convolutions compute in.
        batch_size: images at once.

    Yields:
        The batch as decoded, and the predicted train ids, int64 [B, H, W] on the device.
    """
    for batch, output in outputs(segmenter, split, device=device, dtype=dtype, batch_size=batch_size):
        yield batch, output.logits.max(1).indices


def score_split(
    segmenter: nn.Module,
    split: DecodedSplit,
    *,
    num_classes: int,
    unscored: frozenset[int] = frozenset(),
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int = 8,
    progress: Callable[[int], None] | None = None,
    observe: Callable[[SegmentationOutput, Tensor], None] | None = None,
    each: Callable[[NDArray[np.int64]], None] | None = None,
) -> SegmentationMetrics:
    """Score a segmenter on a labelled split from one accumulated confusion matrix.

    Args:
        segmenter: maps an image to `SegmentationOutput`.
        split: decoded images with labels; scores are at this size.
        num_classes: number of train ids.
        unscored: train ids left out of the mean IoU.
        device: where to compute.
        dtype: what convolutions compute in.
        batch_size: images at once.
        progress: called with the number of images of each finished batch.
        observe: called with what the segmenter says of each batch, and its label, on the device.
        each: called with the confusion matrix of each image, int64 [C, C], in order.

    Returns:
        The scores.

    Raises:
        ValueError: if the split was decoded without labels.
    """
    if split.labels is None:
        raise ValueError("a split with labels is needed to score a segmenter, got one decoded without")
    matrix = ConfusionMatrix(num_classes, device=device)
    for batch, output in outputs(segmenter, split, device=device, dtype=dtype, batch_size=batch_size):
        assert batch.label is not None
        label = batch.label.to(device, non_blocking=True)
        predicted = output.logits.max(1).indices
        if each is None:
            matrix.update(predicted, label)
        else:
            for one, given in zip(predicted, label, strict=True):
                alone = ConfusionMatrix(num_classes, device=device)
                alone.update(one, given)
                matrix.merge(alone)
                each(alone.counts.cpu().numpy())
        if observe is not None:
            observe(output, label)
        if progress is not None:
            progress(len(label))
    return matrix.compute(unscored=unscored)
