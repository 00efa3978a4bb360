"""Reading images and label files, with errors that name the file."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image, UnidentifiedImageError
from rasterio.enums import ColorInterp, Compression
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from segda.datasets.bands import FindBands, color_table_of, image_bands
from segda.datasets.listing import TIFF_SUFFIXES, UnreachableError, reach
from segda.errors import CorruptSampleError
from segda.types import Pixels

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEAD = 26  # signature and header up to the bits per channel and the kind of color
_LOSSY_FORMATS = ("JPEG", "MPO")
# Filters of warnings belong to the process, so two threads must not change and restore them at the same time.
_WARNING_FILTERS = threading.Lock()


def read_image(path: Path, bands_of: FindBands = image_bands) -> Pixels:
    """Read an 8-bit RGB image: PNG or JPEG through Pillow, TIFF and GeoTIFF through rasterio.

    Args:
        path: file with red, green and blue as uint8, or with a color table.
        bands_of: says where they are in a TIFF, and how other values become uint8.

    Returns:
        uint8 [H, W, 3].

    Raises:
        CorruptSampleError: the file is missing, truncated, of another pixel type or not clearly RGB.
    """
    if path.suffix.lower() in TIFF_SUFFIXES:
        with _open_raster(path) as raster:
            return bands_of(raster, path).read(raster)
    image = _read_pillow(path)
    if image.mode not in ("RGB", "RGBA", "P"):
        raise CorruptSampleError(f"image {path}: expected 8-bit RGB, got mode {image.mode}; convert it to RGB")
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def read_stored_label(path: Path) -> tuple[Pixels, Pixels | None]:
    """Read a label file as it is stored; `segda.datasets.labels` says what it means.

    Args:
        path: PNG (gray, with color table, or RGB) or 8-bit TIFF with one or three bands.

    Returns:
        Values uint8 [H, W] and their color table uint8 [N, 3], or None without a table; or colors uint8 [H, W, 3] and None.

    Raises:
        CorruptSampleError: the file is missing, truncated, stored with loss, or has other bands or not 8 bits.
    """
    if path.suffix.lower() in TIFF_SUFFIXES:
        with _open_raster(path) as raster:
            if _is_lossy(raster):
                raise _lossy(path)
            if raster.count != 1:
                return image_bands(raster, path).read(raster), None
            if raster.dtypes != ("uint8",):
                raise CorruptSampleError(f"label {path}: expected class indices of uint8, got {raster.dtypes[0]}")
            has_table = raster.colorinterp[0] is ColorInterp.palette
            return raster.read(1), color_table_of(raster, 1) if has_table else None
    image = _read_pillow(path)
    if image.format in _LOSSY_FORMATS:
        raise _lossy(path)
    if image.mode in ("RGB", "RGBA"):
        return np.asarray(image.convert("RGB"), dtype=np.uint8), None
    if image.mode not in ("L", "P"):
        raise CorruptSampleError(f"label {path}: expected 8-bit class indices or RGB, got mode {image.mode}")
    table = np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3) if image.mode == "P" else None
    return np.asarray(image, dtype=np.uint8), table


def read_channel(path: Path, number: int | None = None) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Read one channel of a label file with all its bits, which readers for pictures cut to eight.

    Args:
        path: PNG or TIFF of 8 or 16 bits; of a color table the values are read.
        number: of the channel, from 1, which is red in RGB; None: there is one channel.

    Returns:
        uint8 or uint16 [H, W], as it is stored.

    Raises:
        CorruptSampleError: the file is missing, truncated, stored with loss, of another kind or without that channel.
    """
    with _open_raster(path) as raster:
        if raster.driver not in ("PNG", "GTiff") or _is_lossy(raster):
            raise _lossy(path)
        if raster.dtypes[0] not in ("uint8", "uint16"):
            raise CorruptSampleError(f"label {path}: expected 8 or 16 bits per channel, got {raster.dtypes[0]}")
        if raster.count < (number or 1) or (number is None and raster.count > 1):
            wanted = "one channel" if number is None else f"a channel {number}"
            raise CorruptSampleError(f"label {path}: expected {wanted} of ids, got {raster.count} channel(s)")
        channel: npt.NDArray[np.uint8] | npt.NDArray[np.uint16] = raster.read(number or 1)
        return channel


def _is_lossy(raster: Any) -> bool:
    return raster.compression is Compression.jpeg or "MAX_Z_ERROR" in raster.tags(ns="IMAGE_STRUCTURE")


def _lossy(path: Path) -> CorruptSampleError:
    return CorruptSampleError(
        f"label {path}: JPEG and LERC with an error change values; labels must be stored without loss, as PNG or TIFF"
    )


@contextmanager
def _open_raster(path: Path) -> Iterator[Any]:
    """Open a TIFF or PNG; errors of reading it name the file."""
    _check_exists(path)
    try:
        with _WARNING_FILTERS, warnings.catch_warnings():
            # A tile cut out of a larger raster often has no coordinates; segmentation needs none.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            raster = rasterio.open(path.absolute())  # a name with a colon would be an address
        with raster:
            yield raster
    except RasterioError as error:
        kind = "TIFF" if path.suffix.lower() in TIFF_SUFFIXES else "PNG"
        raise CorruptSampleError(
            f"{path} cannot be read as {kind} ({error}); it may be truncated: copy it again"
        ) from error


def _read_pillow(path: Path) -> Image.Image:
    """Decode a PNG or JPEG completely."""
    _check_exists(path)
    try:
        with path.open("rb") as file:
            head = file.read(_PNG_HEAD)
            if head.startswith(_PNG_SIGNATURE) and len(head) == _PNG_HEAD:
                _check_depth(path, depth=head[-2], is_gray=head[-1] == 0)
            file.seek(0)
            with Image.open(file) as image:
                image.load()
                return image
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise CorruptSampleError(
                f"{path} cannot be read ({error.strerror}); see to the disk or the permissions"
            ) from error
        # Pillow reports damage by all of these, depending on where in the file it is.
        raise CorruptSampleError(f"{path} cannot be decoded ({error}); it may be truncated: copy it again") from error


def _check_depth(path: Path, *, depth: int, is_gray: bool) -> None:
    """Refuse what Pillow turns into other values without a word: it halves 16-bit RGB and stretches gray of few bits."""
    if depth == 16 or (is_gray and depth < 8):
        raise CorruptSampleError(
            f"{path}: expected 8 bits per channel, got {depth}; convert it to 8 bits first (an image by scaling, ids as they are)"
        )


def _check_exists(path: Path) -> None:
    try:
        reach(path)
    except UnreachableError as error:
        raise CorruptSampleError(f"{path} {error}; complete the data set") from error
