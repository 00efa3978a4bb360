"""Reading images and label files, with errors that name the file; listing the images of a folder."""

import os
import re
import threading
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image, UnidentifiedImageError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from segda.errors import CorruptSampleError, DatasetNotFoundError
from segda.types import IGNORE_INDEX

Pixels = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
TIFF_SUFFIXES = (".tif", ".tiff")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH_OFFSET = 24
# Filters of warnings belong to the process, so two threads must not change and restore them at the same time.
_WARNING_FILTERS = threading.Lock()


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key by which 9.png comes before 10.png.

    Example:
        >>> sorted(["10.png", "9.png", "a2", "a10"], key=natural_key)
        ['9.png', '10.png', 'a2', 'a10']
    """
    parts = re.split(r"([0-9]+)", name)
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part)


def find_images(folder: Path) -> dict[str, Path]:
    """List the images of a folder by name without suffix, in natural order.

    Args:
        folder: an existing folder; its subfolders are not entered.

    Raises:
        DatasetNotFoundError: the folder is missing.
        CorruptSampleError: two images differ in their suffix only, so that the label would be shared.
    """
    if not folder.is_dir():
        raise DatasetNotFoundError(f"folder {folder} is missing; complete the data set or correct its root")
    found: dict[str, Path] = {}
    for name in sorted((entry.name for entry in os.scandir(folder) if _is_image(entry)), key=natural_key):
        path = folder / name
        if path.stem in found:
            raise CorruptSampleError(f"{found[path.stem]} and {path} are the same sample twice; remove one of them")
        found[path.stem] = path
    return found


def _is_image(entry: "os.DirEntry[str]") -> bool:
    return not entry.name.startswith(".") and Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and entry.is_file()


def read_image(path: Path) -> Pixels:
    """Read an 8-bit RGB image: PNG or JPEG through Pillow, TIFF and GeoTIFF through rasterio.

    Args:
        path: file with at least three bands of uint8, of which the first three are red, green and blue.

    Returns:
        uint8 [H, W, 3].

    Raises:
        CorruptSampleError: the file is missing, truncated, of another pixel type or has fewer than three bands.
    """
    if path.suffix.lower() in TIFF_SUFFIXES:
        pixels = _read_tiff(path)
        if pixels.shape[0] < 3:
            raise CorruptSampleError(
                f"image {path}: expected at least 3 bands (red, green, blue), got {pixels.shape[0]}; convert it to RGB"
            )
        return np.ascontiguousarray(pixels[:3].transpose(1, 2, 0))
    image = _read_pillow(path)
    if image.mode not in ("RGB", "RGBA", "P"):
        raise CorruptSampleError(f"image {path}: expected 8-bit RGB, got mode {image.mode}; convert it to RGB")
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def read_label(path: Path) -> Pixels:
    """Read a label file as it is stored; a color table in the file is not applied.

    Args:
        path: PNG (gray, with color table, or RGB) or 8-bit TIFF with one or three bands.

    Returns:
        Class indices uint8 [H, W] of a one-band file, or colors uint8 [H, W, 3] of an RGB file.

    Raises:
        CorruptSampleError: the file is missing, truncated, or has other bands or more than 8 bits.
    """
    if path.suffix.lower() in TIFF_SUFFIXES:
        pixels = _read_tiff(path)
        return pixels[0] if pixels.shape[0] == 1 else read_image(path)
    image = _read_pillow(path)
    if image.mode in ("RGB", "RGBA"):
        return np.asarray(image.convert("RGB"), dtype=np.uint8)
    if image.mode not in ("L", "P"):
        raise CorruptSampleError(f"label {path}: expected 8-bit class indices or RGB, got mode {image.mode}")
    return np.asarray(image, dtype=np.uint8)


def read_index_label(path: Path) -> Pixels:
    """Read a label file that stores one class index per pixel.

    Returns:
        Stored values, uint8 [H, W].

    Raises:
        CorruptSampleError: the file stores colors, or see `read_label`.
    """
    pixels = read_label(path)
    if pixels.ndim != 2:
        raise CorruptSampleError(f"label {path}: expected one band of class indices, got colors; convert it to indices")
    return pixels


def map_ids(raw: Pixels, table: Pixels, *, path: Path, known: Iterable[int]) -> Pixels:
    """Map stored label values to train ids.

    Args:
        raw: stored values, uint8 [H, W].
        table: train id of each stored value, uint8 [256]; values outside `known` are not looked at.
        path: the label file, for the message.
        known: values that may occur.

    Returns:
        Train ids, uint8 [H, W].

    Raises:
        CorruptSampleError: another value occurs.
    """
    allowed = sorted(known)
    strange = np.flatnonzero(np.bincount(raw.ravel(), minlength=256))
    strange = strange[~np.isin(strange, allowed)]
    if strange.size:
        raise CorruptSampleError(
            f"label {path}: unknown id {', '.join(map(str, strange[:5]))}; allowed are {_ranges(allowed)}"
        )
    mapped: Pixels = table[raw]
    return mapped


def id_table(ids: dict[int, int]) -> Pixels:
    """Return the lookup table uint8 [256] of stored value -> train id, with `IGNORE_INDEX` for the rest."""
    table = np.full(256, IGNORE_INDEX, dtype=np.uint8)
    for raw, train_id in ids.items():
        table[raw] = train_id
    return table


def _ranges(values: list[int]) -> str:
    """Write 0, 1, 2, 255 as `0..2, 255`."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(first) if first == last else f"{first}..{last}" for first, last in runs)


def _read_tiff(path: Path) -> Pixels:
    """Read all bands of an 8-bit TIFF, uint8 [bands, H, W]."""
    _check_exists(path)
    try:
        with _WARNING_FILTERS, warnings.catch_warnings():
            # A tile cut out of a larger raster often has no coordinates; segmentation needs none.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            raster = rasterio.open(path)
        with raster:
            kinds = sorted(set(raster.dtypes))
            if kinds != ["uint8"]:
                raise CorruptSampleError(
                    f"{path}: expected bands of uint8, got {', '.join(kinds)}; scale it to 8 bits first"
                )
            pixels: Pixels = raster.read()
    except RasterioError as error:
        raise CorruptSampleError(
            f"{path} cannot be read as TIFF ({error}); it may be truncated: copy it again"
        ) from error
    return pixels


def _read_pillow(path: Path) -> Image.Image:
    """Decode a PNG or JPEG completely."""
    _check_exists(path)
    try:
        with path.open("rb") as file:
            head = file.read(_PNG_DEPTH_OFFSET + 1)
            # Pillow halves 16-bit RGB to 8 bits without a word, so the header is asked.
            if head.startswith(_PNG_SIGNATURE) and head[_PNG_DEPTH_OFFSET:] == b"\x10":
                raise CorruptSampleError(f"{path}: expected 8 bits per channel, got 16; scale it to 8 bits first")
            file.seek(0)
            with Image.open(file) as image:
                image.load()
                return image
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow reports damage by all of these, depending on where in the file it is.
        raise CorruptSampleError(f"{path} cannot be decoded ({error}); it may be truncated: copy it again") from error


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise CorruptSampleError(f"{path} is missing or not a file; complete the data set")
