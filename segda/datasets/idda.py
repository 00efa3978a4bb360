"""IDDA: drives through CARLA's towns (Alberti et al., RA-L 2020) as a source for `camvid12`.

Read as the adaptation studies lay it out. The label's red channel holds one of 27 ids. The two data sets do not mean quite the
same: here the bicycle alone is Bicyclist and its rider is Void, in CamVid both are Bicyclist; here lane markings are Road,
there they are Void. That bounds what any network reaches.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from segda.datasets.base import Sample, SegmentationDataset
from segda.datasets.camvid import CamVid12
from segda.datasets.labels import Color, train_ids
from segda.datasets.listing import find_images, find_labels
from segda.datasets.reading import read_channel
from segda.types import Pixels

# Id -> name in IDDA, class in CamVid; the position is the id.
_CLASS_OF_ID = (
    ("unlabeled", "Void"),
    ("building", "Building"),
    ("fence", "Fence"),
    ("other", "Void"),
    ("pedestrian", "Pedestrian"),
    ("pole", "Column_Pole"),
    ("road line", "Road"),
    ("road", "Road"),
    ("sidewalk", "Sidewalk"),
    ("vegetation", "Tree"),
    ("car", "Car"),
    ("wall", "Void"),
    ("traffic sign", "SignSymbol"),
    ("traffic light", "Void"),
    ("guardrail", "Void"),
    ("dynamic", "Void"),
    ("bicycle", "Bicyclist"),
    ("motorcycle", "Void"),
    ("rider", "Void"),
    ("terrain", "Void"),
    ("sky", "Sky"),
    ("rail track", "Void"),
    ("ground", "Void"),
    ("static", "Void"),
    ("bridge", "Building"),
    ("water", "Void"),
    ("truck", "Void"),
)
_IDS = {number: CamVid12.classes.index(name) for number, (_, name) in enumerate(_CLASS_OF_ID)}
_VAL_SHARE = 10  # one in so many


class IDDA(SegmentationDataset):
    """IDDA as a source for `camvid12`; Void is the ordinary class 11, learned but not scored.

    There is no published validation split: the last tenth of the images, in the natural order of their names, is val.
    """

    name: ClassVar[str] = "idda"
    classes: ClassVar[tuple[str, ...]] = CamVid12.classes
    palette: ClassVar[tuple[Color, ...]] = CamVid12.palette
    domains: ClassVar[tuple[str, ...]] = ("all",)
    report_split: ClassVar[str] = "val"
    unscored: ClassVar[frozenset[int]] = CamVid12.unscored
    terms: ClassVar[str] = "research; given by its authors on request"
    url: ClassVar[str] = "https://idda-dataset.github.io/home/"
    layout: ClassVar[str] = "rgb/<name>.jpg and labels/<name>.png (the id in the red channel)"
    steps: ClassVar[tuple[str, ...]] = (
        "ask for the towns and weathers that you want by the form on the site; nothing is to be had without it",
        "put all images into rgb and all labels into labels under the root; image and label have one name",
    )

    def splits(self, domain: str) -> tuple[str, ...]:
        """Return train and val."""
        return ("train", "val")

    def list_samples(self, root: Path, *, domain: str, split: str) -> list[Sample]:
        """Find the images of a split in natural order of their names."""
        images = find_images(root / "rgb")
        labels = find_labels(root / "labels", images)
        samples = [Sample(name=name, image=image, label=labels[name]) for name, image in images.items()]
        first = len(samples) - max(len(samples) // _VAL_SHARE, 1)
        return samples[first:] if split == "val" else samples[:first]

    def decode_label(self, path: Path) -> Pixels:
        """Read a label: its red channel is the id. No pixel becomes 255."""
        return train_ids(self.stored_ids(path), _IDS, path)

    def stored_ids(self, path: Path) -> npt.NDArray[np.unsignedinteger]:
        """Read the ids, unsigned [H, W]."""
        return read_channel(path, 1)
