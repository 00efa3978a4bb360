"""Write one band of bytes as a cloud-optimized GeoTIFF, strip by strip: tiles and overviews in the order in which they are read.

GDAL's writer of that layout copies a raster that is complete. So strips go into a plain GeoTIFF first, which lies beside the
result for as long as it is needed. Nothing in the file depends on when it was written: the same strips make the same bytes.
"""

import errno
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.errors import RasterioError
from rasterio.windows import Window

from segda.files import replacing, write_text
from segda.pictures import ByteArray, Palette, color_table
from segda.types import IGNORE_INDEX

_BLOCK = 512  # pixels of a tile's side
_FAST = {"compress": "deflate", "zlevel": 1}


@dataclass(frozen=True)
class Place:
    """Where a raster lies.

    Attributes:
        height: pixels.
        width: pixels.
        crs: coordinate reference system, of rasterio; None without one.
        transform: from columns and rows to its coordinates.
        points: ground control points in place of a transform, and their reference system.
    """

    height: int
    width: int
    crs: Any
    transform: Any
    points: tuple[Sequence[Any], Any]

    @classmethod
    def of(cls, reader: Any) -> "Place":
        """Return where an open raster of rasterio lies."""
        return cls(reader.height, reader.width, reader.crs, reader.transform, reader.gcps)


@dataclass(frozen=True)
class BandMeaning:
    """What the numbers of a band say; 255 is nodata in any case.

    Attributes:
        description: name of the band.
        palette: of class ids, the color of each; None: the band is a measurement.
        categories: of class ids, the name of each.
        scale: what a measurement is multiplied by.
        tags: name -> text, of the band.
    """

    description: str
    palette: Palette | None = None
    categories: Sequence[str] = ()
    scale: float = 1.0
    tags: Mapping[str, str] | None = None


def write_cog(
    destination: Path,
    strips: Callable[[], Iterable[ByteArray]],
    *,
    place: Place,
    meaning: BandMeaning,
    tags: Mapping[str, str],
) -> None:
    """Write a band as cloud-optimized GeoTIFF: tiles of 512 pixels, deflate, overviews down to one tile.

    Overviews of class ids hold the most frequent id, those of measurements the mean. The names of classes are tags `CLASS_<id>`
    of the band, and GDAL's category names, which a TIFF has no room for: these lie in `<name>.aux.xml`.

    Args:
        destination: file to write or replace; it takes its place once what was written has been read back and is right.
        strips: called to go through the strips from top to bottom, uint8 [rows, W]; twice.
        place: where the raster lies.
        meaning: what its numbers say.
        tags: name -> text, of the file.

    Raises:
        OSError: it cannot be written.
    """
    remove_unfinished_cog(destination)
    with _told_as_disk_error(destination), replacing(destination) as partial:
        plain = partial.with_name(f"{partial.name}.tif")
        try:
            with rasterio.open(plain, "w", **_plain_profile(place)) as writer:
                _describe(writer, place, meaning, tags)
                for top, strip in _with_rows(strips()):
                    writer.write(strip, 1, window=Window(0, top, *strip.shape[::-1]))
            rasterio.shutil.copy(
                plain,
                partial,
                driver="COG",
                blocksize=_BLOCK,
                compress="deflate",
                overviews="ignore_existing",
                overview_resampling="mode" if meaning.palette is not None else "average",
                bigtiff="if_safer",
            )
        finally:
            plain.unlink(missing_ok=True)
        _compare(partial, strips())
        aux = destination.with_name(f"{destination.name}.aux.xml")
        if meaning.categories:
            write_text(aux, _category_names(meaning.categories))
        else:
            aux.unlink(missing_ok=True)  # of what is replaced


def remove_unfinished_cog(destination: Path) -> None:
    """Remove what a killed process left beside a destination; nobody else may be at work on it."""
    left = re.compile(rf"\.{re.escape(destination.name)}\.\d+-[0-9a-f]+\.partial")
    for path in destination.parent.iterdir() if destination.parent.is_dir() else ():
        if left.match(path.name):
            path.unlink(missing_ok=True)


def _plain_profile(place: Place) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "height": place.height,
        "width": place.width,
        "crs": place.crs,
        "transform": place.transform,
        "nodata": IGNORE_INDEX,
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "bigtiff": "if_safer",
        **_FAST,
    }


def _describe(writer: Any, place: Place, meaning: BandMeaning, tags: Mapping[str, str]) -> None:
    if meaning.palette is not None:
        table = color_table(meaning.palette)
        opaque = {value: (*map(int, table[value]), 255) for value in range(len(meaning.palette))}
        writer.write_colormap(1, {**opaque, IGNORE_INDEX: (0, 0, 0, 0)})
    writer.descriptions = (meaning.description,)
    writer.scales = (meaning.scale,)
    names = {f"CLASS_{number}": name for number, name in enumerate(meaning.categories)}
    writer.update_tags(1, **names, **(meaning.tags or {}))
    writer.update_tags(**tags)
    points, crs = place.points
    if points:
        writer.gcps = (points, crs)


def _with_rows(strips: Iterable[ByteArray]) -> Iterator[tuple[int, ByteArray]]:
    top = 0
    for strip in strips:
        yield top, strip
        top += len(strip)


def _compare(path: Path, strips: Iterable[ByteArray]) -> None:
    """Read a file back: libraries that write tiles late do not always say that a disk was full."""
    with rasterio.open(path) as reader:
        for top, strip in _with_rows(strips):
            if not np.array_equal(reader.read(1, window=Window(0, top, *strip.shape[::-1])), strip):
                raise OSError(errno.EIO, "holds something else than what was written", str(path))


def _category_names(names: Sequence[str]) -> str:
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    categories = ElementTree.SubElement(band, "CategoryNames")
    for name in names:
        ElementTree.SubElement(categories, "Category").text = name
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


@contextmanager
def _told_as_disk_error(destination: Path) -> Iterator[None]:
    """Tell errors of GDAL while it writes from those of files that it reads."""
    try:
        yield
    except RasterioError as error:
        raise OSError(errno.EIO, f"cannot be written as GeoTIFF ({error})", str(destination)) from error
