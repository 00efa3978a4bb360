"""What every data set must show, on a small copy of its files: less than a second in all.

In a test of a data set of one's own:

    from segda.testing.datasets import DATASET_CHECKS, DatasetCase

    @pytest.mark.parametrize("check", DATASET_CHECKS.values(), ids=DATASET_CHECKS)
    def test_my_data_set(check, tmp_path):
        check(DatasetCase(MyDataset(), Path("tests/data/a_few_images")), tmp_path)

Each check takes the case and an empty folder that it may write to.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segda.datasets import Sample, SegmentationDataset
from segda.errors import CorruptSampleError, DatasetNotFoundError, SegdaError
from segda.types import IGNORE_INDEX


@dataclass(frozen=True)
class DatasetCase:
    """A data set with files.

    Attributes:
        dataset: what is checked.
        root: a folder laid out as its `layout` says, with a few images of every split; it is not written to.
    """

    dataset: SegmentationDataset
    root: Path

    def splits(self) -> Iterator[tuple[str, str, list[Sample]]]:
        """Yield domain, split and samples of everything that the data set has."""
        for domain in self.dataset.domains:
            for split in self.dataset.splits(domain):
                yield domain, split, self.dataset.samples(self.root, domain=domain, split=split)


def check_classes_and_palette(case: DatasetCase, folder: Path) -> None:
    """Classes have names and colors of their own; some of them are scored."""
    classes, palette = case.dataset.classes, case.dataset.palette
    assert len(set(classes)) == len(classes), f"a class is named twice: {', '.join(classes)}"
    assert len(palette) == len(classes), f"{len(classes)} classes need as many colors, the palette has {len(palette)}"
    assert len(set(palette)) == len(palette), "two classes have the same color"
    for color in palette:
        assert len(color) == 3, f"a color is red, green and blue, got {color}"
        assert min(color) >= 0, f"parts of a color lie from 0 to 255, got {color}"
        assert max(color) <= 255, f"parts of a color lie from 0 to 255, got {color}"
    assert case.dataset.unscored < frozenset(range(len(classes))), (
        f"unscored must hold some train ids, not all and no others, got {sorted(case.dataset.unscored)}"
    )
    for name, left_out in case.dataset.scorings.items():
        assert left_out < frozenset(range(len(classes))), (
            f"scoring {name} must leave out some train ids, not all and no others, got {sorted(left_out)}"
        )


def check_description(case: DatasetCase, folder: Path) -> None:
    """Name, terms, source and layout are told, and some domain has the split that results are reported on."""
    dataset = case.dataset
    for field in ("name", "terms", "url", "layout"):
        assert getattr(dataset, field).strip(), f"{field} must say something"
    assert dataset.domains, "a data set needs at least one domain"
    assert any(dataset.report_split in dataset.splits(domain) for domain in dataset.domains), (
        f"no domain has the split {dataset.report_split!r}, on which results are reported"
    )
    assert all(step.strip() for step in dataset.steps), "each step of getting the data must say something"
    known = {(domain, split) for domain in dataset.domains for split in dataset.splits(domain)}
    for place, count in dataset.published_counts(case.root).items():
        assert place in known, f"a count is published of {place}, the data set has {sorted(known)}"
        assert count > 0, f"{count} images are published of {place}"


def check_splits(case: DatasetCase, folder: Path) -> None:
    """Every split lists existing files under unique names, and always in the same order."""
    for domain, split, samples in case.splits():
        where = f"domain {domain}, split {split}"
        names = [sample.name for sample in samples]
        assert names, f"{where}: no sample"
        assert len(set(names)) == len(names), f"{where}: a name is listed twice"
        for sample in samples:
            assert sample.image.is_file(), f"{where}: there is no image {sample.image}"
            assert sample.label is None or sample.label.is_file(), f"{where}: there is no label {sample.label}"
        again = case.dataset.samples(case.root, domain=domain, split=split)
        assert again == samples, f"{where}: listed twice, the samples came in another order"


def check_images_and_labels(case: DatasetCase, folder: Path) -> None:
    """Images are RGB; labels are train ids of the image's size."""
    known = {*range(len(case.dataset.classes)), IGNORE_INDEX}
    num_labels = 0
    for _, _, samples in case.splits():
        for sample in samples:
            image, label = case.dataset.read(sample, with_label=sample.label is not None)
            assert image.dtype == np.uint8, f"{sample.image} must be read as uint8, got {image.dtype}"
            assert image.ndim == 3, f"{sample.image} must be read as [H, W, 3], got {image.shape}"
            assert image.shape[2] == 3, f"{sample.image} must be read as [H, W, 3], got {image.shape}"
            if label is not None:
                num_labels += 1
                assert label.dtype == np.uint8, f"{sample.label} must be read as uint8, got {label.dtype}"
                assert label.shape == image.shape[:2], f"{sample.label} is {label.shape}, its image {image.shape}"
                odd = set(np.unique(label).tolist()) - known
                assert not odd, f"{sample.label} has values that are no train ids: {sorted(odd)}"
    assert num_labels, "no split has labels"


def check_stored_ids(case: DatasetCase, folder: Path) -> None:
    """The numbers that labels store have the label's size, and each becomes one train id."""
    for _, _, samples in case.splits():
        for label in (sample.label for sample in samples if sample.label is not None):
            stored, decoded = case.dataset.stored_ids(label), case.dataset.decode_label(label)
            if stored is None:
                continue
            assert stored.shape == decoded.shape, f"{label} stores {stored.shape} numbers for {decoded.shape} pixels"
            pairs = np.unique(np.stack([stored.ravel(), decoded.ravel()]), axis=1)
            assert len(np.unique(pairs[0])) == pairs.shape[1], (
                f"{label}: one stored number has become several train ids"
            )


def check_missing_root(case: DatasetCase, folder: Path) -> None:
    """A root that is not there, or is empty, is told with its name."""
    (folder / "empty").mkdir()
    for root in (folder / "nowhere", folder / "empty"):
        text = _refusal(lambda root=root: case.dataset.samples(root, domain=case.dataset.domains[0], split="train"))  # type: ignore[misc]
        assert str(root) in text, f"the error must name the folder {root}, it says: {text}"


def check_unknown_names(case: DatasetCase, folder: Path) -> None:
    """A domain or a split that does not exist is told with the nearest one that does."""
    domain = case.dataset.domains[0]
    split = case.dataset.splits(domain)[0]
    for wrong, right in (
        ({"domain": f"{domain}x", "split": split}, domain),
        ({"domain": domain, "split": f"{split}x"}, split),
    ):
        text = _refusal(lambda wrong=wrong: case.dataset.samples(case.root, **wrong))  # type: ignore[misc]
        assert f"did you mean {right!r}" in text, f"the error must name {right!r}, it says: {text}"


def check_missing_image(case: DatasetCase, folder: Path) -> None:
    """An image that is gone while its label is there, or a link to what is missing, is told: the data set would be smaller."""
    domain, split, samples = next(item for item in case.splits() if item[2][0].label is not None)
    for name in ("gone", "link"):
        root = folder / name
        shutil.copytree(case.root, root)
        image = root / samples[0].image.relative_to(case.root)
        image.unlink()
        if name == "link":
            image.symlink_to(folder / "nowhere")
        text = _refusal(
            lambda root=root: _read_all(case.dataset, root, domain=domain, split=split),  # type: ignore[misc]
            kind=SegdaError,
        )
        assert samples[0].name in text, f"the error must name {samples[0].name}, it says: {text}"


def _read_all(dataset: SegmentationDataset, root: Path, *, domain: str, split: str) -> None:
    for sample in dataset.samples(root, domain=domain, split=split):
        dataset.read(sample, with_label=False)


def check_missing_label(case: DatasetCase, folder: Path) -> None:
    """A label that is absent is told when it is asked for, and not before: unlabelled images can be used without it."""
    root = folder / "copy"
    shutil.copytree(case.root, root)
    copied = DatasetCase(case.dataset, root)
    domain, split, samples = next(item for item in copied.splits() if item[2][0].label is not None)
    label = samples[0].label
    assert label is not None
    label.unlink()
    sample = case.dataset.samples(root, domain=domain, split=split)[0]
    image, nothing = case.dataset.read(sample, with_label=False)
    assert image.ndim == 3
    assert nothing is None
    text = _refusal(lambda: case.dataset.read(sample, with_label=True), kind=CorruptSampleError)
    assert str(sample.image) in text, f"the error must name the image {sample.image}, it says: {text}"
    assert str(label) in text, f"the error must name the label {label}, it says: {text}"


DATASET_CHECKS: dict[str, Callable[[DatasetCase, Path], None]] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_classes_and_palette,
        check_description,
        check_splits,
        check_images_and_labels,
        check_stored_ids,
        check_missing_root,
        check_unknown_names,
        check_missing_image,
        check_missing_label,
    )
}


def _refusal(call: Callable[[], object], *, kind: type[SegdaError] = DatasetNotFoundError) -> str:
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"{kind.__name__} was expected, nothing was raised")
