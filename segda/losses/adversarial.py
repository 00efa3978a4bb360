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

    Source: AdaptSegNet (Tsai et al., CVPR 2018): source 0, target 1; least squares as in LSGAN on the raw logits. Of several
    outputs, as in RTDA's code, the first two stand for source and target; least squares of these is our extension.

    Args:
        domain_logits: discriminator's output, float [B, K, h, w]. One output (K = 1) is positive where it leans to the target; of
            several, number 0 says source, number 1 target, and the others neither.
        domain: `SOURCE_DOMAIN` or `TARGET_DOMAIN`.
        kind: `vanilla`, cross-entropy, for K = 1 binary; `least_squares`, squared distance to the domain's number, for K > 1 to
            the vector that is 1 at the domain and 0 elsewhere.

    Returns:
        A mean over all positions.

    Raises:
        ValueError: the domain or the kind is unknown.
    """
    if domain not in (SOURCE_DOMAIN, TARGET_DOMAIN):
        raise ValueError(f"domain must be {SOURCE_DOMAIN} (source) or {TARGET_DOMAIN} (target), got {domain!r}")
    if kind not in ADVERSARIAL_KINDS:
        raise ValueError(f"kind must be one of {', '.join(ADVERSARIAL_KINDS)}, got {kind!r}")
    with torch.autocast(domain_logits.device.type, enabled=False):
        scores = domain_logits.float()
        if scores.shape[1] > 1:
            if kind == "vanilla":
                costs = -F.log_softmax(scores, dim=1)[:, domain]
            else:
                costs = scores.square().sum(dim=1) - 2 * scores[:, domain] + 1
        elif kind == "vanilla":
            # Binary cross-entropy against a constant is one softplus, with no tensor of labels.
            costs = F.softplus(scores if domain == SOURCE_DOMAIN else -scores)
        else:
            costs = (scores - domain).square()
        return mean(costs.sum(), costs.numel())


def discriminator_loss(source_domain: Tensor, target_domain: Tensor, *, kind: AdversarialKind = "vanilla") -> Loss:
    """Return what a discriminator learns by: half the loss on predictions of each domain, each against its own.

    Args:
        source_domain: its output on predictions of the source, float [B, K, h, w] as in `adversarial_loss`.
        target_domain: the same of the target.
        kind: as in `adversarial_loss`.
    """
    return 0.5 * adversarial_loss(source_domain, SOURCE_DOMAIN, kind=kind) + 0.5 * adversarial_loss(
        target_domain, TARGET_DOMAIN, kind=kind
    )


@torch.no_grad()
def domain_accuracy(domain_logits: Tensor, domain: int, *, kind: AdversarialKind = "vanilla") -> Loss:
    """Return the share of a discriminator's outputs that are right, undecided ones counting half.

    Args:
        domain_logits: on predictions of one domain, float [B, K, h, w] as in `adversarial_loss`.
        domain: which one that is.
        kind: what the discriminator is trained by: it says where between source and target a single output changes sides.

    Returns:
        A mean in [0, 1] over all positions, without a graph.
    """
    scores = domain_logits.float()
    if scores.shape[1] > 1:
        leaning = scores[:, TARGET_DOMAIN] - scores[:, SOURCE_DOMAIN]
    else:
        leaning = scores - (0 if kind == "vanilla" else (SOURCE_DOMAIN + TARGET_DOMAIN) / 2)
    side = leaning.sign() if domain == TARGET_DOMAIN else -leaning.sign()
    return mean(((1 + side) / 2).sum(), side.numel())
