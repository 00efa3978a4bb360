"""Confidence and diversity together: sure of each pixel, but not of the same class everywhere.

Both scores are best when all classes cover equally many pixels, which no street and no landscape does: of two networks they
prefer the one with the more even classes.
"""

import math

import torch

from segda.validators.entropy import entropy
from segda.validators.evidence import Evidence


def information_maximization(evidence: Evidence) -> float:
    """Return the mutual information of pixel and predicted class, in nats.

    H(mean p) - mean H(p), from 0 (every pixel has the same probabilities) to ln C (sure of each pixel, and all classes equally
    frequent). The information maximization of Krause et al., "Discriminative Clustering by Regularized Information
    Maximization" (NeurIPS 2010), read as a validator by Musgrave et al. (2022).

    Args:
        evidence: of the network; its predictions on the target are looked at.
    """
    flat = evidence.pixels
    return float(entropy(flat.mean(dim=0)) - entropy(flat).mean())


def batch_nuclear_norm(evidence: Evidence) -> float:
    """Return the nuclear norm of the matrix of pixels by classes, relative to the largest that it can have.

    Cui et al., "Towards Discriminability and Diversity: Batch Nuclear-norm Maximization" (CVPR 2020), read as a validator by
    Musgrave et al. (2022). Divided by sqrt(N P C), so that it does not depend on the number of pixels: from 1 / C (every class
    equally likely everywhere) over 1 / sqrt(C) (sure of one class everywhere) to 1 (sure, and all classes equally frequent).

    Args:
        evidence: of the network; its predictions on the target are looked at; NaN in, NaN out.
    """
    flat = evidence.pixels
    if not flat.isfinite().all():
        return math.nan  # the decomposition would raise
    # Singular values are the roots of the eigenvalues of a matrix of classes by classes, which is small.
    squares = torch.linalg.eigvalsh(flat.T @ flat).clamp(min=0)
    return float(squares.sqrt().sum() / math.sqrt(flat.numel()))
