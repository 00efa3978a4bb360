"""LoveDA: satellite images of Chinese cities and countryside (Wang et al., NeurIPS 2021, data sets track).

Tiles of 1024 x 1024 pixels at 0.3 m; seven classes, of which background is a real, scored one. The published labels
store 0 = no data, 1..7 = classes. The published test split has no labels, hence results are reported on `val`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from segda.datasets.base import Sample, SegmentationDataset
from segda.datasets.labels import LabelCode
from segda.datasets.listing import find_images, find_labels
from segda.types import IGNORE_INDEX, Pixels

CLASSES = ("Background", "Building", "Road", "Water", "Barren", "Forest", "Agriculture")
PALETTE = (
    (255, 255, 255),
    (255, 0, 0),
    (255, 255, 0),
    (0, 0, 255),
    (159, 129, 183),
    (0, 255, 0),
    (255, 195, 128),
)
LAYOUT = "{Train,Val,Test}/{Urban,Rural}/{images_png,masks_png}/<number>.png (images also .tif; Test has no masks_png)"

_CODE = LabelCode(
    ids={0: IGNORE_INDEX} | {train_id + 1: train_id for train_id in range(len(CLASSES))},
    colors={(0, 0, 0): IGNORE_INDEX} | {color: train_id for train_id, color in enumerate(PALETTE)},
)

_COUNTS = {("urban", "train"): 1156, ("rural", "train"): 1366, ("urban", "val"): 677, ("rural", "val"): 992}


class LoveDA(SegmentationDataset):
    """LoveDA with the domains urban and rural."""

    name: ClassVar[str] = "loveda"
    classes: ClassVar[tuple[str, ...]] = CLASSES
    palette: ClassVar[tuple[tuple[int, int, int], ...]] = PALETTE
    domains: ClassVar[tuple[str, ...]] = ("urban", "rural")
    report_split: ClassVar[str] = "val"
    nadir: ClassVar[bool] = True
    terms: ClassVar[str] = (
        "CC BY-NC-SA 4.0, academic purposes only; the images are also subject to the terms of Google Earth"
    )
    url: ClassVar[str] = "https://github.com/Junjue-Wang/LoveDA"
    layout: ClassVar[str] = LAYOUT
    steps: ClassVar[tuple[str, ...]] = (
        "fetch Train.zip, Val.zip and Test.zip by the links in the README of the repository (Zenodo needs no account)",
        "unpack them into the root: Train, Val and Test then lie side by side",
    )

    def splits(self, domain: str) -> tuple[str, ...]:
        """Return train, val and test; test is published without labels."""
        return ("train", "val", "test")

    def list_samples(self, root: Path, *, domain: str, split: str) -> list[Sample]:
        """Find the tiles of a scene type in natural order of their numbers."""
        folder = root / split.capitalize() / domain.capitalize()
        images = find_images(folder / "images_png")
        if split == "test":
            return [Sample(name=name, image=image, label=None) for name, image in images.items()]
        labels = find_labels(folder / "masks_png", images)
        return [Sample(name=name, image=image, label=labels[name]) for name, image in images.items()]

    def decode_label(self, path: Path) -> Pixels:
        """Read a label: stored 0 becomes void (255), stored 1..7 become 0..6; class colors are read too, black as void."""
        return _CODE.read(path)

    def published_counts(self, root: Path) -> Mapping[tuple[str, str], int]:
        """Return the counts of train and val; for test only the sum is published."""
        return _COUNTS
