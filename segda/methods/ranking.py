"""Which images a network is surest of, class by class, and which of their pixels it is sure enough of to learn from.

Source: Subhani and Ali, Learning from Scale-Invariant Examples for Domain Adaptation in Semantic Segmentation, ECCV 2020,
arXiv:2007.14449, and its code. Deviations, with reasons, are said where they are made.
"""

import math

import torch
from torch import Tensor

from segda.types import IGNORE_INDEX


def normalized_entropy(probs: Tensor) -> tuple[Tensor, Tensor]:
    """Return how uncertain each pixel is among those of its image that are predicted to be the same class.

    E = -sum_k p_k ln p_k, then (E - min) / (max - min) over the pixels of an image that are predicted to be one class. Where these
    are all equally uncertain, as a single pixel is, the result is 0: the authors' code divides by zero there, and their NaN is
    below no threshold.

    Args:
        probs: float [B, C, H, W].

    Returns:
        The normalized entropy, float32 [B, H, W] in [0, 1]; the predicted classes, int64 [B, H, W].
    """
    prediction = probs.max(1).indices
    entropy = torch.special.entr(probs.float()).sum(dim=1).flatten(1)
    index = prediction.flatten(1)
    bounds = entropy.new_zeros(len(probs), probs.shape[1])
    lowest, highest = (
        bounds.scatter_reduce(1, index, entropy, kind, include_self=False).gather(1, index) for kind in ("amin", "amax")
    )
    spread = highest - lowest
    normalized = (entropy - lowest) / torch.where(spread > 0, spread, 1.0)
    return normalized.view_as(prediction), prediction


def class_averages(probs: Tensor) -> tuple[Tensor, Tensor]:
    """Average over the pixels of each image that are predicted to be a class.

    Args:
        probs: float [B, C, H, W].

    Returns:
        The mean probability of the class, and the mean normalized entropy; float64 [B, C] each. The first is NaN where an image has
        no such pixel, the second also where these are all equally uncertain, which says nothing of what is much.
    """
    normalized, prediction = normalized_entropy(probs)
    index = prediction.flatten(1)
    zeros = torch.zeros(probs.shape[:2], dtype=torch.float64, device=probs.device)

    def added(values: Tensor) -> Tensor:
        return zeros.scatter_add(1, index, values.flatten(1).double())

    count = added(torch.ones_like(normalized))
    entropy = added(normalized)
    confidence = added(probs.amax(dim=1)) / torch.where(count > 0, count, torch.nan)
    return confidence, entropy / torch.where(entropy > 0, count, torch.nan)


def select_images(confidence: Tensor, entropy: Tensor, *, portion: float) -> tuple[Tensor, Tensor]:
    """Choose the images to learn from, and how uncertain a pixel of each class may be.

    For every class, images are ranked by how confidently they show it, and of the N_c that show it the first
    n_c = ceil(portion * N_c / C) are chosen; all that any class chooses are. The threshold of a class is the mean normalized
    entropy on the first image that is ranked below its cut. Deviations: n_c is rounded up, where the code rounds down, because
    small data sets would choose nothing (62 images, 11 classes, portion 0.1); an image on which the entropy says nothing (see
    `class_averages`) leaves the threshold to the next one below it, or above the cut if there is none.

    Args:
        confidence: of all images; see `class_averages`; float64 [N, C].
        entropy: the same, [N, C].
        portion: p, in [0, 1].

    Returns:
        The chosen images, bool [N]; the thresholds, float64 [C], 0, which nothing is below, for classes that no image shows.
    """
    num_classes = confidence.shape[1]
    chosen = torch.zeros(len(confidence), dtype=torch.bool)
    thresholds = torch.zeros(num_classes, dtype=torch.float64)
    for number in range(num_classes):
        showing = torch.nonzero(~confidence[:, number].isnan()).flatten()
        ranked = showing[confidence[showing, number].argsort(descending=True, stable=True)]
        cut = math.ceil(len(ranked) * portion / num_classes - 1e-9)  # portions are sums: 0.1 + 0.2 is above 0.3
        chosen[ranked[:cut]] = True
        telling = entropy[torch.cat([ranked[cut:], ranked[:cut].flip(0)]), number]
        telling = telling[~telling.isnan()]
        if len(telling):
            thresholds[number] = telling[0]
    return chosen, thresholds


def label_below(probs: Tensor, thresholds: Tensor) -> Tensor:
    """Label the pixels whose normalized entropy is below the threshold of their predicted class.

    Args:
        probs: float [B, C, H, W].
        thresholds: float [C].

    Returns:
        int64 [B, H, W]; `IGNORE_INDEX` elsewhere.
    """
    normalized, prediction = normalized_entropy(probs)
    return torch.where(normalized < thresholds.to(normalized)[prediction], prediction, IGNORE_INDEX)
