"""Cross-entropy over the hardest pixels (online hard example mining)."""

import math
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from segda.losses.additive import Loss
from segda.losses.base import LossConfig, SupervisedLoss
from segda.losses.pixels import mean_over_pixels
from segda.tunable import Range
from segda.types import IGNORE_INDEX


def ohem(
    logits: Tensor,
    label: Tensor,
    weight: Tensor | None = None,
    *,
    threshold: float = 0.7,
    least: float = 1 / 16,
    class_weight: Tensor | None = None,
) -> Loss:
    """Return the mean cross-entropy over the hard pixels, in nats.

    Hard are those whose labelled class has a probability below `threshold`, and of every image at least the share `least` of its
    labelled pixels with the lowest one. Hardness is that of the plain cross-entropy: weights say what a pixel counts, not whether
    it is hard.

    Source: Shrivastava et al., CVPR 2016, in the form that BiSeNet's public implementation gave it: all losses above -ln(0.7), or
    the largest sixteenth. Deviation: there the least number is of the batch's pixels, here of each image's: whether a pixel is
    kept then depends on its image alone, however the batch is cut, and a share does not depend on the size of the crop as fixed
    numbers do.

    Args:
        logits: class scores, float [B, C, H, W].
        label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.
        weight: factor on each pixel's cross-entropy, float [B, H, W] or of a shape that is broadcast to it; no part of the count.
        threshold: probability in (0, 1] of the labelled class below which a pixel is hard.
        least: share in (0, 1] of each image's labelled pixels to keep at least, rounded up.
        class_weight: how much a pixel of each class counts, float [C]; part of the count. None: all alike.

    Returns:
        A mean over the kept pixels, >= 0; zero, with a graph behind it, when every pixel is void.
    """
    with torch.autocast(logits.device.type, enabled=False):
        pixels = F.cross_entropy(logits.float(), label, ignore_index=IGNORE_INDEX, reduction="none")
        valid = (label != IGNORE_INDEX).flatten(1)
        hardness = pixels.detach().flatten(1).masked_fill(~valid, -1.0)
        _, hardest = hardness.topk(math.ceil(least * hardness.shape[1]), dim=1)
        wanted = (least * valid.sum(1).double()).ceil()
        is_wanted = torch.arange(hardest.shape[1], device=label.device) < wanted[:, None]
        # Written such that NaN is hard: a training that diverges must not look like one that has learned everything.
        hard = ~(hardness <= -math.log(threshold)) | torch.zeros_like(valid).scatter(1, hardest, is_wanted)
        hard = (valid & hard).view_as(label)
        return mean_over_pixels(pixels * hard, label.masked_fill(~hard, IGNORE_INDEX), weight, class_weight)


class OhemConfig(LossConfig):
    """Settings of `Ohem`."""

    name: str = "ohem"
    threshold: Annotated[float, Range(0.5, 0.95)] = Field(
        0.7, gt=0, le=1, description="probability of the labelled class below which a pixel is hard"
    )
    least: Annotated[float, Range(0.02, 0.5, log=True)] = Field(
        1 / 16, gt=0, le=1, description="share of each image's labelled pixels, the hardest, that is kept at least"
    )


class Ohem(SupervisedLoss):
    """Cross-entropy over the hardest pixels alone."""

    Config: ClassVar[type[LossConfig]] = OhemConfig

    @staticmethod
    def loss(
        logits: Tensor, label: Tensor, *, weight: Tensor | None, class_weight: Tensor | None, settings: Any
    ) -> Loss:
        """Return `ohem`; see `SupervisedLoss.loss`."""
        return ohem(
            logits,
            label,
            weight,
            threshold=settings.threshold,
            least=settings.least,
            class_weight=class_weight,
        )
