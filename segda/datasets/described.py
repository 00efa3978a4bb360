"""A data set that a YAML file describes: classes, what labels store, where images lie, which bands of a raster are used.

The file stands wherever a data set's name does (`dataset: towns.yaml`). It is looked for beside the configuration, in the
working folder, and on nodes of a cluster in the same folders, which they must see. What it says is part of every fingerprint: a
run whose description has changed is another run, and images are decoded anew.
"""

import functools
import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from segda.config_file import read_document, validate
from segda.config_problems import LocatedError
from segda.datasets.bands import ImageBands, chosen_bands, image_bands
from segda.datasets.base import Sample, SegmentationDataset
from segda.datasets.labels import LabelCode, train_ids
from segda.datasets.listing import TIFF_SUFFIXES, find_images, find_labels
from segda.datasets.lists import Listed, listed_pairs
from segda.datasets.patterns import complete, find_pattern, place_of
from segda.datasets.reading import read_channel, read_stored_label
from segda.errors import CorruptSampleError, DatasetNotFoundError, UnknownNameError
from segda.guests import Guest, files_named
from segda.types import IGNORE_INDEX, Pixels

_SPLITS = ("train", "val", "test")
_MOST_IDS = 2**16
_Part255 = Annotated[int, Field(ge=0, le=255)]
_Color = tuple[_Part255, _Part255, _Part255]
_Id = Annotated[int, Field(ge=0, lt=_MOST_IDS)]
_Place = Annotated[str, Field(min_length=1)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ClassDescription(_Model):
    """One class; its place in the list is its train id."""

    name: str = Field(min_length=1)
    color: _Color = Field(description="red, green and blue, 0..255, in pictures and tables")
    ids: tuple[_Id, ...] = Field((), description="numbers that labels store for it")
    colors: tuple[_Color, ...] = Field((), description="further colors that labels store for it, besides `color`")
    scored: bool = Field(True, description="false: it is learned and left out of the mean IoU")


class LabelDescription(_Model):
    """What the pixels of label files say."""

    kind: Literal["ids", "colors"] = "ids"
    channel: int | None = Field(
        None, ge=1, description="which channel holds the ids, from 1 (red); unset: there is one"
    )
    void: tuple[_Id | _Color, ...] = Field((), description="ids or colors that say nothing about their pixels")
    others: Literal["void", "refused"] = Field("void", description="what ids and colors are that nobody lists")

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.kind == "colors" and self.channel is not None:
            raise LocatedError(("channel",), "colors are in all channels; leave it out, or say kind: ids")
        wrong = [value for value in self.void if isinstance(value, int) == (self.kind == "colors")]
        if wrong:
            raise LocatedError(("void",), f"must list {self.kind}, as `kind` says, got {wrong[0]}")
        return self


class BandDescription(_Model):
    """Which bands of a TIFF are the image, and how their values become 0..255."""

    numbers: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        description="bands taken for red, green and blue, from 1; a single one is taken for all three"
    )
    low: float | tuple[float, float, float] = Field(0.0, description="value that becomes 0, of all bands or of each")
    high: float | tuple[float, float, float] = Field(
        255.0, description="value that becomes 255; what lies beyond is cut off"
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if len(self.numbers) not in (1, 3):
            raise LocatedError(("numbers",), f"must be three bands or one, got {len(self.numbers)}")
        if any(low >= high for low, high in self.ranges):
            raise LocatedError(("high",), f"must be larger than low, got {self.low} and {self.high}")
        return self

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """Low and high of red, green and blue."""
        low, high = ((value,) * 3 if isinstance(value, float) else value for value in (self.low, self.high))
        return tuple(zip(low, high, strict=True))


class SplitDescription(_Model):
    """Where the images of a split lie, relative to the root."""

    images: _Place = Field(
        description="a folder, or a pattern in which each * stands for a part of the name, such as */images/*_rgb.tif"
    )
    labels: _Place | None = Field(
        None, description="the same for labels, with as many *; unset: the split has no labels"
    )
    list: _Place | None = Field(
        None, description="file of lines `image` or `image label`; the images of the folder that belong to the split"
    )
    count: int | None = Field(None, ge=1, description="how many images there must be, for `segda datasets verify`")

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        for key in ("images", "labels", "list"):
            place = getattr(self, key)
            if place is not None and (Path(place).is_absolute() or ".." in Path(place).parts):
                raise LocatedError((key,), f"must be a place under the root of the data set, got {place!r}")
        places = [place for place in (self.images, self.labels) if place is not None]
        for key, place in (("images", self.images), ("labels", self.labels)):
            if place is not None and ("**" in place or (self.list is not None and "*" in place)):
                why = (
                    "with a list, places are folders"
                    if self.list is not None
                    else "each * stands for a part of one name"
                )
                raise LocatedError((key,), f"{why}, got {place!r}")
        if len({complete(place).count("*") for place in places}) > 1:
            raise LocatedError(("labels",), f"must have as many * as images, got {self.labels!r} and {self.images!r}")
        return self


class DomainDescription(_Model):
    """The splits of a domain."""

    train: SplitDescription | None = None
    val: SplitDescription | None = None
    test: SplitDescription | None = None

    @property
    def splits(self) -> dict[str, SplitDescription]:
        """The splits that there are, in the order train, val, test."""
        found = {name: getattr(self, name) for name in _SPLITS}
        return {name: split for name, split in found.items() if split is not None}

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if not self.splits:
            raise ValueError("a domain needs at least one of the splits train, val and test")
        return self


class Description(_Model):
    """What the file says."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)
    classes: tuple[ClassDescription, ...] = Field(min_length=1, max_length=IGNORE_INDEX)
    labels: LabelDescription = LabelDescription()
    domains: dict[str, DomainDescription] = Field(min_length=1)
    bands: BandDescription | None = Field(None, description="for TIFF images that are more or other than 8-bit RGB")
    report_split: Literal["val", "test"] = "val"
    nadir: bool = Field(False, description="whether images look straight down, so that any rotation is a valid image")
    terms: str = "not stated in its description"
    url: str = "wherever its description came from"

    @model_validator(mode="after")
    def _classes_fit(self) -> Self:
        for key in ("name", "color"):
            _each_once((getattr(item, key), ("classes", place, key)) for place, item in enumerate(self.classes))
        stored = "ids" if self.labels.kind == "ids" else "colors"
        _each_once(
            (value, ("classes", place, stored))
            for place, item in enumerate(self.classes)
            for value in self._stored(item)
        )
        for place, item in enumerate(self.classes):
            if not self._stored(item):
                raise LocatedError(
                    ("classes", place), f"class {item.name} needs ids, the numbers that labels store for it"
                )
            taken = [value for value in self._stored(item) if value in self.labels.void]
            if taken:
                raise LocatedError(("classes", place, stored), f"{taken[0]} is void; take it out of one of the lists")
        if not any(item.scored for item in self.classes):
            raise LocatedError(("classes",), "at least one class must be scored")
        return self

    @model_validator(mode="after")
    def _something_is_reported(self) -> Self:
        splits = [domain.splits.get(self.report_split) for domain in self.domains.values()]
        if not any(split is not None and split.labels is not None for split in splits):
            raise LocatedError(
                ("report_split",),
                f"some domain must have the split {self.report_split} with labels, to report results on",
            )
        return self

    def _stored(self, item: ClassDescription) -> tuple[Any, ...]:
        return item.ids if self.labels.kind == "ids" else tuple(dict.fromkeys((item.color, *item.colors)))

    @property
    def meaning(self) -> dict[Any, int]:
        """Stored id or color -> train id or `IGNORE_INDEX`."""
        return dict.fromkeys(self.labels.void, IGNORE_INDEX) | {
            value: train_id for train_id, item in enumerate(self.classes) for value in self._stored(item)
        }

    def sha256(self) -> str:
        """Return a hash of what is said, however it is written."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def _each_once(values: Iterable[tuple[Any, tuple[str | int, ...]]]) -> None:
    seen = set()
    for value, location in values:
        if value in seen:
            raise LocatedError(location, f"{value!r} is there twice; give it to one class")
        seen.add(value)


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
        table = np.full(_MOST_IDS, IGNORE_INDEX, dtype=np.uint8)
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
