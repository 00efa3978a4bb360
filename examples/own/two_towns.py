"""A data set of one's own: images and labels in folders, one pair of folders for each domain and split."""

from pathlib import Path
from typing import ClassVar

from segda.datasets import Sample, SegmentationDataset
from segda.datasets.labels import LabelCode
from segda.datasets.listing import find_images, find_labels
from segda.types import IGNORE_INDEX, Pixels


class TwoTowns(SegmentationDataset):
    """Photos of two towns. A label is a gray or indexed PNG of the image's name, with the train id of each pixel and 255 for void.

    To read folders of your own, change the attributes.
    """

    name: ClassVar[str] = "two_towns"
    classes: ClassVar[tuple[str, ...]] = ("ground", "building", "road", "water", "barren", "forest", "field")
    palette: ClassVar[tuple[tuple[int, int, int], ...]] = (
        (200, 200, 200),
        (220, 20, 60),
        (128, 64, 128),
        (70, 130, 180),
        (150, 120, 90),
        (34, 139, 34),
        (240, 220, 80),
    )
    # Labels that are stored in other numbers would be translated here. Colors tell a decorated label from one that they make.
    code: ClassVar[LabelCode] = LabelCode(
        ids={number: number for number in (*range(len(classes)), IGNORE_INDEX)},
        colors=dict(zip(palette, range(len(classes)), strict=True)),
    )
    domains: ClassVar[tuple[str, ...]] = ("old_town", "new_town")
    report_split: ClassVar[str] = "val"
    terms: ClassVar[str] = "our own photos"
    url: ClassVar[str] = "file:///data/two_towns"
    layout: ClassVar[str] = "<domain>/<split>/images/<name>.png and <domain>/<split>/labels/<name>.png"

    def splits(self, domain: str) -> tuple[str, ...]:
        """Return the splits; see `SegmentationDataset.splits`."""
        return ("train", "val")

    def list_samples(self, root: Path, *, domain: str, split: str) -> list[Sample]:
        """List the images of a folder; see `SegmentationDataset.list_samples`."""
        folder = root / domain / split
        images = find_images(folder / "images")
        labels = find_labels(folder / "labels", images)
        return [Sample(name=name, image=image, label=labels[name]) for name, image in images.items()]

    def decode_label(self, path: Path) -> Pixels:
        """Read train ids; see `SegmentationDataset.decode_label`."""
        return self.code.read(path)
