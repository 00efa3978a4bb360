"""RGB images in CIELAB, where lightness is apart from color, and back."""

import cv2
import numpy as np
from numpy.typing import NDArray

from segda.transforms.pixels import to_pixels
from segda.types import Pixels

_Planes = NDArray[np.float32]


def _linear_light() -> _Planes:
    """Return the linear light in [0, 1] of each 8-bit value of sRGB, float32 [1, 256]."""
    value = np.arange(256) / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32).reshape(1, 256)


_LIGHT = _linear_light()


def to_lab(image: Pixels) -> _Planes:
    """Return an image in CIELAB (sRGB, white point D65).

    Args:
        image: RGB, uint8 [H, W, 3].

    Returns:
        float32 [H, W, 3]: L in [0, 100], a and b within [-128, 128]. Exact to 0.05.
    """
    # From linear light: OpenCV's way from sRGB interpolates in a coarse table, and there and back changes images by a gray level.
    return np.asarray(cv2.cvtColor(cv2.LUT(image, _LIGHT), cv2.COLOR_LRGB2Lab))


def from_lab(lab: _Planes) -> Pixels:
    """Return the image that `to_lab` was given; colors that no RGB image has are clipped.

    Args:
        lab: float32 [H, W, 3], any values.

    Returns:
        RGB, uint8 [H, W, 3].
    """
    rgb = cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)
    rgb *= np.float32(255)
    return to_pixels(rgb)
