"""What of a data set lies on disk."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from segda.datasets import DATASETS, Sample, SegmentationDataset
from segda.datasets.verification import shares, verify
from segda.errors import DatasetNotFoundError
from segda.types import Pixels

from .conftest import (
    HEIGHT,
    WIDTH,
    build_cityscapes,
    build_color_folders,
    build_loveda,
    build_segnet,
    build_synthia,
    write_image,
    write_label,
)


def test_counts_sizes_ids_and_shares_are_those_of_the_files(tmp_path: Path) -> None:
    root = build_loveda(tmp_path)
    write_image(root / "Val/Urban/images_png/30.png", height=20)
    write_label(root / "Val/Urban/masks_png/30.png", np.full((20, WIDTH), 3))
    found = verify(DATASETS["loveda"], root)
    entry = next(entry for entry in found.splits if (entry.domain, entry.split) == ("urban", "val"))
    assert (entry.images, entry.labelled, entry.published) == (2, 2, 677)
    assert entry.sizes == {(20, WIDTH): 1, (HEIGHT, WIDTH): 1}
    tile = np.resize(np.arange(8), HEIGHT * WIDTH)
    expected = np.bincount(np.concatenate([np.tile(tile, 4), np.full(20 * WIDTH, 3)]), minlength=8)
    assert found.pixels["urban"][:7].tolist() == expected[1:].tolist()
    assert found.pixels["urban"][255] == expected[0]
    assert shares(found.pixels, 2)["urban"] == pytest.approx(expected[3] / expected[1:].sum())
    assert shares(found.pixels, 255)["urban"] == pytest.approx(expected[0] / expected.sum())
    rural = np.bincount(np.tile(tile, 5), minlength=8)
    assert {number: count for number, (count, _) in found.stored.items()} == dict(
        enumerate((expected + rural).tolist())
    )
    assert found.stored[0][1] == 255
    assert found.stored[7][1] == 6


def test_ids_of_16_bits_are_told_as_they_are_stored(tmp_path: Path) -> None:
    found = verify(DATASETS["synthia"], build_synthia(tmp_path))
    assert set(found.stored) == set(range(23))
    assert found.stored[22][1] == 0
    assert found.stored[14][1] == 255


def test_labels_in_colors_store_no_ids(tmp_path: Path) -> None:
    assert verify(DATASETS["camvid12"], build_color_folders(tmp_path)).stored == {}


def test_an_absent_test_split_is_noted_where_results_are_reported_on_another(tmp_path: Path) -> None:
    root = build_loveda(tmp_path / "loveda")
    shutil.rmtree(root / "Test")
    found = verify(DATASETS["loveda"], root)
    assert len(found.notes) == 2
    assert not any("Test" in problem for problem in found.problems)
    camvid = build_segnet(tmp_path / "camvid")
    shutil.rmtree(camvid / "test")
    assert any(f"{camvid}/test" in problem for problem in verify(DATASETS["camvid"], camvid).problems)


def test_each_file_is_decoded_once_and_told_once_although_it_is_in_two_domains(tmp_path: Path) -> None:
    class Counting(type(DATASETS["camvid"])):  # type: ignore[misc]
        def __init__(self) -> None:
            self.read_images: list[Path] = []

        def read(self, sample: Sample, *, with_label: bool) -> tuple[Pixels, Pixels | None]:
            self.read_images.append(sample.image)
            return super().read(sample, with_label=with_label)

    root = build_segnet(tmp_path)
    write_label(root / "trainannot" / "0001TP_006690.png", [99])
    dataset: SegmentationDataset = Counting()
    found = verify(dataset, root)
    images = [path for split in ("train", "val", "test") for path in (root / split).iterdir()]
    assert sorted(dataset.read_images) == sorted(images)
    assert sum("0001TP_006690.png: unknown id 99" in problem for problem in found.problems) == 1


def test_a_listing_that_fails_hides_no_other_split(tmp_path: Path) -> None:
    root = build_cityscapes(tmp_path)
    next((root / "leftImg8bit/val/lindau").iterdir()).unlink()
    found = verify(DATASETS["cityscapes"], root)
    counts = {entry.split: entry.images for entry in found.splits}
    assert counts == {"train": 4, "val": None, "test": 2}
    assert any("has no image" in problem for problem in found.problems)


def test_nothing_at_all_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="nowhere is not a folder"):
        verify(DATASETS["loveda"], tmp_path / "nowhere")
    with pytest.raises(DatasetNotFoundError, match="images_png is missing"):
        verify(DATASETS["loveda"], tmp_path)


def test_published_counts_hold_for_the_real_files(real_camvid: Path) -> None:
    found = verify(DATASETS["camvid"], real_camvid, decode=False)
    assert found.problems == []
    assert all(entry.images == entry.published for entry in found.splits)


def test_a_real_tile_is_counted(real_loveda_tiles: Path, tmp_path: Path) -> None:
    for split in ("Train", "Val"):
        for domain in ("Urban", "Rural"):
            (tmp_path / split / domain).mkdir(parents=True)
            for kind in ("images_png", "masks_png"):
                (tmp_path / split / domain / kind).mkdir()
                name = f"{('Train', 'Val').index(split)}.png"
                shutil.copy(real_loveda_tiles / kind / name, tmp_path / split / domain / kind / name)
    found = verify(DATASETS["loveda"], tmp_path)
    assert {size for entry in found.splits for size in entry.sizes} == {(1024, 1024)}
    assert set(found.stored) == {1, 2, 3, 4, 6, 7}
    assert sum(count for count, _ in found.stored.values()) == 4 * 1024**2
