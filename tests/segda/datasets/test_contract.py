"""What every entry of DATASETS must do; a new line is tested from then on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from PIL import Image

from segda.datasets import DATASETS, Sample, SegmentationDataset, resolve_root
from segda.datasets.loveda import LoveDA
from segda.errors import DatasetNotFoundError
from segda.testing.datasets import DATASET_CHECKS, DatasetCase

every_dataset = pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS.keys())
Miniature = Callable[[str], Path]


@every_dataset
@pytest.mark.parametrize("check", DATASET_CHECKS)
def test_every_data_set_keeps_the_contract(
    dataset: SegmentationDataset, check: str, miniature: Miniature, tmp_path: Path
) -> None:
    folder = tmp_path / "check"
    folder.mkdir()
    DATASET_CHECKS[check](DatasetCase(dataset, miniature(dataset.name)), folder)


@every_dataset
def test_key_is_the_name(dataset: SegmentationDataset) -> None:
    assert DATASETS[dataset.name] is dataset


@every_dataset
def test_data_are_got_somewhere_or_made(dataset: SegmentationDataset) -> None:
    assert dataset.url.startswith("http") or dataset.name == "scenes"


@every_dataset
def test_every_class_appears_in_labels_with_every_stored_value(
    dataset: SegmentationDataset, miniature: Miniature
) -> None:
    root = miniature(dataset.name)
    for domain in dataset.domains:
        sample = dataset.samples(root, domain=domain, split="train")[0]
        _, label = dataset.read(sample, with_label=True)
        # The miniatures hold every stored value; void is 255 unless it is a class of its own.
        void = set() if "Void" in dataset.classes else {255}
        assert set(np.unique(label).tolist()) == set(range(len(dataset.classes))) | void


@every_dataset
def test_missing_root_is_told_with_a_way_out(dataset: SegmentationDataset, tmp_path: Path) -> None:
    # A data set that is made and not fetched says how to make it.
    way_out = rf"`root`.*SEGDA_{dataset.name.upper()}_ROOT|segda datasets make {dataset.name}"
    with pytest.raises(DatasetNotFoundError, match=rf"nowhere.*({way_out})"):
        dataset.samples(tmp_path / "nowhere", domain=dataset.domains[0], split="train")


@every_dataset
def test_root_comes_from_the_option_then_from_the_environment(
    dataset: SegmentationDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = f"SEGDA_{dataset.name.upper()}_ROOT"
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(DatasetNotFoundError, match=variable):
        resolve_root(dataset.name, None)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.setenv(variable, str(tmp_path / "a"))
    assert resolve_root(dataset.name, None) == tmp_path / "a"
    assert resolve_root(dataset.name, tmp_path / "b") == tmp_path / "b"
    with pytest.raises(DatasetNotFoundError, match="nowhere"):
        resolve_root(dataset.name, tmp_path / "nowhere")


class SameColors(LoveDA):
    palette = LoveDA.palette[:-1] + LoveDA.palette[:1]


class AllUnscored(LoveDA):
    unscored = frozenset(range(len(LoveDA.classes)))


class AllLeftOut(LoveDA):
    scorings = MappingProxyType({"7": frozenset(range(7))})


class CountsOfNothing(LoveDA):
    def published_counts(self, root: Path) -> dict[tuple[str, str], int]:
        return {("urban", "validation"): 3}


class OtherIds(LoveDA):
    def stored_ids(self, path: Path) -> np.ndarray:
        return super().stored_ids(path) // 2


class Shuffled(LoveDA):
    def list_samples(self, root: Path, *, domain: str, split: str) -> list[Sample]:
        self.turns = getattr(self, "turns", 0) + 1
        return super().list_samples(root, domain=domain, split=split)[:: (-1) ** self.turns]


class Stored(LoveDA):
    def decode_label(self, path: Path) -> np.ndarray:
        return np.array(Image.open(path)) + np.uint8(100)


class SmallLabels(LoveDA):
    def read(self, sample: Sample, *, with_label: bool) -> tuple[np.ndarray, np.ndarray | None]:
        image, label = super().read(sample, with_label=with_label)
        return image, None if label is None else label[::2, ::2]


class NeverMissing(LoveDA):
    def list_samples(self, root: Path, *, domain: str, split: str) -> list[Sample]:
        return [
            replace(sample, label=None if sample.label is None or not sample.label.is_file() else sample.label)
            for sample in super().list_samples(root, domain=domain, split=split)
        ]


class Silent(LoveDA):
    layout = ""


class AnySplit(LoveDA):
    def check_split(self, *, domain: str, split: str) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "check", "message"),
    [
        (SameColors, "classes_and_palette", "same color"),
        (AllUnscored, "classes_and_palette", "unscored must hold some train ids, not all"),
        (AllLeftOut, "classes_and_palette", "scoring 7 must leave out some train ids, not all"),
        (Silent, "description", "layout must say something"),
        (CountsOfNothing, "description", "a count is published of"),
        (OtherIds, "stored_ids", "has become several train ids"),
        (Shuffled, "splits", "in another order"),
        (Stored, "images_and_labels", "values that are no train ids: "),
        (SmallLabels, "images_and_labels", "its image"),
        (AnySplit, "unknown_names", "must name"),
        (NeverMissing, "missing_label", "must name the label"),
    ],
)
def test_a_wrong_data_set_is_caught(
    kind: type[SegmentationDataset], check: str, message: str, miniature: Miniature, tmp_path: Path
) -> None:
    folder = tmp_path / "check"
    folder.mkdir()
    with pytest.raises(AssertionError, match=message):
        DATASET_CHECKS[check](DatasetCase(kind(), miniature("loveda")), folder)
