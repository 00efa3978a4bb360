"""What a data set is: domains, splits, the classes that its labels are mapped to, and how one file is read.

A data set never opens more than the folder listing until a sample is decoded, and a label file is opened only by
`decode_label`: code that must not see target labels simply never calls it.
"""

import os
import re
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image, UnidentifiedImageError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from segda.errors import CorruptSampleError, DatasetNotFoundError
from segda.names import nearest
from segda.types import IGNORE_INDEX

Pixels = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
TIFF_SUFFIXES = (".tif", ".tiff")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH_OFFSET = 24
# Filters of warnings belong to the process, so two threads must not change and restore them at the same time.
_WARNING_FILTERS = threading.Lock()


@dataclass(frozen=True)
class Sample:
    """One image and where its label is.

    Attributes:
        name: name within the data set, unique in its split, without suffix.
        image: image file.
        label: label file; None where the split is published without labels. The file may be absent if nobody
            asks for labels.
    """

    name: str
    image: Path
    label: Path | None


class SegmentationDataset(ABC):
    """A semantic-segmentation data set on disk.

    Attributes:
        name: key in `segda.datasets.DATASETS`.
        classes: class names; the position is the train id.
        palette: RGB color of each class, 0..255.
        domains: parts that differ in appearance, between which one adapts.
        report_split: labelled split that results are reported on.
        unscored: train ids that are learned but left out of the mean IoU.
        nadir: whether images look straight down, so that any rotation is a valid image.
        terms: under which terms the data may be used.
        url: where to get the data.
        layout: what `root` must contain.
    """

    name: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    palette: ClassVar[tuple[tuple[int, int, int], ...]]
    domains: ClassVar[tuple[str, ...]]
    report_split: ClassVar[str]
    unscored: ClassVar[frozenset[int]] = frozenset()
    nadir: ClassVar[bool] = False
    terms: ClassVar[str]
    url: ClassVar[str]
    layout: ClassVar[str]

    @abstractmethod
    def splits(self, domain: str) -> tuple[str, ...]:
        """Return the splits that a domain has, in the order train, val, test.

        Args:
            domain: one of `domains`.
        """

    @abstractmethod
    def list_samples(self, root: Path, *, domain: str, split: str) -> list[Sample]:
        """Find the samples of a split; `samples` has already checked root, domain and split.

        Raises:
            DatasetNotFoundError: a folder or list file is missing.
        """

    @abstractmethod
    def decode_label(self, path: Path) -> Pixels:
        """Read a label file as train ids.

        Args:
            path: label file of a sample.

        Returns:
            uint8 [H, W], 0..C-1 and `IGNORE_INDEX` for void.

        Raises:
            CorruptSampleError: the file cannot be read or holds a value that the data set does not know.
        """

    def decode_image(self, path: Path) -> Pixels:
        """Read an image file.

        Returns:
            uint8 [H, W, 3], RGB.

        Raises:
            CorruptSampleError: see `read_image`.
        """
        return read_image(path)

    def samples(self, root: Path, *, domain: str, split: str) -> list[Sample]:
        """Return the samples of a split in a fixed order.

        Args:
            root: folder of the data set, laid out as `layout` says.
            domain: one of `domains`.
            split: one of `splits(domain)`.

        Raises:
            DatasetNotFoundError: no such domain or split, or root or a part of it is missing or empty.
        """
        self.check_split(domain=domain, split=split)
        if not root.is_dir():
            raise DatasetNotFoundError(
                f"data set {self.name}: {root} is not a folder; {_ways_out(self.name)}; get it from {self.url}"
            )
        found = self.list_samples(root, domain=domain, split=split)
        if not found:
            raise DatasetNotFoundError(
                f"data set {self.name}: {root} has no image of domain {domain!r}, split {split!r}; "
                f"expected {self.layout}"
            )
        return found

    def check_split(self, *, domain: str, split: str) -> None:
        """Refuse a domain or split that the data set does not have.

        Raises:
            DatasetNotFoundError: names what exists and the nearest name.
        """
        if domain not in self.domains:
            raise DatasetNotFoundError(
                f"data set {self.name} has no domain {domain!r}{nearest(domain, self.domains)}; "
                f"it has: {', '.join(self.domains)}"
            )
        splits = self.splits(domain)
        if split not in splits:
            raise DatasetNotFoundError(
                f"data set {self.name}, domain {domain!r}, has no split {split!r}{nearest(split, splits)}; "
                f"it has: {', '.join(splits)}"
            )

    def read(self, sample: Sample, *, with_label: bool) -> tuple[Pixels, Pixels | None]:
        """Decode one sample.

        Args:
            sample: what to read.
            with_label: whether to open the label file.

        Returns:
            Image uint8 [H, W, 3] and label uint8 [H, W], or None without `with_label`.

        Raises:
            CorruptSampleError: a file is missing or damaged, or image and label differ in size.
        """
        image = self.decode_image(sample.image)
        if not with_label:
            return image, None
        check_label_exists(sample)
        assert sample.label is not None
        label = self.decode_label(sample.label)
        if image.shape[:2] != label.shape:
            raise CorruptSampleError(
                f"image {sample.image} is {image.shape[1]}x{image.shape[0]} pixels but its label {sample.label} is "
                f"{label.shape[1]}x{label.shape[0]}; replace one of them"
            )
        return image, label


def resolve_root(dataset_name: str, root: Path | None) -> Path:
    """Return the folder of a data set: the given one, else the one in `SEGDA_<NAME>_ROOT`.

    Args:
        dataset_name: name of the data set.
        root: folder given by the user, or None.

    Raises:
        DatasetNotFoundError: neither is set, or the folder does not exist.
    """
    if root is None:
        given = os.environ.get(_root_variable(dataset_name))
        if not given:
            raise DatasetNotFoundError(f"where is data set {dataset_name}? {_ways_out(dataset_name)}")
        root = Path(given)
    root = root.expanduser()
    if not root.is_dir():
        raise DatasetNotFoundError(f"data set {dataset_name}: {root} is not a folder; {_ways_out(dataset_name)}")
    return root


def _root_variable(dataset_name: str) -> str:
    return f"SEGDA_{dataset_name.upper()}_ROOT"


def _ways_out(dataset_name: str) -> str:
    return f"give its folder as `root`, or set the environment variable {_root_variable(dataset_name)}"


def check_label_exists(sample: Sample) -> None:
    """Refuse a sample whose label file is not there.

    Raises:
        CorruptSampleError: names the image and the label file that was expected.
    """
    if sample.label is None:
        raise CorruptSampleError(f"image {sample.image} belongs to a split without labels; use it as unlabelled target")
    if not sample.label.is_file():
        raise CorruptSampleError(
            f"image {sample.image} has no label: expected {sample.label}; add the label or remove the image"
        )


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
