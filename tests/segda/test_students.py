"""External labels in the real loop: pinned by their digest, refused when they are others, and augmented with their images."""

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segda.config import TrainConfig
from segda.datasets.external_labels import ExternalMaps, confidences_of_levels, levels_of
from segda.datasets.scenes import generate_scenes
from segda.errors import ConfigError, CorruptSampleError, DatasetNotFoundError, SegdaError
from segda.feed import Feed
from segda.loading import load_config, load_data
from segda.methods import METHODS
from segda.rounds import round_steps
from segda.splits import data_fingerprint, open_splits, open_target
from segda.teaching import teach
from segda.team import Team
from segda.testing.methods import MethodCase
from segda.training import train
from segda.types import IGNORE_INDEX, IMAGE_MEAN, IMAGE_STD

SIDE = 64


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return generate_scenes(tmp_path_factory.mktemp("data") / "scenes", size=SIDE, train=5, val=1, seed=1)


def plain(root: Path, **data: Any) -> dict[str, Any]:
    domain = {"dataset": "scenes", "root": str(root)}
    return {
        "data": {
            "source": domain | {"domain": "urban"},
            "target": domain | {"domain": "rural"},
            "height": SIDE,
            "width": SIDE,
            "cache": str(root.parent / "cache"),
            **data,
        },
        "model": {"pretrained": "none"},
        "method": {"name": "external_labels"},
        "steps": 2,
        "report_every": 1,
        "batch_size": 4,
        "precision": "fp32",
        "device": "cpu",
        "oracle": "never",
    }


def label_by_colors(root: Path, folder: Path, *, shift: int = 0, with_confidences: bool = True) -> ExternalMaps:
    """Let the red of a target pixel be its class, and its green the confidence; the leftmost column is void."""
    target = open_target(load_data(plain(root)))
    for name, image in zip(target.names, target.images, strict=True):
        ids = (np.asarray(image[..., 0]) // 64 + shift).astype(np.uint8)
        ids[:, 0] = IGNORE_INDEX
        for kind, array in (("ids", ids), ("sure", np.asarray(image[..., 1]))):
            path = folder.with_name(f"{folder.name} {kind}") / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    sure = folder.with_name(f"{folder.name} sure") if with_confidences else None
    return teach(plain(root), folder, predictions=folder.with_name(f"{folder.name} ids"), confidences=sure)


@pytest.fixture(scope="module")
def labels(scenes) -> Path:
    label_by_colors(scenes, scenes.parent / "labels")
    return scenes.parent / "labels"


def configure(root: Path, folder: Path | str, **changes: Any) -> TrainConfig:
    return load_config(plain(root, external_labels={"folder": str(folder)}), changes=changes)


def steps_of(config: TrainConfig, number: int) -> list[Any]:
    splits = open_splits(config)
    team = Team(rank=0, size=1, device=torch.device("cpu"))
    with closing(Feed(config, splits, team, needs_target=METHODS[config.method.name].needs_target, rare=None)) as feed:
        feed.open(0, round=None)
        return [feed.on_device(feed.read(), step=step) for step in range(number)]


@pytest.mark.parametrize("workers", [0, 1])
def test_labels_and_confidences_go_where_their_pixels_go(scenes, labels, workers):
    config = configure(
        scenes,
        labels,
        **{"data.augmentation": "nadir", "data.crop_height": 32, "data.crop_width": 48, "data.workers": workers},
    )
    std, mean = torch.tensor(IMAGE_STD).view(3, 1, 1), torch.tensor(IMAGE_MEAN).view(3, 1, 1)
    table = torch.from_numpy(confidences_of_levels())
    seen_void = 0
    for step in steps_of(config, 2):
        colors = (step.target.image * std + mean).round().long()
        given = step.target.pseudo_label
        void = given.label == IGNORE_INDEX
        seen_void += int(void.sum())
        assert torch.equal(given.label[~void], (colors[:, 0] // 64)[~void])
        levels = torch.from_numpy(levels_of(colors[:, 1].numpy() / 255)).long()
        assert given.weight.dtype == torch.float32
        assert torch.equal(given.weight, table[levels].masked_fill(void, 0))
        assert given.label.shape == (4, 32, 48)
        expected = open_splits(config).external.class_confidences()
        assert np.array_equal(given.class_confidence.numpy(), expected)
        first = step.parts(2)[0].target.pseudo_label
        assert len(first.label) == len(first.weight) == 2
        assert torch.equal(first.class_confidence, given.class_confidence)
    assert seen_void


def test_what_augmentation_pads_has_no_label(scenes, labels):
    config = configure(scenes, labels, **{"data.augmentation": "scale_crop", "steps": 8})
    padded = 0
    for step in steps_of(config, 8):
        given, valid = step.target.pseudo_label, step.target.valid
        padded += int((~valid).sum())
        assert (given.label[~valid] == IGNORE_INDEX).all()
        assert (given.weight[~valid] == 0).all()
    assert padded


def test_labels_come_from_the_first_step_on(scenes, labels):
    (step, *_) = steps_of(configure(scenes, labels), 1)
    assert step.target.pseudo_label is not None
    (step, *_) = steps_of(load_config(plain(scenes), changes={"method": {"name": "dacs"}}), 1)
    assert step.target.pseudo_label is None


def test_the_digest_is_in_the_fingerprint_and_the_folder_is_not(scenes, labels, tmp_path):
    config = configure(scenes, labels)
    shutil.copytree(labels, tmp_path / "moved")
    moved = configure(scenes, tmp_path / "moved")
    assert config.data.external_labels.digest == moved.data.external_labels.digest
    assert config.fingerprint() == moved.fingerprint()
    assert data_fingerprint(config) == data_fingerprint(moved)
    label_by_colors(scenes, tmp_path / "other", shift=1)
    other = configure(scenes, tmp_path / "other")
    assert config.fingerprint() != other.fingerprint()
    assert data_fingerprint(config) != data_fingerprint(other)
    # Plain data that were written down once keep to the labels that they were written with.
    again = TrainConfig.model_validate(json.loads(config.model_dump_json()))
    assert again == config
    assert TrainConfig.model_validate(config.canonical()).fingerprint() == config.fingerprint()


def test_labels_that_were_replaced_are_refused_in_one_line(scenes, labels, tmp_path):
    shutil.copytree(labels, tmp_path / "labels")
    config = configure(scenes, tmp_path / "labels")
    shutil.rmtree(tmp_path / "labels")
    with pytest.raises(DatasetNotFoundError, match=r"no external labels in .*`segda teach` writes them"):
        open_splits(config)
    label_by_colors(scenes, tmp_path / "labels", shift=1)
    with pytest.raises(CorruptSampleError, match="are others than those that were configured") as told:
        train(config, lambda *_: None, folder=tmp_path / "run")
    assert "\n" not in str(told.value)
    with pytest.raises(
        DatasetNotFoundError, match=r"where are the external labels with the digest .*data\.external_labels\.folder"
    ):
        open_splits(TrainConfig.model_validate(config.canonical() | {"data": _without_folder(config)}))


def _without_folder(config: TrainConfig) -> dict[str, Any]:
    data = json.loads(config.data.model_dump_json())
    data["external_labels"].pop("folder")
    return data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data.height": 32},
            r"have other size \(height x width\) .*: 64x64, not 32x64; label these with `segda teach`",
        ),
        (
            {"data.target.domain": "urban", "data.source.domain": "rural"},
            r"have other images \(fingerprint\) than the target training images of this run",
        ),
    ],
)
def test_labels_of_other_images_or_another_size_are_refused(scenes, labels, changes, message):
    with pytest.raises(ConfigError, match=message):
        open_splits(configure(scenes, labels, **changes))


def test_settings_that_need_confidences_are_refused_where_there_are_none(scenes, tmp_path):
    label_by_colors(scenes, tmp_path / "plain", with_confidences=False)
    wanted = (
        r"no confidences, by which filter and refine of external_labels decide; set there filter: none, refine: false"
    )
    with pytest.raises(ConfigError, match=wanted):
        open_splits(configure(scenes, tmp_path / "plain"))
    method = {"name": "external_labels", "filter": "none", "refine": False}
    config = configure(scenes, tmp_path / "plain", method=method)
    (step, *_) = steps_of(config, 1)
    assert step.target.pseudo_label.weight is None
    assert step.target.pseudo_label.class_confidence is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"data\.external_labels\.folder: must be the folder of labels that `segda teach` wrote, got None"),
        ({"folder": 3}, r"must be the folder of labels that `segda teach` wrote, got 3"),
        ({"folder": "nowhere"}, r"data\.external_labels\.folder: no external labels in nowhere"),
        ({"folder": "x", "digest": "abc"}, r"data\.external_labels\.digest: must match"),
        (
            {"fodler": "x", "digest": "0" * 64},
            r"data\.external_labels\.fodler: unknown key \(did you mean 'folder'\?\)",
        ),
    ],
)
def test_a_wrong_place_is_told_with_its_key(scenes, given, message):
    with pytest.raises(SegdaError, match=message):
        load_config(plain(scenes, external_labels=given))


def test_a_result_names_the_labels_that_it_learned_from(scenes, labels, tmp_path):
    config = configure(scenes, labels)
    train(config, lambda *_: None, folder=tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["external_labels"] == config.data.external_labels.digest
    assert result["uses_target_labels"] is False


def test_rounds_and_external_labels_exclude_each_other(monkeypatch):
    method = MethodCase(METHODS["external_labels"]).build()
    monkeypatch.setattr(method, "round_starts", lambda: (0.5,))
    with pytest.raises(ValueError, match="has rounds, whose labels would replace the external ones"):
        round_steps(method, steps=10)
