"""Confidence: how sure a network is of each pixel."""

import torch
from torch import Tensor

from segda.validators.evidence import Evidence


def negative_entropy(evidence: Evidence) -> float:
    """Return minus the mean entropy of a pixel's class probabilities, in nats.

    From -ln C (every class equally likely everywhere) to 0 (sure of every pixel). It sees nothing but confidence: a network that
    puts one class everywhere gets the best score if it is sure of it.

    Args:
        evidence: of the network; its predictions on the target are looked at.
    """
    return -float(entropy(evidence.pixels).mean())


def entropy(probs: Tensor) -> Tensor:
    """Return the entropy over the last dimension, in nats; 0 ln 0 counts as 0.

    Args:
        probs: probabilities, float [..., C].
    """
    terms: Tensor = torch.special.xlogy(probs, probs)
    return -terms.sum(dim=-1)
