"""Predict class maps for georeferenced rasters of any size.

A raster is read, predicted and written window by window. The kept parts of the windows form a regular grid without gaps
or overlap, one block of the output file each, so memory does not grow with the raster and no block is compressed twice.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window
from torch import nn

from segda.datasets.bands import FindBands, ImageBands, image_bands
from segda.datasets.listing import UnreachableError, reach
from segda.errors import ConfigError, CorruptSampleError
from segda.files import replacing
from segda.pictures import ByteArray, Palette, color_table
from segda.prediction import CPU, SMALLEST_SIDE, Progress, predict_batch
from segda.types import IGNORE_INDEX

_BLOCK = 16  # TIFF tiles have sides that are multiples of 16
_CACHE_MEGABYTES = 256  # GDAL's block cache; its default grows with the machine's memory


@dataclass(frozen=True)
class Tile:
    """One window of a raster and the part of it that is kept, in pixels of the raster along one axis.

    Attributes:
        start: first pixel that is read.
        stop: one past the last pixel that is read.
        keep_start: first pixel that is written.
        keep_stop: one past the last pixel that is written.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def tile_axis(length: int, *, window: int, overlap: int) -> list[Tile]:
    """Divide one axis of a raster into windows of equal size whose kept parts cover each pixel exactly once.

    Kept parts start at multiples of `window - overlap`. Their windows reach `overlap / 2` further on each side; at the
    borders of the raster they are moved inwards, so that the network never sees padding while it could see pixels.

    Args:
        length: pixels of the axis, at least 1.
        window: pixels that the network sees.
        overlap: pixels that neighboring windows share.

    Returns:
        Tiles in ascending order; a single one if the axis fits into a window.

    Raises:
        ConfigError: if the window is smaller than 32 pixels, the overlap is negative or not smaller than the window, or
            `window - overlap` is not a multiple of 16 (the blocks of a TIFF are).

    Example:
        >>> tile_axis(100, window=64, overlap=32)[1]
        Tile(start=16, stop=80, keep_start=32, keep_stop=64)
    """
    if window < SMALLEST_SIDE:
        raise ConfigError(f"window must be at least {SMALLEST_SIDE} pixels, got {window}")
    if not 0 <= overlap < window:
        raise ConfigError(f"overlap must be at least 0 and smaller than the window of {window} pixels, got {overlap}")
    stride = window - overlap
    if stride % _BLOCK:
        raise ConfigError(
            f"window - overlap must be a multiple of {_BLOCK} pixels, got {window} - {overlap} = {stride}; "
            f"take {window - stride % _BLOCK + _BLOCK} for the window"
        )
    if length <= window:
        return [Tile(0, length, 0, length)]
    tiles = []
    for keep_start in range(0, length, stride):
        start = min(max(keep_start - overlap // 2, 0), length - window)
        tiles.append(Tile(start, start + window, keep_start, min(keep_start + stride, length)))
    return tiles


def predict_raster(
    segmenter: nn.Module,
    source: Path,
    destination: Path,
    *,
    palette: Palette,
    classes: Sequence[str] = (),
    window: int = 512,
    overlap: int = 128,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 4,
    bands_of: FindBands = image_bands,
    progress: Progress | None = None,
) -> None:
    """Predict a georeferenced raster of any size in constant memory.

    The network sees the raster at its own ground resolution: resample it first if the network was trained at another.
    Each pixel is decided by one window, so a network that pools over its whole input (BiSeNet does) may leave seams between
    windows; a larger window has fewer.

    Args:
        segmenter: maps a normalized image float [B, 3, H, W] to `SegmentationOutput`; in evaluation mode, on `device`.
        source: raster with red, green and blue.
        destination: GeoTIFF to write: train ids uint8 with a color table, tiled, deflate, coordinates of the source,
            255 (nodata) where the source has nodata or alpha 0. A file there is replaced once the new one is complete.
        palette: RGB color of each train id.
        classes: name of each train id, written as tags CLASS_<id> of the band.
        window: side in pixels of what the network sees at once.
        overlap: pixels that neighboring windows share; half of it on each side is seen but not written.
        device: where the segmenter is.
        dtype: what convolutions compute in.
        batch_size: windows that go through the network together.
        bands_of: says which bands are red, green and blue, as in training: that of the data set.
        progress: called with (done, total) windows.

    Raises:
        ConfigError: if window and overlap do not fit together or source and destination are the same file.
        CorruptSampleError: if the raster cannot be read or has other bands.
        OutOfMemoryError: if a batch of windows does not fit on the device.
    """
    try:
        reach(source)  # a pipe would be waited for
    except UnreachableError as error:
        raise CorruptSampleError(f"{source} {error}") from error
    if destination.exists() and destination.samefile(source):
        raise ConfigError(f"the prediction would replace its own input {source}; choose another output")
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=_CACHE_MEGABYTES):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a plain TIFF is a fine input
        try:
            with rasterio.open(source.absolute()) as reader:  # a name with a colon would be an address
                bands = bands_of(reader, source)
                rows = tile_axis(reader.height, window=window, overlap=overlap)
                columns = tile_axis(reader.width, window=window, overlap=overlap)
                with replacing(destination) as partial:
                    profile = _output_profile(reader, block=window - overlap)
                    with rasterio.open(partial, "w", **profile) as writer:
                        _describe(writer, reader, palette, classes)
                        _predict_tiles(
                            segmenter,
                            reader,
                            bands,
                            writer,
                            tiles=[(row, column) for row in rows for column in columns],
                            device=device,
                            dtype=dtype,
                            batch_size=batch_size,
                            progress=progress,
                        )
        except RasterioError as error:
            raise CorruptSampleError(f"cannot read {source} as a raster: {error}; is the file complete?") from error


def _predict_tiles(
    segmenter: nn.Module,
    reader: Any,
    bands: ImageBands,
    writer: Any,
    *,
    tiles: Sequence[tuple[Tile, Tile]],
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int,
    progress: Progress | None,
) -> None:
    waiting: list[tuple[tuple[Tile, Tile], ByteArray, npt.NDArray[np.bool_]]] = []

    def flush() -> None:
        if not waiting:
            return
        images = np.stack([image for _, image, _ in waiting])
        predictions = predict_batch(segmenter, images, device=device, dtype=dtype)
        for ((row, column), _, valid), prediction in zip(waiting, predictions, strict=True):
            kept = np.where(valid, prediction, np.uint8(IGNORE_INDEX))[_kept(row), _kept(column)]
            writer.write(kept, 1, window=_keep_window(row, column))
        waiting.clear()

    for done, (row, column) in enumerate(tiles, start=1):
        area = Window(column.start, row.start, column.stop - column.start, row.stop - row.start)
        valid = bands.valid(reader, area)
        if valid[_kept(row), _kept(column)].any():
            waiting.append(((row, column), bands.read(reader, area), valid))
        else:  # nothing to see: a border of nodata costs no network
            shape = (row.keep_stop - row.keep_start, column.keep_stop - column.keep_start)
            writer.write(np.full(shape, IGNORE_INDEX, np.uint8), 1, window=_keep_window(row, column))
        if len(waiting) == batch_size or done == len(tiles):
            flush()
        if progress is not None:
            progress(done, len(tiles))


def _kept(tile: Tile) -> slice:
    return slice(tile.keep_start - tile.start, tile.keep_stop - tile.start)


def _keep_window(row: Tile, column: Tile) -> Window:
    return Window(
        column.keep_start, row.keep_start, column.keep_stop - column.keep_start, row.keep_stop - row.keep_start
    )


def _output_profile(reader: Any, *, block: int) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "height": reader.height,
        "width": reader.width,
        "crs": reader.crs,
        "transform": reader.transform,
        "nodata": IGNORE_INDEX,
        "tiled": True,
        "blockxsize": block,
        "blockysize": block,
        "compress": "deflate",
        "bigtiff": "if_safer",
    }


def _describe(writer: Any, reader: Any, palette: Palette, classes: Sequence[str]) -> None:
    """Write color table, class names and, where the source has them instead of a transform, ground control points."""
    table = color_table(palette)
    opaque = {value: (*map(int, table[value]), 255) for value in range(len(palette))}
    writer.write_colormap(1, {**opaque, IGNORE_INDEX: (0, 0, 0, 0)})
    writer.update_tags(1, **{f"CLASS_{index}": name for index, name in enumerate(classes)})
    points, points_crs = reader.gcps
    if points:
        writer.gcps = (points, points_crs)
