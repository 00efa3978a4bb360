"""Cross-entropy over the pixels that have a label."""

import torch
import torch.nn.functional as F
from torch import Tensor

from segda.losses.additive import Loss, mean
from segda.types import IGNORE_INDEX


def cross_entropy(logits: Tensor, label: Tensor, weight: Tensor | None = None) -> Loss:
    """Return the mean cross-entropy over the pixels that are not void, in nats.

    Args:
        logits: class scores, float [B, C, H, W].
        label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.
        weight: factor on each pixel's cross-entropy, float [B, H, W] or of a shape that is broadcast to it, such as [B, 1, 1] for
            one per image. It is no part of the count: pixels of weight 0 make the mean smaller, void pixels do not.

    Returns:
        A mean, >= 0. Zero, with a graph behind it, when every pixel is void: PyTorch's own mean would be NaN.
    """
    with torch.autocast(logits.device.type, enabled=False):
        if weight is None:
            total = F.cross_entropy(logits.float(), label, ignore_index=IGNORE_INDEX, reduction="sum")
        else:
            pixels = F.cross_entropy(logits.float(), label, ignore_index=IGNORE_INDEX, reduction="none")
            total = (pixels * weight).sum()
        return mean(total, (label != IGNORE_INDEX).sum())
