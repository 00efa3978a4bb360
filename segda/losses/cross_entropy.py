"""Cross-entropy over the pixels that have a label."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from segda.losses.additive import Loss, mean
from segda.losses.base import LossConfig, SupervisedLoss
from segda.losses.pixels import mean_over_pixels
from segda.types import IGNORE_INDEX


def cross_entropy(
    logits: Tensor, label: Tensor, weight: Tensor | None = None, *, class_weight: Tensor | None = None
) -> Loss:
    """Return the mean cross-entropy over the pixels that are not void, in nats.

    Args:
        logits: class scores, float [B, C, H, W].
        label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.
        weight: factor on each pixel's cross-entropy, float [B, H, W] or of a shape that is broadcast to it, such as [B, 1, 1] for
            one per image. It is no part of the count: pixels of weight 0 make the mean smaller, void pixels do not.
        class_weight: how much a pixel of each class counts, float [C]; unlike `weight` it is part of the count. None: all alike.

    Returns:
        A mean, >= 0. Zero, with a graph behind it, when every pixel is void: PyTorch's own mean would be NaN.
    """
    with torch.autocast(logits.device.type, enabled=False):
        if weight is None and class_weight is None:
            total = F.cross_entropy(logits.float(), label, ignore_index=IGNORE_INDEX, reduction="sum")
            return mean(total, (label != IGNORE_INDEX).sum())
        pixels = F.cross_entropy(logits.float(), label, ignore_index=IGNORE_INDEX, reduction="none")
        return mean_over_pixels(pixels, label, weight, class_weight)


class CrossEntropyConfig(LossConfig):
    """Settings of `CrossEntropy`; it has none of its own."""

    name: str = "cross_entropy"


class CrossEntropy(SupervisedLoss):
    """The mean of -ln p, p being the probability of the labelled class."""

    Config: ClassVar[type[LossConfig]] = CrossEntropyConfig

    @staticmethod
    def loss(
        logits: Tensor, label: Tensor, *, weight: Tensor | None, class_weight: Tensor | None, settings: Any
    ) -> Loss:
        """Return `cross_entropy`; see `SupervisedLoss.loss`."""
        return cross_entropy(logits, label, weight, class_weight=class_weight)
