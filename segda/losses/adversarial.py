"""Losses on a discriminator's domain logits: is this prediction made on the source or on the target?"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from segda.losses.additive import Loss, mean

SOURCE_DOMAIN = 0
TARGET_DOMAIN = 1

AdversarialKind = Literal["vanilla", "least_squares"]
ADVERSARIAL_KINDS: tuple[AdversarialKind, ...] = ("vanilla", "least_squares")


def adversarial_loss(domain_logits: Tensor, domain: int, *, kind: AdversarialKind = "vanilla") -> Loss:
    """Return how far the discriminator is from saying that all its inputs come from `domain`.

    Training the discriminator, `domain` is where the prediction was made; training the segmenter, it is `SOURCE_DOMAIN`
    for predictions on the target, so that they learn to pass for predictions on the source.

    Source: AdaptSegNet (Tsai et al., CVPR 2018): source 0, target 1; least squares as in LSGAN on the raw logits.

    Args:
        domain_logits: discriminator's output, float [B, 1, h, w] or any other shape; positive leans to the target.
        domain: `SOURCE_DOMAIN` or `TARGET_DOMAIN`.
        kind: `vanilla`, binary cross-entropy with logits; `least_squares`, squared distance to the domain's number.

    Returns:
        A mean over all elements.

    Raises:
        ValueError: the domain or the kind is unknown.
    """
    if domain not in (SOURCE_DOMAIN, TARGET_DOMAIN):
        raise ValueError(f"domain must be {SOURCE_DOMAIN} (source) or {TARGET_DOMAIN} (target), got {domain!r}")
    with torch.autocast(domain_logits.device.type, enabled=False):
        scores = domain_logits.float()
        if kind == "vanilla":
            # Binary cross-entropy against a constant is one softplus, with no tensor of labels.
            return mean(F.softplus(scores if domain == SOURCE_DOMAIN else -scores).sum(), scores.numel())
        if kind == "least_squares":
            return mean((scores - domain).square().sum(), scores.numel())
    raise ValueError(f"kind must be one of {', '.join(ADVERSARIAL_KINDS)}, got {kind!r}")
