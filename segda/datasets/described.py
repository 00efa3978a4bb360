"""A data set that a YAML file describes: classes, what labels store, where images lie, which bands of a raster are used.

The file stands wherever a data set's name does (`dataset: towns.yaml`). It is looked for beside the configuration, in the
working folder, and on nodes of a cluster in the same folders, which they must see. What it says is part of every fingerprint: a
run whose description has changed is another run, and images are decoded anew.
"""

import functools
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from segda.config_file import read_document, validate
from segda.datasets.bands import ImageBands, chosen_bands, image_bands
from segda.datasets.base import Sample, SegmentationDataset
from segda.datasets.description import MOST_IDS, Description, SplitDescription
from segda.datasets.labels import LabelCode, train_ids
from segda.datasets.listing import TIFF_SUFFIXES, find_images, find_labels
from segda.datasets.lists import Listed, listed_pairs
from segda.datasets.patterns import find_pattern, place_of
from segda.datasets.reading import read_channel, read_stored_label
from segda.errors import CorruptSampleError, DatasetNotFoundError, UnknownNameError
from segda.guests import Guest, files_named
from segda.types import IGNORE_INDEX, Pixels


class DescribedDataset(SegmentationDataset):
    """A data set as its description says; each description makes a class of its own."""

    description: ClassVar[Description]
    domains: ClassVar[tuple[str, ...]]

    @property
    def identity(self) -> str:
        """Name and content of the description."""
        return f"{self.name}-{self.description.sha256()[:16]}"

    def splits(self, domain: str) -> tuple[str, ...]:
        """Return the splits that the description has; see `SegmentationDataset.splits`."""
        return tuple(self.description.domains[domain].splits)

    def list_samples(self, root: Path, *, domain: str, split: str) -> list[Sample]:
        """Find the images of a split; see `SegmentationDataset.list_samples`."""
        described = self.description.domains[domain].splits[split]
        if described.list is not None:
            return _listed(root, described, described.list)
        if "*" in f"{described.images}{described.labels}":
            return _matched(root, described)
        images = find_images(root / described.images)
        labels: Mapping[str, Path] = find_labels(root / described.labels, images) if described.labels else {}
        return [Sample(name=name, image=image, label=labels.get(name)) for name, image in images.items()]

    def decode_label(self, path: Path) -> Pixels:
        """Read a label as the description says; see `SegmentationDataset.decode_label`."""
        labels = self.description.labels
        if labels.kind == "colors":
            return self._colors.from_colors(_stored_colors(path), path)
        stored = self._ids(path)
        if labels.others == "refused":
            return train_ids(stored, self.description.meaning, path)
        table = np.full(MOST_IDS, IGNORE_INDEX, dtype=np.uint8)
        table[list(self.description.meaning)] = list(self.description.meaning.values())
        result: Pixels = table[stored]
        return result

    def stored_ids(self, path: Path) -> npt.NDArray[np.unsignedinteger[Any]] | None:
        """Read the ids, unsigned [H, W]; None for colors."""
        return self._ids(path) if self.description.labels.kind == "ids" else None

    def decode_image(self, path: Path) -> Pixels:
        """Read an image, of a TIFF the bands of the description; see `SegmentationDataset.decode_image`."""
        if self.description.bands is not None and path.suffix.lower() not in TIFF_SUFFIXES:
            raise CorruptSampleError(f"image {path}: its description names bands of a TIFF; take `bands` out of it")
        return super().decode_image(path)

    def bands_of(self, reader: Any, path: Path) -> ImageBands:
        """Return the bands of the description, or those that the file says; see `SegmentationDataset.bands_of`."""
        bands = self.description.bands
        return image_bands(reader, path) if bands is None else chosen_bands(reader, path, bands.numbers, bands.ranges)

    def published_counts(self, root: Path) -> Mapping[tuple[str, str], int]:
        """Return the counts of the description."""
        return {
            (name, split): described.count
            for name, domain in self.description.domains.items()
            for split, described in domain.splits.items()
            if described.count is not None
        }

    def _ids(self, path: Path) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        return read_channel(path, self.description.labels.channel)

    @functools.cached_property
    def _colors(self) -> LabelCode:
        refused = self.description.labels.others == "refused"
        return LabelCode(colors=self.description.meaning, others_are_void=not refused)


def _stored_colors(path: Path) -> Pixels:
    """Read the colors of a label, uint8 [H, W, 3]."""
    stored, table = read_stored_label(path)
    if stored.ndim == 3:
        return stored
    if table is None:
        raise CorruptSampleError(f"label {path}: its description says colors, it stores numbers; say `kind: ids`")
    if int(stored.max(initial=0)) >= len(table):
        raise CorruptSampleError(f"label {path}: value {stored.max()} is beyond its table of {len(table)} colors")
    colors: Pixels = table[stored]
    return colors


def _listed(root: Path, described: SplitDescription, list_file: str) -> list[Sample]:
    images = Listed(root, root / described.images)
    labels = Listed(root, root / (described.labels or described.images))
    samples: dict[str, Sample] = {}
    for number, image, label in listed_pairs(root / list_file, images=images, labels=labels):
        if image.stem in samples:
            raise CorruptSampleError(
                f"{root / list_file}:{number} lists image {image.stem} a second time; remove the line"
            )
        if described.labels is None:
            label = None
        elif label is None:
            label = labels.find(image.stem) or root / described.labels / f"{image.stem}.png"
        samples[image.stem] = Sample(name=image.stem, image=image, label=label)
    return list(samples.values())


def _matched(root: Path, described: SplitDescription) -> list[Sample]:
    images = find_pattern(root, described.images, look=True)
    if described.labels is None:
        return [Sample(name=name, image=image, label=None) for name, image in images.items()]
    labels: dict[str, Path] = {}
    with suppress(DatasetNotFoundError):  # who asks for a label is told; others need none
        labels = find_pattern(root, described.labels, look=False)
    alone = next((label for name, label in labels.items() if name not in images), None)
    if alone is not None:
        raise CorruptSampleError(
            f"label {alone} has no image: bring the image of that name back, or remove the label from the data set"
        )
    usual = functools.partial(place_of, described.labels)
    return [
        Sample(name=name, image=image, label=labels.get(name, root / usual(name))) for name, image in images.items()
    ]


def described_dataset(name: str) -> tuple[SegmentationDataset, Guest]:
    """Read a description.

    Args:
        name: path of the file, absolute or relative to the folders that `segda.guests` looks into.

    Raises:
        UnknownNameError: there is no such file.
        ConfigError: it cannot be used, or there are several that differ; says file and line.
    """
    found = files_named(name)
    if not found:
        raise UnknownNameError(
            f"unknown data set {name!r}: there is no such file beside the configuration or in the working folder; correct the path"
        )
    kinds = [_read(path, path.stat().st_mtime_ns, path.stat().st_size) for path in found]
    if len({kind.identity for kind in kinds}) > 1:
        raise UnknownNameError(f"data set {name!r} may be {found[0]} or {found[1]}, which differ; give the whole path")
    described = kinds[0].description
    return kinds[0], Guest(name=name, module=described.name, package=None, sha256=described.sha256())


@functools.lru_cache(maxsize=64)
def _read(path: Path, modified: int, size: int) -> DescribedDataset:
    """Read a file once for as long as it stays as it is."""
    description = validate(read_document(path), Description)
    places = [
        place
        for domain in description.domains.values()
        for split in domain.splits.values()
        for place in (split.images, split.labels)
        if place is not None
    ]
    attributes = {
        "description": description,
        "name": description.name,
        "classes": tuple(item.name for item in description.classes),
        "palette": tuple(item.color for item in description.classes),
        "domains": tuple(description.domains),
        "report_split": description.report_split,
        "unscored": frozenset(place for place, item in enumerate(description.classes) if not item.scored),
        "nadir": description.nadir,
        "terms": description.terms,
        "url": description.url,
        "layout": f"{', '.join(dict.fromkeys(places))}, as {path.name} says",
    }
    kind: type[DescribedDataset] = type("Described", (DescribedDataset,), attributes)
    return kind()
