"""Mean and standard deviation of each channel from a target image: of red, green and blue, or of CIELAB."""

from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from segda.transforms.pixels import look_up, scale_and_shift
from segda.transforms.styles.base import Style, StyleConfig, TransferConfig
from segda.transforms.styles.lab import from_lab, to_lab
from segda.types import Pixels

LARGEST_RATIO = 3.0  # of the standard deviations, and of its inverse: noise of a flat image must not become a picture
_SMALLEST_STD = 1e-3  # in the channel's unit


def matching_line(
    source: NDArray[np.uint8 | np.float32], target: NDArray[np.uint8 | np.float32]
) -> NDArray[np.float64]:
    """Return the straight line that gives each channel of the source the mean and standard deviation of the target's.

    x' = (x - mean_s) * r + mean_t with r = std_t / std_s, limited to [1 / 3, 3]; std_s counts as at least 0.001.

    Args:
        source: [H, W, 3].
        target: [H, W, 3].

    Returns:
        Slopes and offsets, float64 [2, 3].
    """
    source_mean, source_std = cv2.meanStdDev(source)
    target_mean, target_std = cv2.meanStdDev(target)
    ratio = np.clip(target_std / np.maximum(source_std, _SMALLEST_STD), 1 / LARGEST_RATIO, LARGEST_RATIO)
    return np.stack([ratio[:, 0], (target_mean - source_mean * ratio)[:, 0]])


class ChannelStatisticsConfig(TransferConfig):
    """Settings of `ChannelStatistics`; it has none of its own."""

    name: str = "channel_statistics"


class ChannelStatistics(Style):
    """Mean and standard deviation of red, green and blue, each by itself; see `matching_line`."""

    Config: ClassVar[type[StyleConfig]] = ChannelStatisticsConfig

    def __call__(self, source: Pixels, target: Pixels, *, rng: np.random.Generator) -> Pixels:
        """Return the source image in the target's colors; see `Style.__call__`."""
        slope, offset = matching_line(source, target)
        return look_up(source, np.arange(256)[:, None] * slope + offset)


class LabConfig(TransferConfig):
    """Settings of `Lab`; it has none of its own."""

    name: str = "lab"


class Lab(Style):
    """Mean and standard deviation of lightness and of the two color axes of CIELAB; see `matching_line`.

    Source: Reinhard, Ashikhmin, Gooch and Shirley, Color Transfer between Images, IEEE CG&A 2001, in CIELAB in the place of their
    l-alpha-beta. Deviations: the ratio of standard deviations is limited, and colors that no RGB image has are clipped, where
    code for domain adaptation divided by any deviation and let 8-bit values wrap around.
    """

    Config: ClassVar[type[StyleConfig]] = LabConfig

    def __call__(self, source: Pixels, target: Pixels, *, rng: np.random.Generator) -> Pixels:
        """Return the source image in the target's colors; see `Style.__call__`."""
        lab = to_lab(source)
        return from_lab(scale_and_shift(lab, *matching_line(lab, to_lab(target))))
