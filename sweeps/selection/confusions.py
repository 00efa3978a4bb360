"""Mean IoU of many confusion matrices at once."""

import numpy as np
from numpy.typing import NDArray

Shares = NDArray[np.float64]


def hits_and_unions(confusions: NDArray[np.integer] | Shares, unscored: frozenset[int]) -> tuple[Shares, Shares]:
    """Return the intersection and the union of each scored class: sums of images have those of images summed.

    Args:
        confusions: pixel counts [..., C, C], rows are labels.
        unscored: train ids that are left out.

    Returns:
        Two arrays [..., scored classes].
    """
    hits = np.diagonal(confusions, axis1=-2, axis2=-1).astype(np.float64)
    unions = confusions.sum(axis=-1) + confusions.sum(axis=-2) - hits
    scored = [train_id for train_id in range(hits.shape[-1]) if train_id not in unscored]
    return hits[..., scored], unions[..., scored]


def mean_iou(hits: Shares, unions: Shares) -> Shares:
    """Return mean IoUs in [0, 1] over the classes that appear in label or prediction, [...]; 0 where none does."""
    shares = np.divide(hits, unions, out=np.zeros_like(hits), where=unions > 0)
    found: Shares = shares.sum(axis=-1) / np.maximum((unions > 0).sum(axis=-1), 1)
    return found
