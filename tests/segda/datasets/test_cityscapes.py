"""Cityscapes and what is adapted to it: GTA5 with ids under a color table, SYNTHIA with ids in 16 bits."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from segda.config import DataConfig
from segda.datasets import DATASETS
from segda.datasets.cityscapes import CLASSES, NOT_IN_SYNTHIA, SCORINGS
from segda.errors import CorruptSampleError, DatasetNotFoundError
from segda.metrics import ConfusionMatrix, mean_iou

from .conftest import (
    HEIGHT,
    WIDTH,
    build_cityscapes,
    build_gta5,
    build_synthia,
    write_deep,
    write_image,
    write_label,
)

# The published table, written out once more: label id -> train id.
ID_TO_TRAIN = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13}
ID_TO_TRAIN |= {27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
SYNTHIA_TO_TRAIN = {
    1: 10,
    2: 2,
    3: 0,
    4: 1,
    5: 4,
    6: 8,
    7: 5,
    8: 13,
    9: 7,
    10: 11,
    11: 18,
    12: 17,
    15: 6,
    16: 9,
    17: 12,
}
SYNTHIA_TO_TRAIN |= {18: 14, 19: 15, 20: 16, 21: 3, 22: 0}

cityscapes, gta5, synthia = (DATASETS[name] for name in ("cityscapes", "gta5", "synthia"))


@pytest.fixture
def cityscapes_root(tmp_path: Path) -> Path:
    return build_cityscapes(tmp_path / "cityscapes")


@pytest.fixture
def gta5_root(tmp_path: Path) -> Path:
    return build_gta5(tmp_path / "gta5")


@pytest.fixture
def synthia_root(tmp_path: Path) -> Path:
    return build_synthia(tmp_path / "synthia")


def names(dataset, root: Path, split: str) -> list[str]:
    return [sample.name for sample in dataset.samples(root, domain="all", split=split)]


def test_frames_of_all_cities_are_found_and_labels_are_the_files_of_ids(cityscapes_root: Path) -> None:
    samples = cityscapes.samples(cityscapes_root, domain="all", split="train")
    assert [sample.name for sample in samples] == [
        f"{city}_00000{number}_000019" for city in ("aachen", "bochum") for number in range(2)
    ]
    assert samples[0].label == cityscapes_root / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"
    assert [cityscapes.scene(sample.name) for sample in samples] == ["aachen", "aachen", "bochum", "bochum"]


def test_the_test_split_is_unlabelled_although_empty_labels_lie_there(cityscapes_root: Path) -> None:
    assert all(sample.label is None for sample in cityscapes.samples(cityscapes_root, domain="all", split="test"))


@pytest.mark.parametrize("kind", [cityscapes, gta5], ids=lambda kind: kind.name)
def test_of_the_label_ids_nineteen_are_classes(kind, tmp_path: Path) -> None:
    write_label(tmp_path / "a.png", np.arange(34, dtype=np.uint8)[None])
    expected = [[ID_TO_TRAIN.get(number, 255) for number in range(34)]]
    assert kind.decode_label(tmp_path / "a.png").tolist() == expected


def test_values_of_an_indexed_label_count_and_not_its_colors(gta5_root: Path) -> None:
    label = gta5.decode_label(gta5_root / "labels" / "00001.png")
    assert label.ravel()[:35].tolist() == [ID_TO_TRAIN.get(number, 255) for number in range(35)]


def test_a_label_turned_into_colors_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "00001.png")
    with pytest.raises(CorruptSampleError, match=r"00001.png: expected one band of class indices.*color table"):
        gta5.decode_label(tmp_path / "00001.png")


def test_the_last_ten_of_each_hundred_are_validation_and_unusable_images_are_in_no_split(gta5_root: Path) -> None:
    assert names(gta5, gta5_root, "train") == ["00001", "00002", "24966"]
    assert names(gta5, gta5_root, "val") == ["00090"]
    assert gta5.published_counts(gta5_root) == {("all", "train"): 24966 - 36 - 2490, ("all", "val"): 2490}


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_part_of_the_data_that_a_split_has_nothing_of_is_told_which_numbers_are_in_it(
    gta5_root: Path, split: str
) -> None:
    for path in gta5_root.rglob("*.png"):
        if (int(path.stem) % 100 >= 90) == (split == "val"):
            path.unlink()
    with pytest.raises(
        DatasetNotFoundError, match=rf"none of the \d images, such as .*, is in split {split}; numbers that"
    ):
        names(gta5, gta5_root, split)


def test_the_authors_lists_decide_where_they_lie(gta5_root: Path) -> None:
    lists = {"trainIds": [[2], [90]], "valIds": [[1], [15188]], "testIds": [[24966]]}
    savemat(gta5_root / "split.mat", lists)
    assert names(gta5, gta5_root, "train") == ["00002", "00090"]
    assert names(gta5, gta5_root, "val") == ["00001"]
    assert gta5.published_counts(gta5_root) == {}
    savemat(gta5_root / "split.mat", lists | {"trainIds": [[2], [3], [4]]})
    with pytest.raises(CorruptSampleError, match=r"split.mat lists image 00003 and 1 more"):
        names(gta5, gta5_root, "train")
    (gta5_root / "split.mat").write_bytes(b"no list")
    with pytest.raises(CorruptSampleError, match=r"split.mat cannot be read"):
        names(gta5, gta5_root, "train")


def test_a_label_of_another_size_than_its_image_is_named(gta5_root: Path) -> None:
    write_label(gta5_root / "labels" / "00002.png", np.zeros((HEIGHT + 2, WIDTH), np.uint8))
    sample = gta5.samples(gta5_root, domain="all", split="train")[1]
    with pytest.raises(
        CorruptSampleError, match=rf"images/00002.png is {WIDTH}x{HEIGHT} .*labels/00002.png is {WIDTH}x14"
    ):
        gta5.read(sample, with_label=True)


def test_a_name_that_is_no_number_is_refused(gta5_root: Path) -> None:
    write_image(gta5_root / "images" / "copy.png")
    with pytest.raises(CorruptSampleError, match=r"copy.png: expected a number"):
        names(gta5, gta5_root, "train")


def test_the_id_is_the_first_of_the_16_bit_channels_and_all_its_bits_count(synthia_root: Path, tmp_path: Path) -> None:
    path = synthia_root / "GT" / "LABELS" / "0000000.png"
    with Image.open(path) as picture:
        assert np.asarray(picture)[..., 0].max() == 0, "a reader for pictures keeps the upper eight bits"
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    label = synthia.decode_label(path)
    assert label.ravel()[:23].tolist() == [SYNTHIA_TO_TRAIN.get(number, 255) for number in range(23)]
    # 3 in the upper half is another id, which 8-bit readers would take for road.
    write_deep(tmp_path / "0000000.png", np.full((2, 2, 3), 3 * 256))
    with pytest.raises(CorruptSampleError, match=r"0000000.png: unknown id 768; allowed are 0..22"):
        synthia.decode_label(tmp_path / "0000000.png")


def test_a_label_saved_anew_with_8_bits_is_refused(synthia_root: Path) -> None:
    path = synthia_root / "GT" / "LABELS" / "0000000.png"
    with Image.open(path) as picture:
        picture.save(path)
    with pytest.raises(CorruptSampleError, match=r"0000000.png: expected 16 bits per channel, got 8"):
        synthia.decode_label(path)


def test_a_truncated_label_is_named(synthia_root: Path) -> None:
    path = synthia_root / "GT" / "LABELS" / "0000000.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CorruptSampleError, match=r"0000000.png cannot be read as PNG"):
        synthia.decode_label(path)


def test_synthia_is_split_by_number(synthia_root: Path) -> None:
    assert names(synthia, synthia_root, "train") == ["0000000", "0000001"]
    assert names(synthia, synthia_root, "val") == ["0000090", "0009399"]
    assert synthia.published_counts(synthia_root) == {("all", "train"): 8460, ("all", "val"): 940}


def test_missing_halves_are_named(cityscapes_root: Path, synthia_root: Path) -> None:
    shutil.rmtree(cityscapes_root / "leftImg8bit" / "train")
    with pytest.raises(DatasetNotFoundError, match=r"leftImg8bit/train is missing"):
        names(cityscapes, cityscapes_root, "train")
    shutil.rmtree(synthia_root / "RGB")
    with pytest.raises(DatasetNotFoundError, match=r"RGB is missing"):
        names(synthia, synthia_root, "train")


def test_a_label_whose_image_is_gone_is_told_and_other_files_beside_labels_are_not(cityscapes_root: Path) -> None:
    (cityscapes_root / "leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png").unlink()
    with pytest.raises(CorruptSampleError, match=r"lindau_000000_000019_gtFine_labelIds.png has no image"):
        names(cityscapes, cityscapes_root, "val")


def test_the_scored_sets_are_those_of_the_papers() -> None:
    everything = set(range(19))
    assert everything - SCORINGS["16"] == {*range(9), 10, 11, 12, 13, 15, 17, 18}
    assert everything - SCORINGS["13"] == {0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18}
    assert {CLASSES[train_id] for train_id in NOT_IN_SYNTHIA} == {"terrain", "truck", "train"}


@pytest.mark.parametrize(("source", "left_out"), [("gta5", 0), ("synthia", 3)])
def test_a_run_leaves_out_what_its_source_lacks_and_reports_all_three_means(source: str, left_out: int) -> None:
    domains = {"source": {"dataset": source, "domain": "all"}, "target": {"dataset": "cityscapes", "domain": "all"}}
    data = DataConfig.model_validate({**domains, "height": 64, "width": 64})
    assert len(data.unscored) == left_out
    assert {name: 19 - len(ids) for name, ids in data.scorings.items()} == {"16": 16, "13": 13}


def test_what_is_confused_with_a_class_left_out_still_counts_as_an_error() -> None:
    import torch

    road, terrain = 0, CLASSES.index("terrain")
    matrix = ConfusionMatrix(19)
    # Of ten pixels of road two are taken for terrain; of four of terrain all are taken for road.
    label = torch.tensor([road] * 10 + [terrain] * 4)[None, None]
    prediction = torch.tensor([road] * 8 + [terrain] * 2 + [road] * 4)[None, None]
    matrix.update(prediction, label)
    found = matrix.compute(unscored=NOT_IN_SYNTHIA)
    assert found.miou == pytest.approx(8 / 14)
    assert mean_iou(found.iou_per_class, SCORINGS["13"]) == pytest.approx(8 / 14)
    assert mean_iou(found.iou_per_class, frozenset()) == pytest.approx(8 / 28)
