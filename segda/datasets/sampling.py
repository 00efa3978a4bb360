"""Rare-class sampling: images are drawn by a class that they contain, rare classes more often."""

import numpy as np
from numpy.typing import NDArray

from segda.errors import ConfigError

# How often an image is augmented anew to keep the class that it was drawn for in the crop, and which part of the pixels that made
# it a candidate is enough: DAFormer's numbers. Where no attempt is, the best is taken, there the last.
ATTEMPTS = 10
_ENOUGH = 0.5


class RareClasses:
    """Draws a class, then an image that contains it.

    P(c) = softmax((1 - f_c) / T) over the classes that the labels have, f_c being the class's share of the labelled pixels, and T
    such that the rarest class is drawn `ratio` times as often as the most frequent one: T = (f_max - f_min) / ln(ratio).

    Source: Hoyer et al., DAFormer, CVPR 2022, arXiv:2111.14887, section 3.2. Deviation: the paper sets T itself, to 0.01, which on
    seven classes draws hardly anything but the rarest two; what T does depends on the shares, what the ratio does on nothing.

    Attributes:
        chances: P, float64 [C]; 0 for a class that no image has.
    """

    def __init__(
        self,
        counts: NDArray[np.int64],
        *,
        ratio: float,
        min_share: float,
        samples: NDArray[np.int64] | None = None,
    ) -> None:
        """Find out which images may be drawn for which class.

        Args:
            counts: pixels of each image and class, int64 [N, C].
            ratio: how much more often the rarest class is drawn than the most frequent one, >= 1.
            min_share: share of an image's labelled pixels that a class must have for the image to be drawn for it; where no image
                has as much, all that have the class at all may be.
            samples: indices of the images that may be drawn; None: all. Shares of pixels are those of all.

        Raises:
            ConfigError: no image has a labelled pixel.
        """
        may_come = np.ones(len(counts), dtype=bool)
        if samples is not None:
            may_come[:] = False
            may_come[samples] = True
        has_some = (counts > 0) & may_come[:, None]
        if not has_some.any():
            raise ConfigError(
                "no image has a labelled pixel, so none can be drawn by its classes; use sampling: {name: uniform}"
            )
        self._counts, self._ratio, self._min_share = counts, ratio, min_share
        self._least = min_share * counts.sum(axis=1)
        has_enough = has_some & (counts >= self._least[:, None])
        self._images = [
            np.flatnonzero(enough if enough.any() else some)
            for enough, some in zip(has_enough.T, has_some.T, strict=True)
        ]
        odds = class_chances(counts.sum(axis=0), ratio=ratio) * has_some.any(axis=0)
        self.chances = odds / odds.sum()

    def among(self, samples: NDArray[np.int64]) -> "RareClasses":
        """Return the same for a part of the images; classes that it lacks are not drawn.

        Args:
            samples: indices of the images that may be drawn.
        """
        return RareClasses(self._counts, ratio=self._ratio, min_share=self._min_share, samples=samples)

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """Return the index of an image and the class that it was drawn for."""
        train_id = int(rng.choice(len(self.chances), p=self.chances))
        return int(rng.choice(self._images[train_id])), train_id

    def enough(self, index: int, train_id: int) -> int:
        """Return how many pixels of a class a crop of an image shall have."""
        return int(np.ceil(_ENOUGH * min(self._least[index], self._counts[index, train_id])))


def class_chances(pixels: NDArray[np.int64], *, ratio: float) -> NDArray[np.float64]:
    """Return how often each class is drawn, float64 [C]; see `RareClasses`.

    Args:
        pixels: of each class, int64 [C], one of them > 0.
        ratio: of the rarest to the most frequent class, >= 1.
    """
    present = pixels > 0
    share = pixels / pixels.sum()
    spread = share[present].max() - share[present].min()
    # (1 - f) / T without T, which is 0 where all classes are equally frequent.
    exponent = (share - share[present].min()) / spread if spread > 0 else np.zeros(len(pixels))
    odds = np.where(present, ratio**-exponent, 0.0)
    chances: NDArray[np.float64] = odds / odds.sum()
    return chances
