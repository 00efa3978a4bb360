from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segda.config import DataConfig
from segda.datasets import DATASETS
from segda.errors import CorruptSampleError

from .conftest import build_idda, write_label

idda, camvid12 = DATASETS["idda"], DATASETS["camvid12"]
# Bicyclist 0, Building 1, Car 2, Column_Pole 3, Fence 4, Pedestrian 5, Road 6, Sidewalk 7, SignSymbol 8, Sky 9, Tree 10, Void 11.
TABLE = [11, 1, 4, 11, 5, 3, 6, 6, 7, 10, 2, 11, 8, 11, 11, 11, 0, 11, 11, 11, 9, 11, 11, 11, 1, 11, 11]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return build_idda(tmp_path / "idda")


def test_the_red_channel_is_the_id_and_void_is_an_ordinary_class(root: Path) -> None:
    label = idda.decode_label(root / "labels" / "@3@.png")
    assert label.ravel()[:27].tolist() == TABLE
    assert 255 not in label


def test_classes_are_those_of_camvid_and_void_is_not_scored() -> None:
    domains = {"source": {"dataset": "idda", "domain": "all"}, "target": {"dataset": "camvid12", "domain": "dusk"}}
    data = DataConfig.model_validate({**domains, "height": 64, "width": 64})
    assert {camvid12.classes[train_id] for train_id in data.unscored} == {"Void"}


def test_an_unknown_id_and_a_label_stored_as_jpeg_are_refused(tmp_path: Path) -> None:
    write_label(tmp_path / "a.png", np.full((2, 2, 3), 27))
    with pytest.raises(CorruptSampleError, match=r"a.png: unknown id 27; allowed are 0..26"):
        idda.decode_label(tmp_path / "a.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "b.jpg")
    with pytest.raises(CorruptSampleError, match=r"b.jpg: .*stored without loss"):
        idda.decode_label(tmp_path / "b.jpg")


def test_the_last_tenth_in_natural_order_is_validation(root: Path) -> None:
    split = {name: [s.name for s in idda.samples(root, domain="all", split=name)] for name in ("train", "val")}
    assert split == {"train": [f"@{number}@" for number in range(11)], "val": ["@11@"]}
