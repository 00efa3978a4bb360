"""Means over the pixels of a batch that have a label, with weights of pixels and of classes."""

import torch
from torch import Tensor

from segda.losses.additive import Loss, mean
from segda.types import IGNORE_INDEX


def mean_over_pixels(pixels: Tensor, label: Tensor, weight: Tensor | None, class_weight: Tensor | None) -> Loss:
    """Return the mean of a loss over the pixels that are not void.

    sum(w_class * weight * loss) / sum(w_class): only ratios of class weights matter, and a batch without a labelled pixel gives 0,
    where PyTorch's weighted mean is 0 / 0.

    Args:
        pixels: loss of each pixel, float [B, H, W], 0 where it is void.
        label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.
        weight: factor on each pixel's loss, float [B, H, W] or of a shape that is broadcast to it; no part of the count. None: 1.
        class_weight: how much a pixel of each class counts, float [C]; None: all alike.
    """
    valid = label != IGNORE_INDEX
    if weight is not None:
        pixels = pixels * weight
    if class_weight is None:
        return mean(pixels.sum(), valid.sum())
    counted = weight_of_label(label, class_weight)
    return mean((pixels * counted).sum(), counted.sum(dtype=torch.float64))


def weight_of_label(label: Tensor, class_weight: Tensor) -> Tensor:
    """Return the weight of each pixel's class, float [B, H, W]; 0 for void."""
    valid = label != IGNORE_INDEX
    return class_weight[label.masked_fill(~valid, 0)] * valid
