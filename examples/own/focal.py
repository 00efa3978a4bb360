"""A loss of one's own: cross-entropy that pays less attention to pixels which are already right."""

import torch
from torch import Tensor
from torch.nn import functional

from segda.losses import Loss, mean
from segda.types import IGNORE_INDEX

GAMMA = 2.0


def focal(logits: Tensor, label: Tensor, weight: Tensor | None = None) -> Loss:
    """Return the focal loss: mean over labelled pixels of (1 - p)^2 * -log p, p being the probability of the labelled class.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, eq. 4, with gamma = 2, the paper's best.

    Args:
        logits: class scores, float [B, C, H, W].
        label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.
        weight: of each pixel, float [B, H, W] or of a shape that is broadcast to it; None: all pixels weigh the same.
    """
    with torch.autocast(logits.device.type, enabled=False):
        entropy = functional.cross_entropy(logits.float(), label, ignore_index=IGNORE_INDEX, reduction="none")
        # Of a void pixel both factors are 0. Where p is 1, so is expm1 here, and its derivative is finite.
        pixels = (-torch.expm1(-entropy)) ** GAMMA * entropy
        if weight is not None:
            pixels = pixels * weight
        return mean(pixels.sum(), (label != IGNORE_INDEX).sum())
