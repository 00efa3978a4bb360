"""Mean color and covariance of the colors from a target image."""

from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from segda.transforms.pixels import to_pixels
from segda.transforms.styles.base import Style, StyleConfig, TransferConfig
from segda.types import Pixels

_Matrix = NDArray[np.float64]
_ADDED = 1e-5  # to each variance, of values in [0, 1]: a gray image has no variance across the gray axis


def color_moments(image: Pixels) -> tuple[NDArray[np.float64], _Matrix]:
    """Return the mean color, float64 [3], and the covariance of the colors, float64 [3, 3], of values in [0, 1].

    Args:
        image: uint8 [H, W, 3].
    """
    colors = image.reshape(-1, 3)
    mean = cv2.meanStdDev(image)[0][:, 0]
    squares = cv2.mulTransposed(colors.astype(np.float32), True, dtype=cv2.CV_64F) / len(colors)
    return mean / 255, (squares - np.outer(mean, mean)) / 255**2


def monge_map(source: _Matrix, target: _Matrix) -> _Matrix:
    """Return the symmetric matrix that takes a Gaussian of one covariance to one of another and moves least.

    A = S^-1/2 (S^1/2 T S^1/2)^1/2 S^-1/2, so that A S A = T, and A = 1 where S = T. Whitening by Cholesky's triangles would do the
    first and turn colors into each other.

    Args:
        source: S, symmetric positive definite float64 [3, 3].
        target: T.
    """
    root, inverse = _powers(source, 0.5, -0.5)
    (inner,) = _powers(root @ target @ root, 0.5)
    return np.asarray(inverse @ inner @ inverse)


def _powers(matrix: _Matrix, *exponents: float) -> list[_Matrix]:
    values, vectors = np.linalg.eigh(matrix)
    return [np.asarray((vectors * np.maximum(values, 0) ** exponent) @ vectors.T) for exponent in exponents]


class CovarianceConfig(TransferConfig):
    """Settings of `Covariance`; it has none of its own."""

    name: str = "covariance"


class Covariance(Style):
    """Mean and covariance of red, green and blue: x' = A (x - mean_s) + mean_t with A of `monge_map`.

    Source: the covariance matching of Abramov, Bayer and Heller, Keep it Simple: Image Statistics Matching for Domain Adaptation,
    arXiv:2005.12551. Deviation: 1e-5 is added to the variances of both images.
    """

    Config: ClassVar[type[StyleConfig]] = CovarianceConfig

    def __call__(self, source: Pixels, target: Pixels, *, rng: np.random.Generator) -> Pixels:
        """Return the source image in the target's colors; see `Style.__call__`."""
        (source_mean, source_covariance), (target_mean, target_covariance) = map(color_moments, (source, target))
        added = _ADDED * np.eye(3)
        matrix = monge_map(source_covariance + added, target_covariance + added)
        offset = 255 * (target_mean - matrix @ source_mean)
        moved = cv2.transform(source.astype(np.float32), np.column_stack([matrix, offset]).astype(np.float32))
        return to_pixels(moved)
