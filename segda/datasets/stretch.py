"""Which bands of a raster are the image and which of its values become 0 and 255, where whoever predicts says it.

A data set says it for its own rasters (`bands` of a description). Rasters from elsewhere are often of 16 bits or of floats; no
rule tells whether their brightest pixel is 255, 4095 or 10,000, or a reflectance of 0.3. So either two values are given, or two
percentiles, which are taken of each band over the whole raster: a stretch per window would show the same roof in other colors on
each side of a border.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from segda.datasets.bands import FindBands, ImageBands, chosen_bands
from segda.errors import ConfigError, CorruptSampleError

_LOOKED_AT = 1_000_000  # pixels, about; percentiles of more do not differ by a level of 255


@dataclass(frozen=True)
class Stretch:
    """A linear scaling to 0..255; what lies beyond is cut off.

    Attributes:
        low: value that becomes 0, or its percentile.
        high: value that becomes 255, or its percentile.
        in_percent: whether these are percentiles, 0..100.
    """

    low: float
    high: float
    in_percent: bool = False

    @classmethod
    def parse(cls, low: str | float, high: str | float) -> Self:
        """Read two values, or two percentiles.

        Args:
            low: a number, or a text such as `2%`.
            high: the same, larger.

        Raises:
            ConfigError: they are neither, of different kinds, or not in order.

        Example:
            >>> Stretch.parse("2%", "98%")
            Stretch(low=2.0, high=98.0, in_percent=True)
        """
        texts = [str(end).strip() for end in (low, high)]
        in_percent = all(text.endswith("%") for text in texts)
        try:
            first, last = (float(text.removesuffix("%") if in_percent else text) for text in texts)
        except ValueError:
            first = last = math.nan
        if not (math.isfinite(first) and math.isfinite(last) and first < last):
            raise ConfigError(
                f"a stretch is two values that become 0 and 255, such as 0 3000, or percentiles such as 2% 98%, got {low} {high}"
            )
        if in_percent and not (first >= 0 and last <= 100):
            raise ConfigError(f"percentiles lie within 0% and 100%, got {low} {high}")
        return cls(first, last, in_percent)

    def ranges(self, reader: Any, bands: ImageBands, path: Path) -> tuple[tuple[float, float], ...]:
        """Return the values that become 0 and 255, of red, green and blue.

        Percentiles are taken over about a million pixels that hold data, from the overviews where the file has them.

        Args:
            reader: of rasterio.
            bands: where the image is.
            path: the file, for messages.

        Raises:
            CorruptSampleError: no pixel holds data, or both percentiles of a band are the same value.
        """
        if not self.in_percent:
            return ((float(self.low), float(self.high)),) * 3
        fewer = max(1.0, math.sqrt(reader.height * reader.width / _LOOKED_AT))
        shape = max(1, round(reader.height / fewer)), max(1, round(reader.width / fewer))
        valid = bands.valid(reader, shape=shape)
        if not valid.any():
            raise CorruptSampleError(f"{path}: percentiles are of pixels that hold data, and there are none")
        values = reader.read(bands.numbers, out_shape=(3, *shape))[:, valid].astype(np.float64)
        found = np.percentile(values, (self.low, self.high), axis=1).T
        for number, (low, high) in zip(bands.numbers, found, strict=True):
            if low >= high:
                raise CorruptSampleError(
                    f"{path}: the percentiles {self.low:g} and {self.high:g} of band {number} are the same value, {low:g}; "
                    "give two values to --stretch"
                )
        return tuple((float(low), float(high)) for low, high in found)


def bands_as_told(
    find: FindBands, *, numbers: Sequence[int] | None = None, stretch: Stretch | None = None
) -> FindBands:
    """Return what finds the image in a raster, by what is told and else by what the data set says.

    Args:
        find: of the data set.
        numbers: three bands for red, green and blue, or one for all three, from 1; None: those that `find` says.
        stretch: takes the place of ranges that `find` says.

    Raises:
        ConfigError: not one or three bands.
    """
    if numbers is not None and (len(numbers) not in (1, 3) or min(numbers) < 1):
        raise ConfigError(f"bands are three numbers from 1, or one for all three, got {', '.join(map(str, numbers))}")

    def found(reader: Any, path: Path) -> ImageBands:
        bands = find(reader, path) if numbers is None else chosen_bands(reader, path, numbers, None)
        if stretch is None:
            return bands
        if bands.table is not None:
            raise CorruptSampleError(f"{path} has a color table, whose colors are not stretched; leave --stretch out")
        return replace(bands, ranges=stretch.ranges(reader, bands, path))

    return found
