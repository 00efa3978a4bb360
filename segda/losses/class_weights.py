"""How much pixels of each class count, from how many pixels of it the labels of a training set have."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

ClassWeighting = Literal["none", "median_frequency", "enet", "inverse_sqrt"]
CLASS_WEIGHTINGS: tuple[ClassWeighting, ...] = ("none", "median_frequency", "enet", "inverse_sqrt")

_ENET_OFFSET = 1.02


def class_weights(counts: NDArray[np.int64], weighting: ClassWeighting) -> NDArray[np.float64]:
    """Return the weight of each class.

    - `none`: 1.
    - `median_frequency`: median(f) / f_c, f_c being the class's share of the pixels of those images that it appears in (Eigen and
      Fergus, ICCV 2015; the median is over the classes that appear). It does not fall with the number of images without the class.
    - `enet`: 1 / ln(1.02 + p_c), p_c being the class's share of all pixels: 1.4 to 50.5 (Paszke et al., ENet, arXiv:1606.02147).
    - `inverse_sqrt`: 1 / sqrt(p_c), softer than the inverse.

    Where a loss divides by the sum of the weights, a common factor on all of them changes nothing.

    Args:
        counts: pixels of each image and class, int64 [N, C]; void pixels are in no class.
        weighting: which rule.

    Returns:
        Weights > 0, float64 [C]. A class without a pixel, of which no rule but `enet` has a weight, gets the largest of the others:
        only pseudo-labels can hold it.
    """
    pixels = counts.sum(axis=0).astype(np.float64)
    present = pixels > 0
    weights = np.ones(len(pixels))
    if weighting == "none" or not present.any():
        return weights
    share = pixels / pixels.sum()
    if weighting == "enet":
        enet: NDArray[np.float64] = 1 / np.log(_ENET_OFFSET + share)
        return enet
    if weighting == "median_frequency":
        around = ((counts > 0) * counts.sum(axis=1, keepdims=True)).sum(axis=0)
        frequency = pixels[present] / around[present]
        weights[present] = np.median(frequency) / frequency
    else:
        weights[present] = 1 / np.sqrt(share[present])
    weights[~present] = weights[present].max()
    return weights
