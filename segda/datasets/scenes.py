"""Procedural two-domain land cover: data that the demo and the tests make themselves, laid out like LoveDA.

Urban tiles (street grid, dense houses, summer haze, 0.6 m per pixel) and rural ones (fields, woods, few farms, dry autumn,
1 m per pixel) share LoveDA's seven classes but neither class shares nor colors: a small model of adapting from city to
country. Every tile is made from (seed, domain, split, its position in the split) alone, so tiles do not depend on each other.
"""

import json
import logging
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from segda.datasets.base import Sample
from segda.datasets.landscape.geometry import Domain
from segda.datasets.landscape.layout import lay_out
from segda.datasets.landscape.rendering import render
from segda.datasets.listing import why_no_folder
from segda.datasets.loveda import CLASSES, PALETTE, LoveDA
from segda.errors import ConfigError, DatasetNotFoundError

logger = logging.getLogger(__name__)

ImageFormat = Literal["png", "tif"]

# Raised when the same arguments make other pixels: folders made before are then refused instead of mixed up.
VERSION = 1
GSD_M: dict[Domain, float] = {"urban": 0.6, "rural": 1.0}

_SPLITS = ("train", "val")
_MANIFEST = "scenes.json"
_SMALLEST = 32
_CRS = "EPSG:32632"
# Corner of the first tile of each domain in that projection, meters; tiles follow each other eastwards without overlap.
_ORIGIN: dict[Domain, tuple[float, float]] = {"urban": (500_000.0, 5_300_000.0), "rural": (500_000.0, 5_400_000.0)}


@dataclass(frozen=True)
class Scene:
    """One tile.

    Attributes:
        image: RGB, uint8 [H, W, 3]; 0 where there is no data.
        label_raw: class ids as LoveDA stores them, uint8 [H, W]: 0 no data, 1..7 the classes.
        gsd_m: ground sampling distance, meters per pixel.
    """

    image: NDArray[np.uint8]
    label_raw: NDArray[np.uint8]
    gsd_m: float


def generate_scene(domain: Domain, rng: np.random.Generator, size: int) -> Scene:
    """Make one tile.

    Args:
        domain: "urban" or "rural".
        rng: source of randomness; its state decides everything.
        size: height and width in pixels, at least 32; a larger tile shows more land at the same scale.

    Returns:
        The tile.

    Raises:
        ConfigError: no such domain, or too small.

    Example:
        >>> generate_scene("rural", np.random.default_rng(0), 64).image.shape
        (64, 64, 3)
    """
    if domain not in GSD_M:
        raise ConfigError(f"scenes have the domains {', '.join(GSD_M)}, got {domain!r}")
    if size < _SMALLEST:
        raise ConfigError(f"the size of a scene must be at least {_SMALLEST} pixels, got {size}")
    layout = lay_out(domain, rng, size=size, gsd_m=GSD_M[domain])
    return Scene(render(layout, domain, rng), layout.label, layout.gsd_m)


def generate_scenes(
    root: Path,
    *,
    size: int = 256,
    train: int = 40,
    val: int = 16,
    seed: int = 0,
    image_format: ImageFormat = "png",
    progress: bool = False,
) -> Path:
    """Make the data set as files, `{Train,Val}/{Urban,Rural}/{images_png,masks_png}/<number>.<png or tif>`.

    The same arguments give the same bytes with the same library versions, and a longer split starts with the same tiles as
    a shorter one. Everything is written beside `root` and renamed at the end: `root` is complete or absent. A killed run
    leaves a folder `.<name>.<random>.partial` beside it that may be deleted.

    Args:
        root: folder to make; an empty one is replaced.
        size: height and width of a tile in pixels, at least 32.
        train: number of training tiles of each domain.
        val: number of validation tiles of each domain.
        seed: any number from 0.
        image_format: "png", or "tif" for GeoTIFF with projection, transform and a color table on the masks.
        progress: show a progress bar.

    Returns:
        `root`. If it already holds this data set, nothing is done.

    Raises:
        ConfigError: an argument out of range, or `root` holds something else.
    """
    for name, value, smallest in (("size", size, _SMALLEST), ("train", train, 1), ("val", val, 1), ("seed", seed, 0)):
        if value < smallest:
            raise ConfigError(f"scenes: {name} must be at least {smallest}, got {value}")
    if image_format not in get_args(ImageFormat):
        raise ConfigError(
            f"scenes: image format must be one of {', '.join(get_args(ImageFormat))}, got {image_format!r}"
        )
    arguments = {"size": size, "train": train, "val": val, "seed": seed, "image_format": image_format}
    manifest = {"generator": "scenes", "version": VERSION, "arguments": arguments}
    if _is_finished(root, manifest):
        return root
    # Through links, so that the renaming stays on one file system and keeps the link.
    home = root.resolve()
    home.parent.mkdir(parents=True, exist_ok=True)
    partial = home.with_name(f".{home.name}.{uuid.uuid4().hex}.partial")
    try:
        tiles = list(_tiles(train, val))
        for tile in track(tiles, description="scenes", disable=not progress):
            _write(partial, tile, seed=seed, size=size, image_format=image_format)
        (partial / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        try:
            partial.rename(home)
        except OSError as error:
            # Another process may have finished the same folder first.
            if not _is_finished(root, manifest):
                raise ConfigError(
                    f"scenes: cannot make {root} ({error.strerror}); choose a folder that is new"
                ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    logger.info("made %d scenes in %s", len(tiles), root)
    return root


def _is_finished(root: Path, manifest: dict[str, Any]) -> bool:
    """Tell whether `root` holds this data set; refuse a folder that holds anything else."""
    if not root.exists():
        return False
    if not root.is_dir():
        raise ConfigError(f"scenes: {root} is a file; choose another folder")
    path = root / _MANIFEST
    if not path.is_file():
        if any(root.iterdir()):
            raise ConfigError(f"scenes: {root} holds other files and no {_MANIFEST}; choose a new or empty folder")
        return False
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"scenes: {path} is not readable ({error}); delete {root} to make it again") from error
    if found != manifest:
        raise ConfigError(
            f"scenes: {root} was made with {_summary(found)}, asked for {_summary(manifest)}; "
            "choose another folder or delete this one"
        )
    return True


def _summary(manifest: Any) -> str:
    """Write a manifest in a line: `version 1, size 256, ...`."""
    if not isinstance(manifest, dict) or not isinstance(manifest.get("arguments"), dict):
        return "something else"
    pairs = {"version": manifest.get("version"), **manifest["arguments"]}
    return ", ".join(f"{key} {value}" for key, value in pairs.items())


@dataclass(frozen=True)
class _Tile:
    """Where a tile belongs: `index` counts within domain and split, `number` over the data set."""

    domain: Domain
    split: str
    index: int
    number: int


def _tiles(train: int, val: int) -> Iterator[_Tile]:
    number = 0
    for split, count in zip(_SPLITS, (train, val), strict=True):
        for domain in GSD_M:
            for index in range(count):
                yield _Tile(domain, split, index, number)
                number += 1


def _write(root: Path, tile: _Tile, *, seed: int, size: int, image_format: ImageFormat) -> None:
    key = (seed, list(GSD_M).index(tile.domain), _SPLITS.index(tile.split), tile.index)
    scene = generate_scene(tile.domain, np.random.default_rng(key), size)
    folder = root / tile.split.capitalize() / tile.domain.capitalize()
    image, mask = (folder / kind / f"{tile.number}.{image_format}" for kind in ("images_png", "masks_png"))
    image.parent.mkdir(parents=True, exist_ok=True)
    mask.parent.mkdir(parents=True, exist_ok=True)
    if image_format == "png":
        Image.fromarray(scene.image).save(image)
        # Gray like LoveDA's own masks: the value is the class id.
        Image.fromarray(scene.label_raw).save(mask)
        return
    east, north = _ORIGIN[tile.domain]
    gsd = scene.gsd_m
    transform = rasterio.Affine(gsd, 0, east + tile.number * size * gsd, 0, -gsd, north)
    _write_geotiff(image, scene.image.transpose(2, 0, 1), transform)
    _write_geotiff(mask, scene.label_raw[None], transform)


def _write_geotiff(path: Path, bands: NDArray[np.uint8], transform: Any) -> None:
    """Write bands uint8 [N, H, W]; a single one is a mask and gets the classes' colors."""
    colors = "RGB" if len(bands) == 3 else "PALETTE"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(bands),
        height=bands.shape[1],
        width=bands.shape[2],
        dtype="uint8",
        crs=_CRS,
        transform=transform,
        nodata=0,
        compress="deflate",
        photometric=colors,
    ) as raster:
        raster.write(bands)
        if colors == "PALETTE":
            raster.write_colormap(1, {0: (0, 0, 0, 255)} | {n + 1: (*rgb, 255) for n, rgb in enumerate(PALETTE)})
            raster.update_tags(1, **{f"class_{number + 1}": name for number, name in enumerate(CLASSES)})


class Scenes(LoveDA):
    """The procedural scenes, read like LoveDA."""

    name: ClassVar[str] = "scenes"
    report_split: ClassVar[str] = "val"
    terms: ClassVar[str] = "made by this library; free of any terms"
    url: ClassVar[str] = "`segda datasets make scenes <root>`"
    layout: ClassVar[str] = (
        f"{{Train,Val}}/{{Urban,Rural}}/{{images_png,masks_png}}/<number>.png (or .tif) and {_MANIFEST}, "
        "as `segda datasets make scenes <root>` writes it"
    )
    steps: ClassVar[tuple[str, ...]] = ("make it: `segda datasets make scenes <root>`",)

    def splits(self, domain: str) -> tuple[str, ...]:
        """Return train and val; both have labels."""
        return _SPLITS

    def published_counts(self, root: Path) -> Mapping[tuple[str, str], int]:
        """Return nothing: as many tiles as were asked for."""
        return {}

    def samples(self, root: Path, *, domain: str, split: str) -> list[Sample]:
        """Return the tiles of a split in the order of their numbers.

        Args:
            root: folder that `generate_scenes` made.
            domain: "urban" or "rural".
            split: "train" or "val".

        Raises:
            DatasetNotFoundError: no such domain or split, or `root` has not been made.
        """
        self.check_split(domain=domain, split=split)
        why = why_no_folder(root)
        if why:
            raise DatasetNotFoundError(
                f"data set {self.name}: {root} {why}; `segda datasets make scenes {root}` makes it"
            )
        return super().samples(root, domain=domain, split=split)
