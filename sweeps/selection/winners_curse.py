"""What the figure of the best of several is worth when the choice is taken into account.

Who is best by some images is so partly by these images: its figure on them is too high, the more so the more candidates there were.
BBC (Tsamardinos et al., "Bootstrapping the out-of-sample predictions for efficient and accurate cross-validation", Machine Learning
2018) repeats the choice: images are drawn with replacement, and the best candidate by those that were drawn is scored by those that
were not. Mean IoU is that of the summed confusion matrices of either part.

One thing is done otherwise. Mean IoU over a third of the images is lower than over all, since classes that nobody labelled there
and somebody predicts count as missed; BBC would take that for luck. So what is averaged is by how much a choice is ahead, on the
images that were left out, of what candidates have there on average, each as often as it is chosen. That average over all images is
nobody's choice, and what is added to it tells of luck alone: nothing where one candidate is always the best.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweeps.selection.confusions import hits_and_unions, mean_iou

MOST_CANDIDATES = 50  # the others are too far behind to be the best by any draw
MIN_IMAGES = 10
_DRAWS = 500


@dataclass(frozen=True)
class Corrected:
    """The figure of a choice, with the choice taken into account.

    Attributes:
        naive: mean IoU in [0, 1] of the best candidate over all images, by which it was chosen.
        value: what the choice is worth on images that did not choose.
        low, high: 95 % of the draws lie between.
        candidates: among which the choice was repeated.
        images: of which each draw takes as many.
    """

    naive: float
    value: float
    low: float
    high: float
    candidates: int
    images: int


def corrected(counts: Sequence[NDArray[np.int32]], *, unscored: Sequence[int] = (), seed: int = 0) -> Corrected | None:
    """Return what the best of several candidates is worth.

    Args:
        counts: of each candidate the confusion matrices of the same images, [N, C, C].
        unscored: train ids left out of the mean IoU.
        seed: of the draws.

    Returns:
        None with fewer than two candidates or ten images, of which too few would be left out of a draw.

    Example:
        >>> images = np.tile(np.eye(2, dtype=np.int32) * 50 + 10, (20, 1, 1))
        >>> found = corrected([images, images])
        >>> round(found.naive, 2), round(found.value, 2), found.images
        (0.75, 0.75, 20)
    """
    if len(counts) < 2 or len(counts[0]) < MIN_IMAGES:
        return None
    num_images = len(counts[0])
    # Of each candidate at a time: the matrices themselves are many times larger.
    found = [hits_and_unions(one, frozenset(unscored)) for one in counts]
    hits, unions = (np.stack(parts, axis=1) for parts in zip(*found, strict=True))
    alone = mean_iou(hits.sum(axis=0), unions.sum(axis=0))
    generator = np.random.default_rng(seed)
    on_drawn, on_others = (np.zeros((_DRAWS, len(counts))) for _ in range(2))
    for draw in range(_DRAWS):
        times = np.bincount(generator.integers(num_images, size=num_images), minlength=num_images)
        for figures, weights in ((on_drawn, times), (on_others, times == 0)):
            numbers = weights.astype(np.float64)  # which are multiplied many times faster than whole ones
            figures[draw] = mean_iou(np.tensordot(numbers, hits, axes=1), np.tensordot(numbers, unions, axes=1))
    chosen = on_drawn.argmax(axis=1)
    often = np.bincount(chosen, minlength=len(counts)) / _DRAWS
    ahead = on_others[np.arange(_DRAWS), chosen] - on_others @ often
    level = on_drawn @ often
    values = alone @ often + ahead + (level - level.mean())
    low, high = (float(bound) for bound in np.quantile(values, [0.025, 0.975]))
    return Corrected(float(alone.max()), float(values.mean()), low, high, len(counts), num_images)
