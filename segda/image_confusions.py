"""The confusion matrix of each image of a labelled split, kept to ask what a figure would have been with other images.

Mostly zeros: some ten kilobytes for a hundred images.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segda.array_files import read_arrays, write_arrays

SOURCE_CONFUSIONS = "source_confusions.npz"  # source/val
ORACLE_CONFUSIONS = "oracle_confusions.npz"  # of what results are reported on: made from target labels


@dataclass(frozen=True, eq=False)
class ImageConfusions:
    """What a network said of each image of a labelled split.

    Attributes:
        counts: pixels of each image, int32 [N, C, C], rows are labels and columns predictions.
        unscored: train ids left out of the mean IoU.
        images: which images and classes these are; equal for networks that can be compared image by image.
    """

    counts: NDArray[np.int32]
    unscored: tuple[int, ...]
    images: str


def identity_of_images(*, fingerprint: str, size: tuple[int, int], classes: Sequence[str]) -> str:
    """Return what decides what confusion matrices of images are of: 32 hexadecimal digits.

    Args:
        fingerprint: of the split's files.
        size: height and width that images were scored at.
        classes: names of the train ids.
    """
    return hashlib.sha256(json.dumps([fingerprint, list(size), list(classes)]).encode()).hexdigest()[:32]


def write_image_confusions(path: Path, confusions: ImageConfusions) -> None:
    """Write confusion matrices to a file, which is replaced.

    Args:
        path: the file.
        confusions: what to write.
    """
    write_arrays(
        path,
        counts=confusions.counts,
        unscored=np.array(confusions.unscored, dtype=np.int64),
        images=np.str_(confusions.images),
    )


def read_image_confusions(path: Path) -> ImageConfusions:
    """Read what `write_image_confusions` wrote.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is damaged.
    """
    found = read_arrays(
        path,
        lambda content: ImageConfusions(
            content["counts"], tuple(int(train_id) for train_id in content["unscored"]), str(content["images"])
        ),
    )
    shape = found.counts.shape
    if found.counts.dtype != np.int32 or len(shape) != 3 or shape[1] != shape[2] or not shape[0]:
        raise ValueError(f"{path} is not what a training writes (counts int32 [N, C, C]); train again")
    return found
