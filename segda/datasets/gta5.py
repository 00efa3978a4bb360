"""GTA5: frames of a computer game with labels in the ids of Cityscapes (Richter et al., Playing for Data, ECCV 2016).

24,966 images, most of them of 1914 x 1052 pixels. 36 of them, known from users' code, have a label of another size; they are in
no split, and whatever else does not fit is refused with its name. The authors' list of splits (`split.mat`) has as many images
of training as of validation and test together, so most papers train on everything; here it is used where it lies in the root.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from segda.datasets import numbered
from segda.datasets.base import Sample, SegmentationDataset
from segda.datasets.cityscapes import CLASSES, IDS, PALETTE, SCORINGS
from segda.datasets.labels import Color, LabelCode
from segda.datasets.listing import find_images, find_labels
from segda.errors import CorruptSampleError
from segda.types import Pixels

# Their labels have another size than their images.
UNUSABLE = frozenset({15188, *range(20803, 20835), *range(20858, 20861)})
_NUMBERS = range(1, 24_967)
_LISTS = "split.mat"
# The table of colors decorates the ids: several ids are black.
_CODE = LabelCode(ids=IDS, advice="take the published files with a color table, whose values are the ids")


class GTA5(SegmentationDataset):
    """GTA5 with the 19 classes of Cityscapes.

    With the authors' `split.mat` in the root, train and val are its lists, and its test list is not used. Without it, `numbered`
    says which images are val.
    """

    name: ClassVar[str] = "gta5"
    classes: ClassVar[tuple[str, ...]] = CLASSES
    palette: ClassVar[tuple[Color, ...]] = PALETTE
    domains: ClassVar[tuple[str, ...]] = ("all",)
    report_split: ClassVar[str] = "val"
    scorings: ClassVar[Mapping[str, frozenset[int]]] = SCORINGS
    terms: ClassVar[str] = "research and education only, as stated on the site"
    url: ClassVar[str] = "https://download.visinf.tu-darmstadt.de/data/from_games/"
    layout: ClassVar[str] = f"images/<number>.png and labels/<number>.png, optionally {_LISTS}"
    steps: ClassVar[tuple[str, ...]] = (
        "fetch the ten parts of images (01_images.zip to 10_images.zip) and of labels (01_labels.zip to 10_labels.zip)",
        "unpack all of them into the root: they fill the same two folders, images and labels",
        f"for the authors' splits, unpack {_LISTS} of read_mapping.zip into the root too; without it, of every hundred numbers "
        "the last ten are val",
    )

    def splits(self, domain: str) -> tuple[str, ...]:
        """Return train and val."""
        return numbered.SPLITS

    def list_samples(self, root: Path, *, domain: str, split: str) -> list[Sample]:
        """Find the frames of a split in the order of their numbers, without those that are unusable.

        Raises:
            CorruptSampleError: the list of splits cannot be read, or names an image that is not there.
        """
        images = find_images(root / "images")
        labels = find_labels(root / "labels", images)
        usable = {name: path for name, path in images.items() if numbered.number_of(path) not in UNUSABLE}
        lists = root / _LISTS
        chosen = _listed(lists, usable, split) if lists.exists() else numbered.of_split(usable, split)
        return [Sample(name=name, image=image, label=labels[name]) for name, image in chosen.items()]

    def decode_label(self, path: Path) -> Pixels:
        """Read a label: the values, not the colors, are ids of Cityscapes; 34 is the license plate and void."""
        return _CODE.read(path)

    def published_counts(self, root: Path) -> Mapping[tuple[str, str], int]:
        """Return the counts of the fixed split; the authors' lists say themselves what must be there."""
        if (root / _LISTS).exists():
            return {}
        usable = [number for number in _NUMBERS if number not in UNUSABLE]
        val = sum(map(numbered.is_val, usable))
        return {("all", "train"): len(usable) - val, ("all", "val"): val}


def _listed(lists: Path, images: Mapping[str, Path], split: str) -> dict[str, Path]:
    from scipy.io import loadmat  # takes a while to import

    key = f"{split}Ids"
    try:
        numbers = sorted(int(number) for number in loadmat(lists, variable_names=[key])[key].ravel())
    # The reader raises whatever the damage leads to.
    except Exception as error:
        raise CorruptSampleError(
            f"{lists} cannot be read ({type(error).__name__}: {error}); copy it again, or remove it"
        ) from error
    of_number = {numbered.number_of(path): (name, path) for name, path in images.items()}
    missing = [number for number in numbers if number not in of_number and number not in UNUSABLE]
    if missing:
        raise CorruptSampleError(
            f"{lists} lists image {missing[0]:05d} and {len(missing) - 1} more that are not in images; unpack all ten parts, "
            f"or remove {lists.name}"
        )
    return dict(of_number[number] for number in numbers if number in of_number)
