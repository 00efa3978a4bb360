from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segda.datasets import DATASETS
from segda.datasets.base import SegmentationDataset
from segda.datasets.camvid import COLORS, SEGNET_GROUPS
from segda.errors import CorruptSampleError, DatasetNotFoundError

camvid = DATASETS["camvid"]
camvid12 = DATASETS["camvid12"]


def names(root: Path, domain: str, split: str, dataset: SegmentationDataset = camvid) -> list[str]:
    return [sample.name for sample in dataset.samples(root, domain=domain, split=split)]


def decode_color(dataset: SegmentationDataset, tmp_path: Path, color: tuple[int, int, int]) -> int:
    path = tmp_path / "color.png"
    Image.new("RGB", (1, 1), color).save(path)
    return int(dataset.decode_label(path)[0, 0])


@pytest.mark.parametrize("layout", ["segnet", "color_folders", "original"])
def test_every_layout_gives_the_same_domains_and_splits(layout: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(layout)
    assert names(root, "day", "train") == ["0006R0_f00930", "0016E5_00390"]
    assert names(root, "day", "val") == ["0016E5_07959"]
    assert names(root, "day", "test") == ["Seq05VD_f00000"]
    assert names(root, "dusk", "train") == ["0001TP_006690"]
    assert names(root, "dusk", "test") == ["0001TP_008550"]
    assert names(root, "all", "train") == ["0001TP_006690", "0006R0_f00930", "0016E5_00390"]


@pytest.mark.parametrize("layout", ["segnet", "color_folders", "original"])
def test_every_layout_pairs_images_with_labels(layout: str, request: pytest.FixtureRequest) -> None:
    for sample in camvid.samples(request.getfixturevalue(layout), domain="all", split="train"):
        image, label = camvid.read(sample, with_label=True)
        assert label is not None
        assert image.shape == (*label.shape, 3)


def test_dusk_has_no_validation_split(segnet: Path) -> None:
    assert camvid.splits("dusk") == ("train", "test")
    with pytest.raises(DatasetNotFoundError, match=r"domain 'dusk', has no split 'val'.*it has: train, test"):
        camvid.samples(segnet, domain="dusk", split="val")


@pytest.mark.parametrize(
    "line",
    [
        "train/0006R0_f00930.png trainannot/0006R0_f00930.png",
        "/SegNet/CamVid/train/0006R0_f00930.png /SegNet/CamVid/trainannot/0006R0_f00930.png",
        "0006R0_f00930",
        "0006R0_f00930.png",
    ],
)
def test_list_file_decides_and_its_suffix_does_not_matter(segnet: Path, line: str) -> None:
    (segnet / "train.txt").write_text(f"{line}\n\n")
    picture = segnet / "train" / "0006R0_f00930.png"
    Image.open(picture).save(picture.with_suffix(".jpg"), quality=95)
    picture.unlink()
    (sample,) = camvid.samples(segnet, domain="day", split="train")
    assert sample.image == picture.with_suffix(".jpg")
    assert sample.label == segnet / "trainannot" / "0006R0_f00930.png"


def test_listed_image_that_is_missing_is_named_with_its_line(segnet: Path) -> None:
    (segnet / "train.txt").write_text("train/0006R0_f00930.png\ntrain/0006R0_f00931.png\n")
    with pytest.raises(DatasetNotFoundError, match=r"train.txt:2 lists train/0006R0_f00931.png"):
        names(segnet, "day", "train")


def test_image_listed_twice_is_refused(segnet: Path) -> None:
    (segnet / "train.txt").write_text("train/0006R0_f00930.png\n0006R0_f00930\n")
    with pytest.raises(CorruptSampleError, match=r"train.txt:2 .*a second time"):
        names(segnet, "day", "train")


def test_flat_layout_without_list_asks_for_it(original: Path) -> None:
    (original / "val.txt").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"val.txt is missing; write train.txt, val.txt and test.txt"):
        names(original, "day", "val")


def test_segnet_index_11_is_void(segnet: Path) -> None:
    label = camvid.decode_label(segnet / "trainannot" / "0001TP_006690.png")
    assert label.ravel()[:12].tolist() == [*range(11), 255]


def test_index_above_11_names_file_id_and_range(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 12, np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(CorruptSampleError, match=r"x.png: unknown id 12; allowed are 0..11"):
        camvid.decode_label(tmp_path / "x.png")


def test_groups_cover_every_color_but_void_once() -> None:
    grouped = [name for group in SEGNET_GROUPS.values() for name in group]
    assert sorted([*grouped, "Void"]) == sorted(COLORS)
    assert len(set(COLORS.values())) == 32


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        ((128, 128, 128), "Sky"),
        ((64, 192, 0), "Building"),  # Wall
        ((0, 0, 64), "Pole"),  # TrafficCone
        ((128, 0, 192), "Road"),  # LaneMkgsDriv
        ((128, 128, 192), "Pavement"),  # RoadShoulder
        ((192, 192, 0), "Tree"),  # VegetationMisc
        ((0, 64, 64), "SignSymbol"),  # TrafficLight
        ((64, 64, 128), "Fence"),
        ((192, 128, 192), "Car"),  # Truck_Bus
        ((192, 128, 64), "Pedestrian"),  # Child
        ((192, 0, 192), "Bicyclist"),  # MotorcycleScooter
    ],
)
def test_original_colors_are_merged_into_segnets_classes(
    tmp_path: Path, color: tuple[int, int, int], expected: str
) -> None:
    assert decode_color(camvid, tmp_path, color) == camvid.classes.index(expected)


def test_black_is_void_in_the_eleven_classes(tmp_path: Path) -> None:
    assert decode_color(camvid, tmp_path, (0, 0, 0)) == 255


def test_twelve_classes_keep_exact_colors_only(tmp_path: Path) -> None:
    for train_id, color in enumerate(camvid12.palette):
        assert decode_color(camvid12, tmp_path, color) == train_id
    assert camvid12.classes[decode_color(camvid12, tmp_path, COLORS["LaneMkgsDriv"])] == "Void"
    assert camvid12.unscored == {11}


def test_segnets_own_color_of_pavement_is_read(tmp_path: Path) -> None:
    assert [decode_color(camvid, tmp_path, color) for color in camvid.palette] == list(range(11))


@pytest.mark.parametrize("dataset", [camvid, camvid12], ids=["camvid", "camvid12"])
def test_unknown_color_is_named_with_its_place(dataset: SegmentationDataset, tmp_path: Path) -> None:
    pixels = np.zeros((3, 4, 3), np.uint8)
    pixels[2, 1] = (60, 40, 221)
    Image.fromarray(pixels).save(tmp_path / "x_L.png")
    with pytest.raises(CorruptSampleError, match=r"x_L.png: color \(60, 40, 221\) at row 2, column 1"):
        dataset.decode_label(tmp_path / "x_L.png")


def test_twelve_classes_refuse_index_labels(segnet: Path) -> None:
    with pytest.raises(CorruptSampleError, match=r"needs the original color labels.*use data set camvid"):
        camvid12.decode_label(segnet / "trainannot" / "0001TP_006690.png")


@pytest.mark.parametrize(
    ("domain", "split", "count"),
    [("day", "train", 305), ("day", "val", 101), ("day", "test", 171), ("dusk", "train", 62), ("dusk", "test", 62)],
)
def test_real_domains_equal_the_published_lists(real_camvid: Path, domain: str, split: str, count: int) -> None:
    listed = real_camvid / "lists" / f"{domain}_{split}.txt"
    if not listed.is_file():
        pytest.skip(f"this copy of CamVid has no {listed}")
    samples = camvid.samples(real_camvid, domain=domain, split=split)
    assert len(samples) == count
    pairs = [f"{s.image.relative_to(real_camvid)} {s.label.relative_to(real_camvid)}" for s in samples if s.label]
    assert pairs == listed.read_text().split("\n")[:-1]


def test_real_sky_lies_above_buildings_and_those_above_the_road(real_camvid: Path) -> None:
    image, label = camvid.read(camvid.samples(real_camvid, domain="day", split="train")[0], with_label=True)
    assert label is not None
    assert image.shape == (360, 480, 3)
    rows = np.arange(360)[:, None].repeat(480, 1)
    heights = [rows[label == camvid.classes.index(name)].mean() for name in ("Sky", "Building", "Road")]
    assert heights == sorted(heights)
