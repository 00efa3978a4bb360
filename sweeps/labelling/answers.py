"""A label that somebody has made or has given: read, and refused in one line where it is none."""

from pathlib import Path

import numpy as np

from segda.datasets.base import Sample, SegmentationDataset
from segda.datasets.reading import read_stored_label
from segda.errors import ConfigError
from segda.types import IGNORE_INDEX, Pixels
from sweeps.labelling.folder import AskedImage


def given_file(folder: Path, sample: Sample) -> Path | None:
    """Return the label of an image in a folder that the user names; None if there is none.

    That of the data set itself if the folder has it, else a file with the image's name.

    Args:
        folder: the folder, absolute.
        sample: the image.
    """
    if is_own(folder, sample) and sample.label is not None and sample.label.is_file():
        return sample.label
    path = folder / f"{sample.name}.png"
    return path if path.is_file() else None


def is_own(folder: Path, sample: Sample) -> bool:
    """Return whether the data set's own label of an image lies in a folder."""
    return sample.label is not None and sample.label.resolve().is_relative_to(folder)


def read_answer(path: Path, image: AskedImage, dataset: SegmentationDataset) -> Pixels:
    """Read the label of an image, train ids.

    Args:
        path: a PNG of one channel.
        image: what it is the label of.
        dataset: has the classes; ids are below their number, or 255.

    Returns:
        uint8 [H, W].

    Raises:
        CorruptSampleError: the file cannot be read.
        ConfigError: it is no such label; names the file, what was expected and what came.
    """
    num_classes = len(dataset.classes)
    stored, _ = read_stored_label(path)
    if stored.ndim != 2:
        raise ConfigError(
            f"label {path} is in colors, expected one channel of train ids 0..{num_classes - 1} or {IGNORE_INDEX}; save it indexed "
            "or gray"
        )
    return _checked(stored, path, image, num_classes=num_classes)


def read_own(path: Path, image: AskedImage, dataset: SegmentationDataset) -> Pixels:
    """Read the label of an image as the data set itself has it; see `read_answer`.

    Args:
        path: the data set's file.
        image: what it is the label of.
        dataset: says what its values mean.
    """
    return _checked(dataset.decode_label(path), path, image, num_classes=len(dataset.classes))


def _checked(label: Pixels, path: Path, image: AskedImage, *, num_classes: int) -> Pixels:
    if label.shape != (image.height, image.width):
        raise ConfigError(
            f"label {path} is {label.shape[1]}x{label.shape[0]} pixels, expected the {image.width}x{image.height} of {image.path}; "
            "make it of that size"
        )
    strange = np.setdiff1d(label, [*range(num_classes), IGNORE_INDEX])
    if strange.size:
        raise ConfigError(
            f"label {path} has the values {', '.join(map(str, strange[:5]))}, expected train ids 0..{num_classes - 1} or "
            f"{IGNORE_INDEX} for void; see the table in README.md"
        )
    if not np.any(label != IGNORE_INDEX):
        raise ConfigError(f"label {path} is void alone, expected classes; label what can be seen, or take it away")
    return label
