"""Cityscapes: drives through fifty cities (Cordts et al., CVPR 2016), the target of GTA5 and SYNTHIA.

Of the 34 label ids, 19 are classes and the rest is void. Papers on adaptation from SYNTHIA, which lacks three of them, give the
mean over 16 or over 13 classes. All three means are of the same network with 19 outputs and of the same confusion matrix: a
pixel that is taken for one of the classes left out, and a pixel of such a class that is taken for a scored one, still count as
errors of the scored classes. Papers that train 16 outputs and set the other pixels to void are a little more lenient.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from segda.datasets.base import Sample, SegmentationDataset
from segda.datasets.labels import Color, LabelCode
from segda.datasets.listing import find_images, find_labels
from segda.errors import DatasetNotFoundError
from segda.types import IGNORE_INDEX, Pixels

# Class -> its label id and its color; the position is the train id.
_CLASSES: dict[str, tuple[int, Color]] = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
CLASSES = tuple(_CLASSES)
PALETTE = tuple(color for _, color in _CLASSES.values())
# Label id -> train id. 34 is the license plate, which Cityscapes counts as -1 and never draws, and GTA5 does.
IDS: Mapping[int, int] = dict.fromkeys(range(35), IGNORE_INDEX) | {
    number: train_id for train_id, (number, _) in enumerate(_CLASSES.values())
}


def train_ids_of(*names: str) -> frozenset[int]:
    """Return the train ids of classes."""
    return frozenset(map(CLASSES.index, names))


NOT_IN_SYNTHIA = train_ids_of("terrain", "truck", "train")
# Names of the means are those of the numbers of classes in them.
SCORINGS: Mapping[str, frozenset[int]] = MappingProxyType(
    {"16": NOT_IN_SYNTHIA, "13": NOT_IN_SYNTHIA | train_ids_of("wall", "fence", "pole")}
)

_CODE = LabelCode(ids=IDS, advice="take the files that end in _gtFine_labelIds.png")
_IMAGE, _LABEL = "_leftImg8bit", "_gtFine_labelIds"
# What lies beside the labels: for looking at, of single objects, and what cityscapesScripts makes of them.
_OTHERS = ("_gtFine_color", "_gtFine_instanceIds", "_gtFine_labelTrainIds", "_gtFine_instanceTrainIds")
_COUNTS = {"train": 2975, "val": 500, "test": 1525}


class Cityscapes(SegmentationDataset):
    """Cityscapes with fine labels. Those of the test split are not published, so results are reported on val."""

    name: ClassVar[str] = "cityscapes"
    classes: ClassVar[tuple[str, ...]] = CLASSES
    palette: ClassVar[tuple[Color, ...]] = PALETTE
    domains: ClassVar[tuple[str, ...]] = ("all",)
    report_split: ClassVar[str] = "val"
    scorings: ClassVar[Mapping[str, frozenset[int]]] = SCORINGS
    terms: ClassVar[str] = "non-commercial use, after registration and under the license on the site; no redistribution"
    url: ClassVar[str] = "https://www.cityscapes-dataset.com/downloads/"
    layout: ClassVar[str] = (
        f"leftImg8bit/{{train,val,test}}/<city>/<name>{_IMAGE}.png and gtFine/{{train,val}}/<city>/<name>{_LABEL}.png"
    )
    steps: ClassVar[tuple[str, ...]] = (
        "register on the site; it sends a confirmation",
        "fetch leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip",
        "unpack both into the root: leftImg8bit and gtFine then lie side by side",
    )

    def splits(self, domain: str) -> tuple[str, ...]:
        """Return train, val and test; test is published without labels."""
        return ("train", "val", "test")

    def list_samples(self, root: Path, *, domain: str, split: str) -> list[Sample]:
        """Find the frames of all cities of a split; a frame is named `<city>_<sequence>_<frame>`."""
        folder = root / "leftImg8bit" / split
        if not folder.is_dir():
            raise DatasetNotFoundError(f"data set {self.name}: folder {folder} is missing; expected {self.layout}")
        cities = sorted(city for city in folder.iterdir() if city.is_dir() and not city.name.startswith("."))
        return [sample for city in cities for sample in self._frames(root, city, split)]

    def _frames(self, root: Path, city: Path, split: str) -> list[Sample]:
        images = {name.removesuffix(_IMAGE): path for name, path in find_images(city).items()}
        if split == "test":
            return [Sample(name=name, image=image, label=None) for name, image in images.items()]
        labels = find_labels(
            root / "gtFine" / split / city.name, images, usual=f"{{name}}{_LABEL}.png", marks=(_LABEL,), others=_OTHERS
        )
        return [Sample(name=name, image=image, label=labels[name]) for name, image in images.items()]

    def scene(self, sample_name: str) -> str | None:
        """Return the city; the training split has 18, of each of which few-shot studies take some images."""
        return sample_name.partition("_")[0]

    def decode_label(self, path: Path) -> Pixels:
        """Read a label: of the ids 0..34 nineteen are classes, the others become void (255)."""
        return _CODE.read(path)

    def published_counts(self, root: Path) -> Mapping[tuple[str, str], int]:
        """Return 2975, 500 and 1525 images."""
        return {("all", split): count for split, count in _COUNTS.items()}
