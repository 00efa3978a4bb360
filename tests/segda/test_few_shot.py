"""The few labelled target images: which they are, that no others are read, and that results say so."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segda import splits
from segda.config import TrainConfig
from segda.datasets.loaders import training_batches
from segda.datasets.scenes import generate_scenes
from segda.errors import ConfigError, DatasetNotFoundError
from segda.splits import open_splits
from segda.training import train


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return generate_scenes(tmp_path_factory.mktemp("data") / "scenes", size=64, train=6, val=1, seed=1)


def configure(root: Path, few_shot: Any, *, method: str = "joint") -> TrainConfig:
    domain = {"dataset": "scenes", "root": root}
    data: dict[str, Any] = {
        "source": domain | {"domain": "urban"},
        "target": domain | {"domain": "rural"},
        "height": 64,
        "width": 64,
        "cache": root.parent / "cache",
    }
    if few_shot is not None:
        data["few_shot"] = few_shot
    return TrainConfig.model_validate(
        {
            "data": data,
            "model": {"pretrained": "none"},
            "method": {"name": method},
            "steps": 1,
            "batch_size": 4,
            "precision": "fp32",
            "device": "cpu",
            "oracle": "never",
        }
    )


def names(config: TrainConfig) -> tuple[str, ...]:
    few = open_splits(config).few_shot
    assert few is not None
    assert few.labels is not None
    return few.names


def test_images_are_drawn_by_their_own_seed(scenes):
    first = names(configure(scenes, {"images": 3}))
    assert len(set(first)) == 3
    assert names(configure(scenes, {"images": 3, "seed": 0})) == first
    draws = {names(configure(scenes, {"images": 3, "seed": seed})) for seed in range(4)}
    assert len(draws) > 1


def test_more_images_are_the_fewer_and_others(scenes):
    drawn = [set(names(configure(scenes, {"images": number}))) for number in (1, 2, 4)]
    assert drawn[0] < drawn[1] < drawn[2]


def of_camvid(root: Path, few_shot: dict[str, Any]) -> TrainConfig:
    """Return a run on day frames as target; decoding them is left out."""
    plain = configure(root, few_shot).model_dump()
    plain["data"]["source"] = {"dataset": "camvid", "domain": "dusk", "root": root}
    plain["data"]["target"] = {"dataset": "camvid", "domain": "day", "root": root}
    return TrainConfig.model_validate(plain)


@pytest.fixture
def drives(tmp_path) -> Path:
    """CamVid's layout with frames of two drives, one of dusk and one that has a single frame."""
    for name in ("0016E5_1", "0016E5_2", "0016E5_3", "0001TP_1", "Seq05VD_f1", "Seq05VD_f2", "Seq05VD_f3"):
        for folder, array in (("train", np.zeros((8, 8, 3))), ("trainannot", np.zeros((8, 8)))):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(tmp_path / folder / f"{name}.png")
    return tmp_path


def drawn(config: TrainConfig) -> list[str]:
    return list(splits.few_shot_names(config.data.few_shot, config.data.target))


def test_images_per_scene_are_drawn_of_each_drive(drives):
    one = drawn(of_camvid(drives, {"images": 1, "per": "scene"}))
    assert [name.partition("_")[0] for name in one] == ["0016E5", "Seq05VD"]
    two = drawn(of_camvid(drives, {"images": 2, "per": "scene"}))
    assert [name.partition("_")[0] for name in two] == ["0016E5"] * 2 + ["Seq05VD"] * 2
    assert len(set(two)) == 4  # no image twice, as in a published list
    assert len({tuple(drawn(of_camvid(drives, {"images": 2, "per": "scene", "seed": seed}))) for seed in range(5)}) > 1
    # Scenes are drawn apart: without the other drive the draws of this one are the same.
    for path in drives.glob("*/Seq05VD*"):
        path.unlink()
    assert drawn(of_camvid(drives, {"images": 2, "per": "scene"})) == two[:2]


def test_too_few_images_in_a_scene_are_told_with_its_name(drives):
    with pytest.raises(
        ConfigError, match=r"few_shot asks for 4 images, scene 0016E5 in the training split of day .* has 3"
    ):
        drawn(of_camvid(drives, {"images": 4, "per": "scene"}))


def test_a_data_set_that_knows_no_scenes_says_so(scenes):
    with pytest.raises(ConfigError, match=r"images per scene, and scenes does not say which scene .* use per: image"):
        names(configure(scenes, {"images": 1, "per": "scene"}))


def test_named_images_are_those(scenes):
    known = open_splits(configure(scenes, {"images": 6})).few_shot.names
    assert names(configure(scenes, {"names": [known[4], known[1]]})) == (known[1], known[4])
    with pytest.raises(
        DatasetNotFoundError, match=r"'train', has no sample 'nowhere'; names of its 6 are such as '\d+'"
    ):
        names(configure(scenes, {"names": ["nowhere"]}))
    with pytest.raises(ConfigError, match=r"few_shot asks for 7 images, the training split .* has 6; ask for fewer"):
        names(configure(scenes, {"images": 7}))


def test_a_result_names_the_images_that_it_used(scenes, tmp_path):
    config = configure(scenes, {"images": 2})
    train(config, lambda *_: None, folder=tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert tuple(result["few_shot"]) == names(config)
    assert not result["uses_target_labels"]


@pytest.mark.parametrize(
    ("few_shot", "method", "message"),
    [
        (None, "joint", "method joint trains with a few labelled target images; say which"),
        ({"images": 2}, "source_only", "method source_only uses no target labels; leave data.few_shot out"),
        ({"images": 0}, "joint", "greater than or equal to 1"),
        ({"names": ["a", "a"]}, "joint", "named twice"),
        ({"names": ["a"], "seed": 1}, "joint", "names leave nothing to draw"),
        ({"names": ["a"], "images": 2}, "joint", "1 names for 2 images"),
        ({"names": ["a"], "per": "scene"}, "joint", "names leave nothing to draw"),
    ],
)
def test_what_does_not_fit_is_refused(scenes, few_shot, method, message):
    with pytest.raises(ValueError, match=message):
        configure(scenes, few_shot, method=method)


@pytest.mark.parametrize(
    "few_shot", [{"names": ["a", "b"]}, {"names": ["a"], "images": 1}, {"images": 2, "per": "scene", "seed": 3}]
)
def test_a_configuration_that_was_written_is_read_as_it_was(scenes, few_shot):
    """With every field in it, as in checkpoints, in the ledger and between processes."""
    config = configure(scenes, few_shot)
    assert config.data.few_shot.images == len(few_shot.get("names", "ab"))
    for written in (config.model_dump(), json.loads(config.model_dump_json())):
        assert TrainConfig.model_validate(written) == config
    assert TrainConfig.model_validate(config.canonical()).fingerprint() == config.fingerprint()


def test_of_a_method_on_another_one_both_are_named(scenes):
    plain = configure(scenes, {"images": 2}).model_dump()
    with pytest.raises(ValueError, match="method mic on dacs uses no target labels"):
        TrainConfig.model_validate(plain | {"method": {"name": "mic"}})
    del plain["data"]["few_shot"]
    with pytest.raises(ValueError, match="method mic on joint trains with a few labelled target images"):
        TrainConfig.model_validate(plain | {"method": {"name": "mic", "host": {"name": "joint"}}})


def test_weights_of_labels_are_augmented_like_the_labels(scenes, tmp_path):
    """As maps beside the cache, also through loader processes: where a label went, its weight went."""
    split = open_splits(configure(scenes, {"images": 6})).few_shot
    labels = np.random.default_rng(0).integers(0, 5, split.labels.shape, dtype=np.uint8)
    np.save(tmp_path / "labels.npy", labels)
    np.save(tmp_path / "weights.npy", labels * 50)
    mapped = split.with_maps(tmp_path / "labels.npy", tmp_path / "weights.npy")
    for workers in (0, 1):
        batches = list(
            training_batches(
                mapped, recipe="nadir_color", size=(32, 64), batch_size=3, seed=0, steps=2, workers=workers
            )
        )
        for batch in batches:
            assert batch.label is not None
            assert batch.weight is not None
            assert batch.weight.shape == batch.label.shape == (3, 32, 64)
            assert torch.equal(batch.weight, batch.label * 50)
            assert len(batch.label.unique()) > 2


def test_labels_beyond_a_scaled_image_are_void_and_weigh_nothing(scenes, tmp_path):
    split = open_splits(configure(scenes, {"images": 6})).few_shot
    labels = np.full(split.labels.shape, 2, dtype=np.uint8)
    np.save(tmp_path / "labels.npy", labels)
    np.save(tmp_path / "weights.npy", labels * 100)
    mapped = split.with_maps(tmp_path / "labels.npy", tmp_path / "weights.npy")
    batches = list(training_batches(mapped, recipe="scale_crop", size=(64, 64), batch_size=4, seed=0, steps=6))
    label = torch.cat([batch.label for batch in batches])
    weight = torch.cat([batch.weight for batch in batches])
    assert set(label.unique().tolist()) == {2, 255}
    assert set(weight[label == 255].tolist()) == {0}
    assert set(weight[label == 2].tolist()) == {200}
