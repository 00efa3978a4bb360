"""How confident a prediction must be to become a pseudo-label: one threshold for all classes, or one for each.

Class-balanced: a prediction becomes a label where argmax_c p_c / k_c exceeds 1. Thresholds of its own keep a class that is always
predicted with little confidence from vanishing among the labels, and with equal thresholds this is the plain rule. Source: Zou et
al., Unsupervised Domain Adaptation for Semantic Segmentation via Class-Balanced Self-Training, ECCV 2018, arXiv:1810.07911.

Instance-adaptive: the most probable class becomes a label where its probability exceeds a threshold that follows what the images
show, one after the other. Source: Mei et al., Instance Adaptive Self-Training for Unsupervised Domain Adaptation, ECCV 2020,
arXiv:2008.12197.

By quantiles: the same with the confidence at a quantile of each class, or a cap. Source: the code of Yang and Soatto, FDA: Fourier
Domain Adaptation for Semantic Segmentation, CVPR 2020, arXiv:2004.05498.
"""

import torch
from torch import Tensor

from segda.types import IGNORE_INDEX

NOTHING = 1.0  # a threshold that no probability exceeds
ADAPTIVE_START = 0.9  # what instance-adaptive thresholds begin with
_ADAPTIVE_MOST = 0.999  # and do not exceed

# Confidences of trained networks crowd below 1, so bins are narrow there: each next one begins 0.27 % nearer to 1, down to a
# distance of 2^-23, which is what float32 resolves. The last bin holds what is above.
_BINS_PER_OCTAVE = 256
_OCTAVES = 23
NUM_BINS = _BINS_PER_OCTAVE * _OCTAVES + 1


def _lower_edges(device: torch.device) -> Tensor:
    """Return what the confidences in a bin exceed, float32 [NUM_BINS], ascending."""
    distances = 2.0 ** -(torch.arange(NUM_BINS, dtype=torch.float64) / _BINS_PER_OCTAVE)
    # The first one would be 0, which nothing can be divided by.
    return (1 - distances).clamp(min=1e-6).float().to(device)


def count_confidences(probs: Tensor) -> Tensor:
    """Count the confidences with which each class is predicted, by bins.

    Counts of several images add up, and take 47 kB per class however many pixels there are.

    Args:
        probs: float32 [B, C, H, W].

    Returns:
        int64 [C, NUM_BINS]; of the pixels that are predicted to be each class, by the probability of that class, ascending.
    """
    num_classes = probs.shape[1]
    confidence, prediction = probs.max(dim=1)
    bins = torch.bucketize(confidence, _lower_edges(probs.device)[1:])
    counts = torch.bincount((prediction * NUM_BINS + bins).flatten(), minlength=num_classes * NUM_BINS)
    return counts.view(num_classes, NUM_BINS)


def class_balanced_thresholds(counts: Tensor, portion: float) -> Tensor:
    """Return thresholds that the most confident portion of each class's predictions exceeds.

    Args:
        counts: of the predictions on all images, int64 [C, NUM_BINS]; see `count_confidences`.
        portion: share of the predictions of a class to keep, in [0, 1].

    Returns:
        k_c, float32 [C]. It is the confidence at rank floor(portion * N_c) of the N_c predictions of the class, rounded down to the
        edge of its bin: 1 - k_c is too large by at most 0.28 %, or 2e-7 if that is more. So at least that many predictions exceed
        it, and equally confident ones are kept together. Where the rank is zero, as for a class that is never predicted, nothing
        exceeds the threshold.
    """
    wanted = (counts.sum(1).double() * portion).floor()
    # Number of bins, from the most confident one down, that do not suffice.
    too_few = (counts.flip(1).cumsum(1) < wanted[:, None]).sum(1)
    edges = _lower_edges(counts.device)[NUM_BINS - 1 - too_few]
    return torch.where(wanted > 0, edges, NOTHING)


def quantile_thresholds(counts: Tensor, quantile: float, *, cap: float) -> Tensor:
    """Return thresholds at a quantile of each class's confidences, or at a cap that is enough for every class.

    Args:
        counts: of the predictions on all images, int64 [C, NUM_BINS]; see `count_confidences`.
        quantile: q, in [0, 1).
        cap: largest threshold, in (0, 1].

    Returns:
        float32 [C]: the smaller of the cap and of the confidence at index round(q N_c) of the N_c confidences of the class in
        ascending order, counted from 0 and the last one at most; rounded down as in `class_balanced_thresholds`. For a class that
        is never predicted nothing exceeds the threshold.
    """
    total = counts.sum(1)
    index = (total.double() * quantile).round().clamp(max=total - 1)
    below = (counts.cumsum(1) <= index[:, None]).sum(1).clamp(max=NUM_BINS - 1)
    thresholds = _lower_edges(counts.device)[below].clamp(max=cap)
    return torch.where(total > 0, thresholds, NOTHING)


def constant_thresholds(num_classes: int, confidence: float, *, device: torch.device) -> Tensor:
    """Return the same threshold for every class, float32 [C].

    Args:
        num_classes: C.
        confidence: that a label must exceed, in (0, 1].
        device: of the result.
    """
    return torch.full((num_classes,), confidence, device=device)


def label_by_thresholds(probs: Tensor, thresholds: Tensor) -> Tensor:
    """Label the pixels whose probability exceeds the threshold of the class that it exceeds most.

    The class is argmax_c p_c / k_c: with the argmax taken before the division, classes of low thresholds would lose their pixels to
    classes that are then not kept.

    Args:
        probs: float [B, C, H, W].
        thresholds: k_c, float [C], each > 0.

    Returns:
        int64 [B, H, W]; `IGNORE_INDEX` where no class exceeds its threshold.
    """
    ratio, label = (probs / thresholds[:, None, None]).max(dim=1)
    return torch.where(ratio > 1, label, IGNORE_INDEX)


def adapted_thresholds(probs: Tensor, thresholds: Tensor, *, alpha: float, beta: float, gamma: float) -> Tensor:
    """Return what thresholds become by one image.

    t_c <- min(beta * t_c + (1 - beta) * q_c, 0.999), where q_c is the 100 * (1 - alpha * t_c^gamma)th percentile, linearly
    interpolated, of the confidences of the pixels that are predicted as c, united with t_c itself. A class that is confident in an
    image raises its threshold; where a threshold is low, gamma keeps a smaller part of the class.

    Args:
        probs: of one image, float [C, H, W].
        thresholds: before, float64 [C]; `ADAPTIVE_START` at first.
        alpha: share of a class's pixels that a threshold of 1 keeps, in [0, 1].
        beta: what stays of the thresholds, in [0, 1].
        gamma: how much the share depends on the threshold, >= 0.

    Returns:
        float64 [C]. A class that the image does not show keeps its threshold.
    """
    confidence, prediction = probs.double().flatten(1).max(dim=0)
    seen = []
    for number, threshold in enumerate(thresholds):
        ascending = torch.cat([confidence[prediction == number], threshold[None]]).sort().values
        place = (1 - alpha * threshold**gamma) * (len(ascending) - 1)
        below = place.floor().long()
        seen.append(ascending[below].lerp(ascending[(below + 1).clamp(max=len(ascending) - 1)], place - below))
    return (beta * thresholds + (1 - beta) * torch.stack(seen)).clamp(max=_ADAPTIVE_MOST)


def label_the_confident(probs: Tensor, thresholds: Tensor) -> Tensor:
    """Label the pixels whose most probable class exceeds its threshold.

    Args:
        probs: float [..., C, H, W].
        thresholds: float [C].

    Returns:
        int64 [..., H, W]; `IGNORE_INDEX` where it does not.
    """
    confidence, prediction = probs.max(dim=-3)
    return torch.where(confidence > thresholds[prediction], prediction, IGNORE_INDEX)
