"""How undecided predictions are, and how far they are from being entirely so: losses without a label."""

import math

import torch
from torch import Tensor

from segda.losses.additive import Loss, mean

_CHARBONNIER = 1e-8  # keeps the slope at no entropy finite; of FDA's code, the paper writes 0.001^2


def entropy_pixels(logits: Tensor) -> Tensor:
    """Return the entropy of each pixel's prediction as a share of the largest possible one.

    Args:
        logits: class scores, float [B, C, H, W].

    Returns:
        -sum_c p_c ln p_c / ln C, float32 [B, H, W] in [0, 1]: 0 where one class is certain, 1 where all are equally probable.
    """
    with torch.autocast(logits.device.type, enabled=False):
        log_probs = logits.float().log_softmax(dim=1)
        return -(log_probs.exp() * log_probs).sum(dim=1) / math.log(logits.shape[1])


def entropy(logits: Tensor, where: Tensor | None = None) -> Loss:
    """Return the mean over pixels of `entropy_pixels`.

    Args:
        logits: class scores, float [B, C, H, W].
        where: which pixels count, bool [B, H, W]; None: all.

    Returns:
        A mean in [0, 1]; zero, with a graph behind it, where no pixel counts.
    """
    return _mean(entropy_pixels(logits), where)


def charbonnier_entropy(logits: Tensor, where: Tensor | None = None, *, eta: float) -> Loss:
    """Return the mean over pixels of (h^2 + 1e-8)^eta with h of `entropy_pixels`: what FDA makes small.

    Beyond eta = 0.5, where it is h up to rounding, undecided pixels weigh more than decided ones, whose predictions may be right.

    Args:
        logits: class scores, float [B, C, H, W].
        where: which pixels count, bool [B, H, W]; None: all.
        eta: exponent, > 0.

    Returns:
        A mean from 0 to 1, up to rounding; zero, with a graph behind it, where no pixel counts.
    """
    return _mean((entropy_pixels(logits).square() + _CHARBONNIER) ** eta, where)


def divergence_from_uniform(logits: Tensor, where: Tensor | None = None) -> Loss:
    """Return the mean over pixels of KL(uniform || prediction) = -ln C - 1/C sum_c ln p_c: what keeps predictions from certainty.

    Args:
        logits: class scores, float [B, C, H, W].
        where: which pixels count, bool [B, H, W]; None: all.

    Returns:
        A mean >= 0, in nats; zero, with a graph behind it, where no pixel counts.
    """
    with torch.autocast(logits.device.type, enabled=False):
        log_probs = logits.float().log_softmax(dim=1)
        return _mean(-log_probs.mean(dim=1) - math.log(logits.shape[1]), where)


def _mean(pixels: Tensor, where: Tensor | None) -> Loss:
    if where is None:
        return mean(pixels.sum(), pixels.numel())
    return mean((pixels * where).sum(), where.sum())
