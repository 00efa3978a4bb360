"""Colors by the histograms of a target image, lightness by a gamma curve."""

from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from segda.transforms.pixels import scale_and_shift
from segda.transforms.styles.base import Style, StyleConfig, TransferConfig
from segda.transforms.styles.lab import from_lab, to_lab
from segda.types import Pixels

LARGEST_GAMMA = 3.0  # and the smallest is its inverse: a white sky stays white, and the rest must not turn black for it
_BINS = 1024
_BIN_WIDTH = 256 / _BINS  # of a and b
_HALVINGS = 40  # of the interval in which gamma is looked for


def match_histogram(source: NDArray[np.int64], target: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return to which bin each bin goes so that the source's histogram becomes the target's.

    That is the bin in which the target has the quantile that the middle of a bin's pixels is in the source. Bins that have pixels
    stay where they are if the histograms are equal, which interpolating between the shares would not give; and a flat image takes
    the target's median, where looking up the share up to a bin's last pixel would give it the target's largest value.

    Args:
        source: number of pixels in each bin, int64 [K].
        target: the same, with any other sum > 0.

    Returns:
        int64 [K].
    """
    up_to_source, up_to_target = source.cumsum(), target.cumsum()
    # Shares are compared as whole numbers: no rounding may put a bin beside itself.
    middles = (2 * up_to_source - source) * up_to_target[-1]
    return np.asarray(np.searchsorted(2 * up_to_target * up_to_source[-1], middles, side="left"))


def matching_gamma(source: NDArray[np.int64], target: NDArray[np.int64]) -> float:
    """Return the g in [1 / 3, 3] with which the mean of x ** g over the source is nearest to the mean of x over the target.

    Args:
        source: number of pixels in each of K equal bins of [0, 1], int64 [K]; x is the center of a bin.
        target: the same.
    """
    centers = (np.arange(len(source)) + 0.5) / len(source)
    wanted = float(target @ centers) / float(target.sum())
    share = source / source.sum()
    low, high = 1 / LARGEST_GAMMA, LARGEST_GAMMA
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        # The larger the exponent, the darker.
        if float(share @ centers**middle) > wanted:
            low = middle
        else:
            high = middle
    return float((low * high) ** 0.5)


class HistogramConfig(TransferConfig):
    """Settings of `Histogram`; it has none of its own."""

    name: str = "histogram"


class Histogram(Style):
    """The histograms of the color axes a and b of CIELAB, and the mean lightness by a gamma curve.

    Matching the histogram of the lightness as well would tear smooth areas apart. Source: Ma et al., Coarse-to-Fine Domain Adaptive
    Semantic Segmentation with Photometric Alignment and Category-Center Regularization, CVPR 2021, arXiv:2103.13041. Choices where
    the text at hand leaves it open: bins are a quarter of a unit wide and colors keep their place within a bin; the curve is
    (L / 100) ** g with g limited to [1 / 3, 3].
    """

    Config: ClassVar[type[StyleConfig]] = HistogramConfig

    def __call__(self, source: Pixels, target: Pixels, *, rng: np.random.Generator) -> Pixels:
        """Return the source image in the target's colors; see `Style.__call__`."""
        lab = to_lab(source)
        bins = _bins(lab)
        counts, wanted = _counts(bins), _counts(_bins(to_lab(target)))
        light = np.maximum(lab[..., 0] / np.float32(100), 0)
        lab[..., 0] = 100 * cv2.pow(light, matching_gamma(counts[0], wanted[0]))
        for channel in (1, 2):
            shift = (match_histogram(counts[channel], wanted[channel]) - np.arange(_BINS)) * _BIN_WIDTH
            lab[..., channel] += shift.astype(np.float32)[bins[..., channel]]
        return from_lab(lab)


def _bins(lab: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the bin of each value, uint16 [H, W, 3]: of L in [0, 100], and of a and b, which lie within [-128, 128]."""
    # L = 100 belongs to the last bin.
    per_unit = np.array([(_BINS - 0.01) / 100, 1 / _BIN_WIDTH, 1 / _BIN_WIDTH])
    return scale_and_shift(lab, per_unit, np.array([0, _BINS / 2, _BINS / 2])).astype(np.uint16)


def _counts(bins: NDArray[np.uint16]) -> list[NDArray[np.int64]]:
    """Return the number of pixels in each bin for each of three channels, int64 [`_BINS`] each."""
    return [cv2.calcHist([plane], [0], None, [_BINS], [0, _BINS]).ravel().astype(np.int64) for plane in cv2.split(bins)]
