"""Focal loss: cross-entropy that pays less attention to pixels which are already right."""

from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from segda.losses.additive import Loss
from segda.losses.base import LossConfig, SupervisedLoss
from segda.losses.pixels import mean_over_pixels, weight_of_label
from segda.tunable import Range
from segda.types import IGNORE_INDEX


def focal(
    logits: Tensor,
    label: Tensor,
    weight: Tensor | None = None,
    *,
    gamma: float = 2.0,
    alpha: Tensor | None = None,
    class_weight: Tensor | None = None,
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
        class_weight: how much a pixel of each class counts, float [C]; unlike `alpha` it is part of the count. None: all alike.

    Returns:
        A mean, >= 0, in nats; zero, with a graph behind it, when every pixel is void.
    """
    with torch.autocast(logits.device.type, enabled=False):
        pixels = focal_pixels(logits, label, gamma=gamma)
        if alpha is not None:
            pixels = pixels * weight_of_label(label, alpha)
        return mean_over_pixels(pixels, label, weight, class_weight)


def focal_pixels(logits: Tensor, label: Tensor, *, gamma: float) -> Tensor:
    """Return (1 - p)^gamma * -ln p of each pixel, float32 [B, H, W], 0 where it is void; see `focal`."""
    entropy = F.cross_entropy(logits.float(), label, ignore_index=IGNORE_INDEX, reduction="none")
    # Where p is 1, as at void pixels, the derivative of the power is infinite for gamma < 1, and infinity times 0 is NaN.
    wrong = (-torch.expm1(-entropy)).clamp(min=torch.finfo(entropy.dtype).tiny)
    return wrong**gamma * entropy


class FocalConfig(LossConfig):
    """Settings of `Focal`."""

    name: str = "focal"
    gamma: Annotated[float, Range(0.5, 5.0)] = Field(
        2.0, ge=0, le=20, description="how much less what is right counts (Lin et al.: 2); 0 is cross-entropy"
    )


class Focal(SupervisedLoss):
    """The mean of (1 - p)^gamma * -ln p; instead of the paper's alpha there are `class_weights`, as for every loss."""

    Config: ClassVar[type[LossConfig]] = FocalConfig

    @staticmethod
    def loss(
        logits: Tensor, label: Tensor, *, weight: Tensor | None, class_weight: Tensor | None, settings: Any
    ) -> Loss:
        """Return `focal`; see `SupervisedLoss.loss`."""
        return focal(logits, label, weight, gamma=settings.gamma, class_weight=class_weight)
