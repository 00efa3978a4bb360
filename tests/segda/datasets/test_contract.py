"""What every entry of DATASETS must do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segda.datasets import DATASETS, SegmentationDataset, resolve_root
from segda.errors import CorruptSampleError, DatasetNotFoundError

pytestmark = pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS.keys())
Miniature = Callable[[str], Path]


def test_key_is_the_name(dataset: SegmentationDataset) -> None:
    assert DATASETS[dataset.name] is dataset


def test_classes_and_palette_agree(dataset: SegmentationDataset) -> None:
    assert len(set(dataset.classes)) == len(dataset.classes) == len(dataset.palette) == len(set(dataset.palette))
    assert all(len(color) == 3 and min(color) >= 0 and max(color) <= 255 for color in dataset.palette)
    assert dataset.unscored < frozenset(range(len(dataset.classes)))


def test_some_domain_has_the_split_that_results_are_reported_on(dataset: SegmentationDataset) -> None:
    assert any(dataset.report_split in dataset.splits(domain) for domain in dataset.domains)


def test_terms_address_and_layout_are_told(dataset: SegmentationDataset) -> None:
    assert dataset.terms
    assert dataset.layout
    assert dataset.url.startswith("http") or dataset.name == "scenes"


def test_every_split_lists_existing_files_under_unique_names(
    dataset: SegmentationDataset, miniature: Miniature
) -> None:
    root = miniature(dataset.name)
    for domain in dataset.domains:
        for split in dataset.splits(domain):
            samples = dataset.samples(root, domain=domain, split=split)
            assert len({sample.name for sample in samples}) == len(samples) > 0
            assert all(sample.image.is_file() for sample in samples)
            assert all(sample.label is None or sample.label.is_file() for sample in samples)


def test_labels_become_train_ids_of_the_images_size(dataset: SegmentationDataset, miniature: Miniature) -> None:
    root = miniature(dataset.name)
    for domain in dataset.domains:
        sample = dataset.samples(root, domain=domain, split="train")[0]
        image, label = dataset.read(sample, with_label=True)
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        assert label is not None
        assert label.dtype == np.uint8
        assert label.shape == image.shape[:2]
        # The miniatures hold every stored value, so every class appears; void is 255 unless it is a class of its own.
        void = set() if dataset.unscored else {255}
        assert set(np.unique(label).tolist()) == set(range(len(dataset.classes))) | void


def test_missing_root_is_named_with_a_way_out(dataset: SegmentationDataset, tmp_path: Path) -> None:
    # A data set that is made and not fetched says how to make it.
    way_out = rf"`root`.*SEGDA_{dataset.name.upper()}_ROOT|segda datasets make {dataset.name}"
    with pytest.raises(DatasetNotFoundError, match=rf"nowhere.*({way_out})"):
        dataset.samples(tmp_path / "nowhere", domain=dataset.domains[0], split="train")


def test_empty_root_says_what_is_missing(dataset: SegmentationDataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=str(tmp_path)):
        dataset.samples(tmp_path, domain=dataset.domains[0], split="train")


def test_unknown_split_names_the_nearest(dataset: SegmentationDataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="no split 'trian' \\(did you mean 'train'\\?\\); it has: train"):
        dataset.samples(tmp_path, domain=dataset.domains[0], split="trian")


def test_unknown_domain_names_the_nearest(dataset: SegmentationDataset, tmp_path: Path) -> None:
    domain = dataset.domains[0]
    with pytest.raises(DatasetNotFoundError, match=f"no domain '{domain}x' \\(did you mean '{domain}'"):
        dataset.samples(tmp_path, domain=f"{domain}x", split="train")


def test_missing_label_names_image_and_label(dataset: SegmentationDataset, miniature: Miniature) -> None:
    root = miniature(dataset.name)
    sample = dataset.samples(root, domain=dataset.domains[0], split="train")[0]
    assert sample.label is not None
    sample.label.unlink()
    (again, *_) = dataset.samples(root, domain=dataset.domains[0], split="train")
    with pytest.raises(CorruptSampleError, match=f"{sample.image} has no label: expected {sample.label}"):
        dataset.read(again, with_label=True)
    image, label = dataset.read(again, with_label=False)
    assert image.ndim == 3
    assert label is None


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
