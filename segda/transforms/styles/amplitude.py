"""Low frequencies of the amplitude spectrum from a target image: in full (FDA), or in part."""

from functools import lru_cache
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from segda.transforms.fourier import window_reach
from segda.transforms.pixels import to_pixels
from segda.transforms.styles.base import Style, StyleConfig, TransferConfig
from segda.tunable import Range
from segda.types import Pixels

_Spectrum = NDArray[np.complex64]
_Planes = NDArray[np.float32]


def mix_amplitude(source: Pixels, target: Pixels, *, beta: float, share: float) -> Pixels:
    """Mix the low frequencies' amplitude of a target image into that of a source image, each channel by itself; the phase stays.

    The (2b + 1) x (2b + 1) bins around frequency zero, b as in `window_reach`, become
    ((1 - share) |F_s| + share |F_t|) * exp(i * angle(F_s)).

    Args:
        source: RGB, uint8 [H, W, 3].
        target: its partner, of the same size.
        beta: share of the shorter side, in [0, 0.5).
        share: of the target's amplitude, in [0, 1]; 1 is the swap of FDA.

    Returns:
        uint8 [H, W, 3], rounded and clipped.
    """
    height, width = source.shape[:2]
    reach = window_reach(height, width, beta)
    planes = _planes(source)
    own, other = _low_frequencies(planes, reach), _low_frequencies(_planes(target), reach)
    change = share * (np.abs(other) - np.abs(own)) * np.exp(1j * np.angle(own))
    planes += _image_of(change.astype(np.complex64), (height, width))
    return np.ascontiguousarray(to_pixels(planes).transpose(1, 2, 0))


def _planes(image: Pixels) -> _Planes:
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)


# Few frequencies are needed, and multiplying by their waves is several times faster than the whole transform.
def _low_frequencies(planes: _Planes, reach: int) -> _Spectrum:
    """Return the spectrum of real planes [3, H, W] at frequencies -b..b of the rows and 0..b of the columns, [3, 2b + 1, b + 1]."""
    height, width = planes.shape[1:]
    real, imaginary = np.split(planes @ _column_waves(width, reach), 2, axis=2)
    return np.asarray(_row_waves(height, reach) @ (real - 1j * imaginary))


def _image_of(spectrum: _Spectrum, size: tuple[int, int]) -> _Planes:
    """Return the real planes float32 [3, H, W] of which `_low_frequencies` gives a spectrum, and that have no other frequency."""
    height, width = size
    reach = spectrum.shape[2] - 1
    # Columns above zero stand for those below, too.
    weight = np.where(np.arange(reach + 1) > 0, 2, 1) / (height * width)
    rows = _row_waves(height, reach).conj().T @ (spectrum * weight.astype(np.float32))
    return np.concatenate([rows.real, -rows.imag], axis=2) @ _column_waves(width, reach).T


@lru_cache(maxsize=8)
def _row_waves(height: int, reach: int) -> _Spectrum:
    """Return exp(-2 pi i r y / H) for r in -b..b, complex64 [2b + 1, H]."""
    angles = 2 * np.pi * np.outer(np.arange(-reach, reach + 1), np.arange(height)) / height
    return np.asarray(np.exp(-1j * angles).astype(np.complex64))


@lru_cache(maxsize=8)
def _column_waves(width: int, reach: int) -> _Planes:
    """Return cos(2 pi c x / W) for c in 0..b, then the sines, float32 [W, 2 (b + 1)]."""
    angles = 2 * np.pi * np.outer(np.arange(width), np.arange(reach + 1)) / width
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


class FdaStyleConfig(TransferConfig):
    """Settings of `FdaStyle`."""

    name: str = "fda"
    beta: Annotated[float, Range(0.005, 0.09, log=True)] = Field(
        0.01,
        ge=0,
        lt=0.5,
        description="highest frequency that is swapped, in shares of the image's shorter side (FDA: 0.01, 0.05 and 0.09)",
    )


class FdaStyle(Style):
    """The low frequencies' amplitude of the target image in the place of the source's; see `mix_amplitude`.

    Source: Yang and Soatto, FDA, CVPR 2020, arXiv:2004.05498. Deviation: what comes out is an 8-bit image, like every other that
    is augmented, so it is rounded and clipped. The method `fda` clips nothing.
    """

    Config: ClassVar[type[StyleConfig]] = FdaStyleConfig

    def __call__(self, source: Pixels, target: Pixels, *, rng: np.random.Generator) -> Pixels:
        """Return the source image in the target's light; see `Style.__call__`."""
        return mix_amplitude(source, target, beta=self.config.beta, share=1.0)


class AmplitudeMixConfig(TransferConfig):
    """Settings of `AmplitudeMix`."""

    name: str = "amplitude_mix"
    beta: Annotated[float, Range(0.005, 0.09, log=True)] = Field(
        0.09, ge=0, lt=0.5, description="highest frequency that is mixed, in shares of the image's shorter side"
    )


class AmplitudeMix(Style):
    """A share of the target image's low frequencies' amplitude, drawn from U(0, 1) for each image; see `mix_amplitude`.

    Source: the amplitude mix of Xu et al., A Fourier-based Framework for Domain Generalization, CVPR 2021, arXiv:2105.11120, in the
    window of FDA and towards the target alone.
    """

    Config: ClassVar[type[StyleConfig]] = AmplitudeMixConfig

    def __call__(self, source: Pixels, target: Pixels, *, rng: np.random.Generator) -> Pixels:
        """Return the source image partly in the target's light; see `Style.__call__`."""
        return mix_amplitude(source, target, beta=self.config.beta, share=rng.random())
