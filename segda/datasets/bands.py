"""Which bands of a TIFF are red, green and blue: what the file says of them, for training and prediction alike.

- Bands tagged red, green and blue are these, wherever they stand. GDAL tags the bands of an RGB file so, and those of other files
  where whoever wrote them said it. Where no band has such a tag, descriptions with one of these words count: Red, Band 4 (red), r.
- Without either, the first three bands are red, green and blue, if nothing is said of them.
- A single band with a color table shows the table's colors.
- Everything else is refused: a part of the tags, one of them twice, descriptions that contradict tags, the first three bands tagged
  or described as something else (infrared, red edge). Numbers such as B04 are not used: which color that is depends on the
  satellite.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import ColorInterp

from segda.errors import CorruptSampleError
from segda.types import Pixels

_COLORS = ("red", "green", "blue")
_LETTERS = {color[0]: color for color in _COLORS}
# What makes another band of a red or blue one, or is one.
_OTHERS = frozenset(
    {"coastal", "edge", "infrared", "nir", "pan", "panchromatic", "rededge", "swir", "thermal", "yellow"}
)
_UNTAGGED = (ColorInterp.undefined, ColorInterp.gray)  # what GDAL says of bands of which the file says nothing


@dataclass(frozen=True)
class ImageBands:
    """Where the image is in an open raster.

    Attributes:
        numbers: bands of red, green and blue, or the one band with a color table; counted from 1.
        table: color of each value, uint8 [256, 3]; None without a color table.
        alpha: band of opacity; None if there is none.
        ranges: values that become 0 and 255, of each of three bands; None: they are uint8 already.
    """

    numbers: tuple[int, ...]
    table: Pixels | None = None
    alpha: int | None = None
    ranges: tuple[tuple[float, float], ...] | None = None

    def check_values(self, reader: Any) -> None:
        """Refuse values that nobody has said the meaning of.

        Raises:
            CorruptSampleError: the bands are not uint8 and have no ranges, or have a color table of more than 256 colors.
        """
        kinds = sorted({reader.dtypes[number - 1] for number in self.numbers})
        if self.ranges is None and kinds != ["uint8"]:
            raise CorruptSampleError(
                f"{reader.name}: expected bands of uint8, got {', '.join(kinds)}; scale it to 8 bits first, or say which values "
                "become 0 and 255: by `bands` of a described data set, or for predictions alone by --stretch"
            )

    def read(self, reader: Any, window: Any = None) -> Pixels:
        """Read the image or a window of it, uint8 [H, W, 3].

        Raises:
            CorruptSampleError: see `check_values`.
        """
        self.check_values(reader)
        bands = reader.read(self.numbers, window=window)
        if self.ranges is not None:
            bands = _scaled(bands, self.ranges)
        image: Pixels = bands.transpose(1, 2, 0) if self.table is None else self.table[bands[0]]
        return np.ascontiguousarray(image)

    def valid(self, reader: Any, window: Any = None, *, shape: tuple[int, int] | None = None) -> npt.NDArray[np.bool_]:
        """Tell which pixels hold data: neither nodata, nor masked, nor wholly transparent, nor infinite or no number.

        Args:
            reader: of rasterio.
            window: part of the raster; None: all of it.
            shape: height and width of the result, for a look at fewer pixels; None: those of the part.

        Returns:
            bool [H, W].
        """
        valid: npt.NDArray[np.bool_] = reader.dataset_mask(window=window, out_shape=shape) > 0
        # GDAL itself takes an opacity for one only where it is the last band.
        if self.alpha is not None:
            valid &= reader.read(self.alpha, window=window, out_shape=shape) > 0
        if any("float" in reader.dtypes[number - 1] for number in self.numbers):
            out_shape = None if shape is None else (len(self.numbers), *shape)
            valid &= np.isfinite(reader.read(self.numbers, window=window, out_shape=out_shape)).all(axis=0)
        return valid


FindBands = Callable[[Any, Path], ImageBands]  # of an open raster; the path is for messages


def image_bands(reader: Any, path: Path) -> ImageBands:
    """Find the image in an open raster.

    Args:
        reader: of rasterio.
        path: the file, for messages.

    Raises:
        CorruptSampleError: too few bands, or not clearly red, green and blue. Whether their values are those of an image is
            asked by `ImageBands.check_values`.
    """
    tags = reader.colorinterp
    alpha = _alpha(reader)
    if reader.count - (alpha is not None) == 1 and ColorInterp.palette in tags:
        number = tags.index(ColorInterp.palette) + 1
        return ImageBands((number,), color_table_of(reader, number), alpha)
    if reader.count < 3:
        raise CorruptSampleError(
            f"image {path}: expected bands red, green and blue, got {reader.count} band(s); convert it to RGB"
        )
    tagged = _found([tag.name for tag in tags], what="tags", path=path)
    words = [_said(text or "") for text in reader.descriptions]
    described = _found(words, what="descriptions", path=path)
    if tagged and described and tagged != described:
        raise CorruptSampleError(
            f"{path}: its tags say that red, green and blue are the bands {_listed(tagged)}, its descriptions say "
            f"{_listed(described)}; correct one of them, e.g. with `rio edit-info --colorinterp`"
        )
    is_told = any(tag not in _UNTAGGED for tag in tags[:3]) or any(words[:3])
    if (tagged or described) is None and is_told:
        came = ", ".join(word or tag.name for word, tag in zip(words, tags, strict=True))
        raise CorruptSampleError(
            f"{path}: expected bands red, green and blue, got {came}; "
            "convert it to RGB, or correct what it says with `rio edit-info --colorinterp`"
        )
    return ImageBands(tagged or described or (1, 2, 3), alpha=alpha)


def chosen_bands(
    reader: Any, path: Path, numbers: Sequence[int], ranges: tuple[tuple[float, float], ...] | None
) -> ImageBands:
    """Take bands of an open raster as red, green and blue, whatever the file says of them.

    Args:
        reader: of rasterio.
        path: the file, for messages.
        numbers: three bands, or one for all three; from 1.
        ranges: values that become 0 and 255 of red, green and blue; what lies beyond is cut off, and NaN becomes 0. None: they
            are uint8 already.

    Raises:
        CorruptSampleError: the file has fewer bands, or complex ones.
    """
    if max(numbers) > reader.count:
        raise CorruptSampleError(f"image {path}: expected a band {max(numbers)}, got {reader.count} band(s)")
    if any("complex" in kind for kind in reader.dtypes):
        raise CorruptSampleError(
            f"image {path}: expected numbers as bands, got {', '.join(sorted(set(reader.dtypes)))}"
        )
    three = tuple(numbers) * (3 // len(numbers))
    alpha = _alpha(reader)
    return ImageBands(three, alpha=alpha if alpha not in three else None, ranges=ranges)


def _alpha(reader: Any) -> int | None:
    """Return the band of opacity, if one is tagged so."""
    tags = reader.colorinterp
    return tags.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in tags else None


def _scaled(bands: npt.NDArray[Any], ranges: Sequence[tuple[float, float]]) -> Pixels:
    """Scale bands [3, H, W] linearly, so that each one's range fills 0..255."""
    low, high = (np.array(ends, dtype=np.float32)[:, None, None] for ends in zip(*ranges, strict=True))
    scaled = (bands.astype(np.float32) - low) * (255 / (high - low))
    result: Pixels = np.nan_to_num(scaled, nan=0.0).clip(0, 255).round().astype(np.uint8)
    return result


def color_table_of(reader: Any, band: int) -> Pixels:
    """Return the color table of a band of an open raster, uint8 [256, 3]."""
    table = np.zeros((256, 3), dtype=np.uint8)
    for value, color in reader.colormap(band).items():
        table[value] = color[:3]
    return table


def _said(description: str) -> str:
    """Return the color that the description of a band names, or a word for another kind of band; empty if it says neither.

    Example:
        >>> [_said(text) for text in ("B", "B4 (Red)", "Near infrared", "vegetation red edge", "Band 1")]
        ['blue', 'red', 'infrared', 'edge', '']
    """
    text = description.strip().lower()
    words = re.findall(r"[a-z]+", _LETTERS.get(text, text))
    found = [word for word in words if word in _OTHERS] or [word for word in words if word in _COLORS]
    return found[0] if found else ""


def _found(names: Sequence[str], *, what: str, path: Path) -> tuple[int, ...] | None:
    """Return the bands named red, green and blue, counted from 1; None if no band is."""
    counts = [names.count(color) for color in _COLORS]
    if counts == [0, 0, 0]:
        return None
    if counts != [1, 1, 1]:
        raise CorruptSampleError(
            f"{path}: red, green and blue must each be one band, its {what} are {', '.join(name or '-' for name in names)}; "
            "correct them, or convert it to RGB"
        )
    return tuple(names.index(color) + 1 for color in _COLORS)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
