"""Focal loss: cross-entropy that pays less attention to pixels which are already right."""

import torch
import torch.nn.functional as F
from torch import Tensor

from segda.losses.additive import Loss, mean
from segda.types import IGNORE_INDEX


def focal(
    logits: Tensor, label: Tensor, weight: Tensor | None = None, *, gamma: float = 2.0, alpha: Tensor | None = None
) -> Loss:
    """Return the mean over labelled pixels of alpha * (1 - p)^gamma * -ln p, p being the probability of the labelled class.

    p comes from the plain cross-entropy: out of one that a weight was multiplied into, exp(-loss) is no probability.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, eq. 5.

    Args:
        logits: class scores, float [B, C, H, W].
        label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.
        weight: factor on each pixel's loss, float [B, H, W] or of a shape that is broadcast to it; no part of the count.
        gamma: how much less what is right counts, >= 0; 0 is cross-entropy.
        alpha: factor of each class, float [C]; no part of the count. None: 1 each.

    Returns:
        A mean, >= 0, in nats; zero, with a graph behind it, when every pixel is void.
    """
    with torch.autocast(logits.device.type, enabled=False):
        pixels = focal_pixels(logits, label, gamma=gamma)
        if alpha is not None:
            pixels = pixels * alpha[label.masked_fill(label == IGNORE_INDEX, 0)]
        if weight is not None:
            pixels = pixels * weight
        return mean(pixels.sum(), (label != IGNORE_INDEX).sum())


def focal_pixels(logits: Tensor, label: Tensor, *, gamma: float) -> Tensor:
    """Return (1 - p)^gamma * -ln p of each pixel, float32 [B, H, W], 0 where it is void; see `focal`."""
    entropy = F.cross_entropy(logits.float(), label, ignore_index=IGNORE_INDEX, reduction="none")
    # Where p is 1, as at void pixels, the derivative of the power is infinite for gamma < 1, and infinity times 0 is NaN.
    wrong = (-torch.expm1(-entropy)).clamp(min=torch.finfo(entropy.dtype).tiny)
    return wrong**gamma * entropy
