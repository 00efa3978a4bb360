"""What the file of a described data set may say; `segda.datasets.described` reads images and labels accordingly."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from segda.config_problems import LocatedError
from segda.datasets.patterns import complete
from segda.settings import Settings
from segda.types import IGNORE_INDEX

_SPLITS = ("train", "val", "test")
MOST_IDS = 2**16
_Part255 = Annotated[int, Field(ge=0, le=255)]
_Color = tuple[_Part255, _Part255, _Part255]
_Id = Annotated[int, Field(ge=0, lt=MOST_IDS)]
_Place = Annotated[str, Field(min_length=1)]


class ClassDescription(Settings):
    """One class; its place in the list is its train id."""

    name: str = Field(min_length=1)
    color: _Color = Field(description="red, green and blue, 0..255, in pictures and tables")
    ids: tuple[_Id, ...] = Field((), description="numbers that labels store for it")
    colors: tuple[_Color, ...] = Field((), description="further colors that labels store for it, besides `color`")
    scored: bool = Field(True, description="false: it is learned and left out of the mean IoU")


class LabelDescription(Settings):
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


class BandDescription(Settings):
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


class SplitDescription(Settings):
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


class DomainDescription(Settings):
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


class Description(Settings):
    """What the file says."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)
    classes: tuple[ClassDescription, ...] = Field(min_length=2, max_length=IGNORE_INDEX)
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
