"""What a trained network says of fixed pixels of the target's training images, kept to be compared with other networks.

Some ten kilobytes, by which networks that were trained anywhere, at any time, can be asked whether they agree.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segda.array_files import read_arrays, write_arrays
from segda.types import Pixels

TARGET_PREDICTION = "target_prediction.npz"


@dataclass(frozen=True, eq=False)
class TargetPrediction:
    """The predicted classes of fixed pixels.

    Attributes:
        classes: predicted train ids, uint8 [K].
        num_classes: C; ids are below it.
        pixels: which pixels these are, and which classes (`PixelSample.identity`); equal for predictions that can be compared.
    """

    classes: Pixels
    num_classes: int
    pixels: str


def write_target_prediction(path: Path, prediction: TargetPrediction) -> None:
    """Write a prediction to a file, which is replaced.

    Args:
        path: the file.
        prediction: what to write.
    """
    write_arrays(
        path,
        classes=prediction.classes,
        num_classes=np.int64(prediction.num_classes),
        pixels=np.str_(prediction.pixels),
    )


def read_target_prediction(path: Path) -> TargetPrediction:
    """Read what `write_target_prediction` wrote.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is damaged.
    """
    found = read_arrays(
        path,
        lambda content: TargetPrediction(content["classes"], int(content["num_classes"]), str(content["pixels"])),
    )
    classes = found.classes
    if classes.dtype != np.uint8 or classes.ndim != 1 or (classes.size and int(classes.max()) >= found.num_classes):
        raise ValueError(f"{path} is not what a training writes (train ids 0..{found.num_classes - 1}); train again")
    return found
