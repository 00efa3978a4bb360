"""Neighborhoods: whether pixels that a network finds alike form dense groups."""

import torch
from torch.nn import functional

from segda.validators.entropy import entropy
from segda.validators.evidence import Evidence

PIXELS = 100  # of each image; the score grows with the logarithm of the number, so it is one for all
TEMPERATURE = 0.05


def soft_neighborhood_density(evidence: Evidence) -> float:
    """Return the soft neighborhood density, in nats: from near 0 (no pixel is like another) to ln 100 (all are alike).

    Saito et al., "Tune it the Right Way: Unsupervised Validation of Domain Adaptation via Soft Neighborhood Density" (ICCV
    2021), as they compute it for segmentation: cosine similarity of the probabilities of 100 pixels of an image, softmax over
    each row at a temperature of 0.05, mean entropy of the rows, mean over images. Here the pixels are the same for every
    network. It rewards collapse: a network that finds all pixels alike gets the best score.

    Args:
        evidence: of the network; the first 100 pixels of each target image are looked at.
    """
    total = 0.0
    for pixels in evidence.target[:, :PIXELS].double():
        unit = functional.normalize(pixels, dim=-1)
        total += float(entropy(torch.softmax(unit @ unit.T / TEMPERATURE, dim=-1)).mean())
    return total / len(evidence.target)
