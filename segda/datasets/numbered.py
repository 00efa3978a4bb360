"""Splits of data sets whose images have numbers for names and that are published without a validation split.

Of every hundred numbers the last ten are validation. Numbers and not positions, so that a part of the data set is split as the
whole is; ten in a row, because neighbors in a drive show nearly the same, and a random split would have most of them on both
sides.
"""

from collections.abc import Mapping
from pathlib import Path

from segda.errors import CorruptSampleError, DatasetNotFoundError

SPLITS = ("train", "val")


def number_of(path: Path) -> int:
    """Return the number that an image has for a name.

    Raises:
        CorruptSampleError: the name is none.
    """
    if not (path.stem.isascii() and path.stem.isdecimal()):
        raise CorruptSampleError(f"image {path}: expected a number as its name; remove it from the data set")
    return int(path.stem)


def is_val(number: int) -> bool:
    """Tell whether an image is one of validation.

    Example:
        >>> [is_val(number) for number in (89, 90, 99, 100, 20895)]
        [False, True, True, False, True]
    """
    return number % 100 >= 90


def of_split(images: Mapping[str, Path], split: str) -> dict[str, Path]:
    """Return the images of a split.

    Args:
        images: name -> image.
        split: `train` or `val`.

    Raises:
        DatasetNotFoundError: of the images that there are, none is in it.
    """
    chosen = {name: path for name, path in images.items() if is_val(number_of(path)) == (split == "val")}
    if images and not chosen:
        raise DatasetNotFoundError(
            f"none of the {len(images)} images, such as {next(iter(images.values()))}, is in split {split}; numbers that end in "
            "90 to 99 are val, the others train: bring more of the data set"
        )
    return chosen
