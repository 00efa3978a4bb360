"""SYNTHIA-RAND-CITYSCAPES: rendered streets in the classes of Cityscapes (Ros et al., CVPR 2016).

9,400 images of 1280 x 760 pixels. A label is a PNG of 16 bits per channel with the id in the first channel and the number of
the object in the second; programs that read pictures with 8 bits keep the upper half of each, which is 0. Terrain, truck and
train have ids but do not occur, so the mean IoU of a run with this source is over the other 16 classes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from segda.datasets import numbered
from segda.datasets.base import Sample, SegmentationDataset
from segda.datasets.cityscapes import CLASSES, NOT_IN_SYNTHIA, PALETTE, SCORINGS
from segda.datasets.labels import Color, train_ids
from segda.datasets.listing import find_images, find_labels
from segda.datasets.reading import read_channel
from segda.errors import CorruptSampleError
from segda.types import IGNORE_INDEX, Pixels

_NUMBERS = range(9_400)
# Id -> class of Cityscapes; 0 void, 13 parking and 14 road work are void.
_CLASS_OF_ID = {
    1: "sky",
    2: "building",
    3: "road",
    4: "sidewalk",
    5: "fence",
    6: "vegetation",
    7: "pole",
    8: "car",
    9: "traffic sign",
    10: "person",
    11: "bicycle",
    12: "motorcycle",
    15: "traffic light",
    16: "terrain",
    17: "rider",
    18: "truck",
    19: "bus",
    20: "train",
    21: "wall",
    22: "road",  # its markings
}
_IDS = dict.fromkeys(range(23), IGNORE_INDEX) | {number: CLASSES.index(name) for number, name in _CLASS_OF_ID.items()}


class Synthia(SegmentationDataset):
    """SYNTHIA-RAND-CITYSCAPES with the 19 classes of Cityscapes, of which it has 16. `numbered` says which images are val."""

    name: ClassVar[str] = "synthia"
    classes: ClassVar[tuple[str, ...]] = CLASSES
    palette: ClassVar[tuple[Color, ...]] = PALETTE
    domains: ClassVar[tuple[str, ...]] = ("all",)
    report_split: ClassVar[str] = "val"
    unscored: ClassVar[frozenset[int]] = NOT_IN_SYNTHIA
    scorings: ClassVar[Mapping[str, frozenset[int]]] = SCORINGS
    terms: ClassVar[str] = "non-commercial use, CC BY-NC-SA 3.0"
    url: ClassVar[str] = "https://synthia-dataset.net/downloads/"
    layout: ClassVar[str] = "RGB/<number>.png and GT/LABELS/<number>.png (16 bits per channel)"
    steps: ClassVar[tuple[str, ...]] = (
        "fetch SYNTHIA-RAND-CITYSCAPES (CVPR16) from the site",
        "unpack it; the root is the folder RAND_CITYSCAPES, in which RGB and GT lie",
        "never save its labels anew with a program for pictures: they lose their ids",
    )

    def splits(self, domain: str) -> tuple[str, ...]:
        """Return train and val."""
        return numbered.SPLITS

    def list_samples(self, root: Path, *, domain: str, split: str) -> list[Sample]:
        """Find the images of a split in the order of their numbers."""
        images = find_images(root / "RGB")
        labels = find_labels(root / "GT" / "LABELS", images)
        chosen = numbered.of_split(images, split)
        return [Sample(name=name, image=image, label=labels[name]) for name, image in chosen.items()]

    def decode_label(self, path: Path) -> Pixels:
        """Read a label: the first of its 16-bit channels is the id."""
        return train_ids(self.stored_ids(path), _IDS, path)

    def stored_ids(self, path: Path) -> npt.NDArray[np.unsignedinteger]:
        """Read the ids, uint16 [H, W].

        Raises:
            CorruptSampleError: the file has 8 bits, so that its ids are lost.
        """
        stored = read_channel(path, 1)
        if stored.dtype != np.uint16:
            raise CorruptSampleError(
                f"label {path}: expected 16 bits per channel, got 8: a program for pictures has saved it anew, and its ids are "
                "lost; take the published file"
            )
        return stored

    def published_counts(self, root: Path) -> Mapping[tuple[str, str], int]:
        """Return the counts of the fixed split of 9,400 images."""
        val = sum(map(numbered.is_val, _NUMBERS))
        return {("all", "train"): len(_NUMBERS) - val, ("all", "val"): val}
