"""Class weights, rare-class sampling and well and under-represented classes in whole trainings: what they are made from."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from segda.config import TrainConfig
from segda.datasets.scenes import Scenes, generate_scenes
from segda.datasets.statistics import class_counts, rarest_half
from segda.losses.class_weights import class_weights
from segda.splits import open_splits
from segda.testing.runs import RUN_CHECKS, RunCase
from segda.training import train

LOSS = {"name": "ohem", "class_weights": "median_frequency", "auxiliary_weight": 0.5}


@dataclass(frozen=True)
class Balanced(RunCase):
    """A run with class weights and rare-class sampling."""

    def config(self, root, cache) -> TrainConfig:
        plain = super().config(root, cache).model_dump()
        plain["loss"] = LOSS
        plain["data"] |= {"sampling": {"name": "rare_class", "ratio": 8.0}, "augmentation": "aug1"}
        plain["data"] |= {"crop_height": 32, "crop_width": 32}
        return TrainConfig.model_validate(plain)


@pytest.mark.parametrize("check", RUN_CHECKS.values(), ids=RUN_CHECKS)
def test_weights_and_sampling_read_no_label_of_the_target_and_survive_an_interruption(check, tmp_path):
    check(Balanced("source_only", fields={"model": {"name": "fast_scnn"}}), tmp_path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return generate_scenes(tmp_path_factory.mktemp("data") / "scenes", size=64, train=4, val=2, seed=1)


def configure(root, **changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(plain_config(root, **changes))


def plain_config(root, *, data: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    domain = {"dataset": "scenes", "root": root}
    return {
        "data": {
            "source": domain | {"domain": "urban"},
            "target": domain | {"domain": "rural"},
            "height": 64,
            "width": 64,
            "cache": root.parent / "cache",
            **(data or {}),
        },
        "model": {"name": "fast_scnn"},
        "method": {"name": "source_only"},
        "steps": 1,
        "batch_size": 4,
        "precision": "fp32",
        "device": "cpu",
        "validators": [],
        **changes,
    }


def trained(config: TrainConfig, folder) -> tuple[dict[str, float], dict[str, Any]]:
    metrics = train(config, lambda *_: None, folder=folder).metrics
    return dict(metrics), json.loads((folder / "result.json").read_text())


def counts_of(split):
    return class_counts(split, num_classes=len(Scenes.classes))


@pytest.mark.parametrize("method", ["source_only", "target_only"])
def test_weights_are_of_the_labels_that_are_trained_on_and_listed_in_the_result(root, tmp_path, method):
    config = configure(root, loss={"class_weights": "median_frequency"}, method={"name": method})
    _, result = trained(config, tmp_path / "run")
    splits = open_splits(config)
    expected = class_weights(
        counts_of(splits.source if method == "source_only" else splits.labeled), "median_frequency"
    )
    assert list(result["class_weights"]) == list(Scenes.classes)
    np.testing.assert_allclose(list(result["class_weights"].values()), expected, rtol=1e-6)
    other = class_weights(counts_of(splits.labeled if method == "source_only" else splits.source), "median_frequency")
    assert np.allclose(other, expected) == (method == "source_only")


def test_without_weights_the_result_says_so(root, tmp_path):
    _, result = trained(configure(root), tmp_path / "run")
    assert result["class_weights"] is None


def test_miou_is_split_by_what_is_rare_in_the_source(root, tmp_path):
    """For an upper bound too, which is trained on the target: its row stands beside the others."""
    for method in ("source_only", "target_only"):
        config = configure(root, method={"name": method})
        metrics, result = trained(config, tmp_path / method)
        counts = counts_of(open_splits(config).source)
        under = rarest_half(counts)
        assert result["under_represented"] == [Scenes.classes[train_id] for train_id in under]
        assert len(under) == 3
        for split in ("source/val", "oracle/target"):
            for kind in ("well", "under"):
                names = [name for i, name in enumerate(Scenes.classes) if (i in under) == (kind == "under")]
                known = [metrics[f"{split}/iou/{name}"] for name in names if f"{split}/iou/{name}" in metrics]
                assert metrics[f"{split}/miou_{kind}"] == pytest.approx(np.mean(known))
                assert result["splits"][split][f"miou_{kind}"] == metrics[f"{split}/miou_{kind}"]


def test_classes_may_be_named_instead(root, tmp_path):
    config = configure(root, data={"under_represented": ["Water", "Road"]})
    metrics, result = trained(config, tmp_path / "run")
    assert result["under_represented"] == ["Road", "Water"]
    known = [metrics.get(f"source/val/iou/{name}") for name in ("Road", "Water")]
    assert metrics["source/val/miou_under"] == pytest.approx(np.mean([iou for iou in known if iou is not None]))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["Watr"], r"scenes has no scored class 'Watr' \(did you mean 'Water'\?\)"),
        (["Road", "Road"], "named twice"),
        (list(Scenes.classes), "holds every class"),
    ],
)
def test_names_that_are_no_such_classes_are_refused(root, names, message):
    with pytest.raises(ValidationError, match=message):
        configure(root, data={"under_represented": names})


def test_what_is_rare_is_not_told_by_target_labels(root, tmp_path):
    """Training labels of the target are garbage of one class: weights, list and metrics stay the same."""
    config = configure(root, loss={"class_weights": "enet"}, data={"sampling": {"name": "rare_class"}}, oracle="never")
    metrics, result = trained(config, tmp_path / "run")
    copy = generate_scenes(tmp_path / "scenes", size=64, train=4, val=2, seed=1)
    for path in (copy / "Train" / "Rural" / "masks_png").iterdir():
        Image.fromarray(np.full((64, 64), 5, dtype=np.uint8)).save(path)
    poisoned = configure(
        copy, loss={"class_weights": "enet"}, data={"sampling": {"name": "rare_class"}}, oracle="never"
    )
    other_metrics, other = trained(poisoned, tmp_path / "poisoned")
    for key in ("class_weights", "under_represented", "splits"):
        assert other[key] == result[key]
    timed = {"train/seconds_per_step", "train/images_per_second"}
    assert {k: v for k, v in other_metrics.items() if k not in timed} == {
        k: v for k, v in metrics.items() if k not in timed
    }


def test_a_file_that_gave_name_and_auxiliary_weight_means_what_it_meant(root):
    config = configure(root, loss={"name": "cross_entropy", "auxiliary_weight": 0.4})
    assert (config.loss.name, config.loss.auxiliary_weight, config.loss.class_weights) == ("cross_entropy", 0.4, "none")
    assert configure(root, loss={}).fingerprint() == configure(root).fingerprint()
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config
    focal = configure(root, loss={"name": "focal", "gamma": 3.0})
    assert focal.loss.gamma == 3.0
    assert focal.fingerprint() != configure(root, loss={"name": "focal"}).fingerprint()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"name": "dice", "gamma": 2.0}, "Extra inputs are not permitted"),
        ({"name": "focal", "gamma": -1.0}, "greater than or equal to 0"),
        ({"name": "ohem", "least": 0.0}, "greater than 0"),
        ({"name": "cross_entropy", "class_weights": "inverse"}, "'none', 'median_frequency', 'enet' or 'inverse_sqrt'"),
        ({"name": "focl"}, r"unknown loss 'focl' \(did you mean 'focal'\?\)"),
    ],
)
def test_settings_of_another_loss_are_refused(root, loss, message):
    with pytest.raises(ValidationError, match=message):
        configure(root, loss=loss)
