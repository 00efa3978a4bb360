"""The mean IoU that a network expects of itself."""

import math

import torch
from torch import Tensor

from segda.validators.evidence import Evidence


def soft_iou(evidence: Evidence) -> float:
    """Return the mean IoU on the target that the network's own, calibrated probabilities foretell, in [0, 1].

    Of class c: I_c is the sum of p_c over the pixels that are predicted to be c, n_c their number, and U_c = n_c + sum p_c - I_c
    over all pixels. The mean of I_c / U_c is over all classes; one that is predicted nowhere has 0, which is how collapse is seen.
    The temperature is fitted on labelled source pixels of the same checkpoint (`segda.validators.temperature`), so that confidence
    which training drove up everywhere is taken back. What is over-confident on the target only, as entropy losses and
    self-training make it, still looks good: it orders checkpoints and settings of one method better than methods.

    Args:
        evidence: of the network; NaN in, or no labelled source pixel: NaN out.
    """
    if not evidence.is_finite:
        return math.nan
    probs = evidence.calibrated
    return float(expected_iou(probs).mean())


def expected_iou(probs: Tensor) -> Tensor:
    """Return the IoU of each class that probabilities foretell of their own largest, float64 [C] in [0, 1].

    Args:
        probs: class probabilities, float64 [K, C].
    """
    confidence, predicted = probs.max(dim=-1)
    num_classes = probs.shape[-1]
    hits = torch.zeros(num_classes, dtype=probs.dtype).index_add_(0, predicted, confidence)
    counts = torch.bincount(predicted, minlength=num_classes)
    union = counts + probs.sum(dim=0) - hits
    return torch.where(union > 0, hits / union.clamp(min=torch.finfo(probs.dtype).tiny), 0.0)
