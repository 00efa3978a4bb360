"""What a data set is: domains, splits, the classes that its labels are mapped to, and how one file is read.

A data set never opens more than the folder listing until a sample is decoded, and a label file is opened only by
`decode_label`: code that must not see target labels simply never calls it.
"""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from segda.catalog import DESCRIPTION_SUFFIXES
from segda.datasets.bands import ImageBands, image_bands
from segda.datasets.listing import (
    IMAGE_SUFFIXES,
    TIFF_SUFFIXES,
    UnreachableError,
    find_images,
    find_labels,
    reach,
    why_no_folder,
)
from segda.datasets.reading import read_image, read_stored_label
from segda.errors import CorruptSampleError, DatasetNotFoundError, SegdaError
from segda.files import expanded
from segda.names import nearest
from segda.types import Pixels

__all__ = [
    "IMAGE_SUFFIXES",
    "TIFF_SUFFIXES",
    "Pixels",
    "Sample",
    "SegmentationDataset",
    "check_image_exists",
    "check_label_exists",
    "find_images",
    "find_labels",
    "read_image",
    "resolve_root",
]


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
        scorings: further sets of scored classes that papers report, e.g. `16` -> train ids left out of the mean `miou_16`.
        nadir: whether images look straight down, so that any rotation is a valid image.
        terms: under which terms the data may be used.
        url: where to get the data.
        layout: what `root` must contain.
        steps: what to fetch, and what to unpack where.
    """

    name: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    palette: ClassVar[tuple[tuple[int, int, int], ...]]
    domains: ClassVar[tuple[str, ...]]
    report_split: ClassVar[str]
    unscored: ClassVar[frozenset[int]] = frozenset()
    scorings: ClassVar[Mapping[str, frozenset[int]]] = MappingProxyType({})
    nadir: ClassVar[bool] = False
    terms: ClassVar[str]
    url: ClassVar[str]
    layout: ClassVar[str]
    steps: ClassVar[tuple[str, ...]] = ()

    @property
    def identity(self) -> str:
        """What decides, beside the files, what is read of them: decoded images are kept and fingerprints made under it."""
        return self.name

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

    def scene(self, sample_name: str) -> str | None:
        """Return which scene or sequence a sample belongs to, e.g. a drive or a city; None: the data set cannot tell.

        Args:
            sample_name: name of a sample.
        """
        return None

    def decode_image(self, path: Path) -> Pixels:
        """Read an image file.

        Returns:
            uint8 [H, W, 3], RGB.

        Raises:
            CorruptSampleError: see `read_image`.
        """
        return read_image(path, self.bands_of)

    def bands_of(self, reader: Any, path: Path) -> ImageBands:
        """Return where the image is in an open raster, for training and prediction alike.

        Args:
            reader: of rasterio.
            path: the file, for messages.

        Raises:
            CorruptSampleError: it is not clear where, or not there.
        """
        return image_bands(reader, path)

    def stored_ids(self, path: Path) -> npt.NDArray[np.unsignedinteger[Any]] | None:
        """Read the numbers of a label file as they are stored, unsigned [H, W]; None if it is stored in colors.

        Raises:
            CorruptSampleError: the file cannot be read.
        """
        stored, _ = read_stored_label(path)
        return stored if stored.ndim == 2 else None

    def published_counts(self, root: Path) -> Mapping[tuple[str, str], int]:
        """Return how many images domain and split have where nothing is missing, as far as that is known.

        Args:
            root: its folder; another split may be chosen by what lies there.
        """
        return {}

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
        try:
            why = why_no_folder(root)
            if why:
                raise DatasetNotFoundError(
                    f"data set {self.name}: {root} {why}; {_ways_out(self.name)}; get it from {self.url}"
                )
            found = self.list_samples(root, domain=domain, split=split)
        except SegdaError:
            raise
        except OSError as error:
            place = error.filename or root
            raise DatasetNotFoundError(
                f"data set {self.name}: {place} cannot be read ({error.strerror}); see to the disk or the permissions"
            ) from error
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
        given = os.environ.get(root_variable(dataset_name))
        if not given:
            raise DatasetNotFoundError(f"where is data set {dataset_name}? {_ways_out(dataset_name)}")
        root = Path(given)
    root = expanded(root)
    why = why_no_folder(root)
    if why:
        raise DatasetNotFoundError(f"data set {dataset_name}: {root} {why}; {_ways_out(dataset_name)}")
    return root


def root_variable(dataset_name: str) -> str:
    """Return the environment variable that holds the folder of a data set."""
    # The name of a guest has a colon and perhaps points; a description is known by its file's name.
    is_file = dataset_name.endswith(DESCRIPTION_SUFFIXES)
    name = Path(dataset_name).stem if is_file else dataset_name
    return f"SEGDA_{re.sub(r'[^A-Z0-9_]', '_', name.upper())}_ROOT"


def _ways_out(dataset_name: str) -> str:
    return f"give its folder as `root`, or set the environment variable {root_variable(dataset_name)}"


def check_image_exists(sample: Sample) -> os.stat_result:
    """Return the state of an image file.

    Raises:
        CorruptSampleError: it cannot be reached; names it and says why.
    """
    try:
        return reach(sample.image)
    except UnreachableError as error:
        raise CorruptSampleError(
            f"image {sample.image} {error}; put it right, or remove it from the data set"
        ) from error


def check_label_exists(sample: Sample) -> os.stat_result:
    """Return the state of a label file, and refuse a sample whose label is not there.

    Raises:
        CorruptSampleError: names the image and the label file that was expected.
    """
    if sample.label is None:
        raise CorruptSampleError(
            f"image {sample.image} belongs to a split without labels; bring them, or use it as unlabelled target alone"
        )
    try:
        return reach(sample.label)
    except UnreachableError as error:
        raise CorruptSampleError(
            f"image {sample.image} has no label: expected {sample.label}, which {error}; add the label or remove the image"
        ) from error
