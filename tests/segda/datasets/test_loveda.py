from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segda.datasets import DATASETS
from segda.errors import CorruptSampleError, DatasetNotFoundError

loveda = DATASETS["loveda"]


def test_tiles_are_sorted_by_number(loveda_root: Path) -> None:
    samples = loveda.samples(loveda_root, domain="urban", split="train")
    assert [sample.name for sample in samples] == ["2", "9", "10"]


def test_domain_is_the_folder(loveda_root: Path) -> None:
    (sample, _) = loveda.samples(loveda_root, domain="rural", split="val")
    assert sample.image == loveda_root / "Val" / "Rural" / "images_png" / "4.png"
    assert sample.label == loveda_root / "Val" / "Rural" / "masks_png" / "4.png"


def test_stored_zero_is_void_and_the_rest_moves_down(loveda_root: Path) -> None:
    label = loveda.decode_label(loveda_root / "Train" / "Urban" / "masks_png" / "2.png")
    assert label.ravel()[:8].tolist() == [255, 0, 1, 2, 3, 4, 5, 6]


def test_id_above_seven_names_file_id_and_range(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 8, np.uint8)).save(tmp_path / "5.png")
    with pytest.raises(CorruptSampleError, match=r"5.png: unknown id 8; allowed are 0..7"):
        loveda.decode_label(tmp_path / "5.png")


def test_a_label_in_class_colors_is_read_and_black_is_void(tmp_path: Path) -> None:
    colors = np.array([[(0, 0, 0), *loveda.palette]], np.uint8)
    Image.fromarray(colors).save(tmp_path / "5.png")
    assert loveda.decode_label(tmp_path / "5.png").tolist() == [[255, *range(7)]]


def test_test_split_has_no_labels(loveda_root: Path) -> None:
    (sample,) = loveda.samples(loveda_root, domain="urban", split="test")
    assert sample.label is None
    with pytest.raises(CorruptSampleError, match="split without labels"):
        loveda.read(sample, with_label=True)


def test_missing_scene_folder_is_named(loveda_root: Path) -> None:
    (loveda_root / "Val" / "Rural").rename(loveda_root / "Val" / "Elsewhere")
    with pytest.raises(DatasetNotFoundError, match="Val/Rural/images_png is missing"):
        loveda.samples(loveda_root, domain="rural", split="val")


def test_published_tiles_decode(real_loveda_tiles: Path) -> None:
    present = {"0": {1, 2, 3, 4, 7}, "1": {1, 2, 3, 4, 6, 7}, "2": {1, 4, 6, 7}}
    for name, stored in present.items():
        image = loveda.decode_image(real_loveda_tiles / "images_png" / f"{name}.png")
        label = loveda.decode_label(real_loveda_tiles / "masks_png" / f"{name}.png")
        assert image.shape == (1024, 1024, 3)
        assert set(np.unique(label).tolist()) == {value - 1 for value in stored}
