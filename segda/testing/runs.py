"""What a method must show in whole trainings on files: tiny procedural scenes and a real network, some seconds each.

    from segda.testing.runs import RUN_CHECKS, RunCase

    @pytest.mark.parametrize("check", RUN_CHECKS.values(), ids=RUN_CHECKS)
    def test_my_method_in_whole_trainings(check, tmp_path):
        check(RunCase("my_module:MyMethod", {"lambda_mine": 0.1}), tmp_path)

Each check gets a folder to work in: an empty one, or that of the other check of the same case, with which it shares a training.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segda.checkpoint import read_checkpoint
from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.datasets.scenes import generate_scenes
from segda.loading import load_data
from segda.methods import METHODS
from segda.splits import open_splits, open_target
from segda.teaching import teach
from segda.training import train

SIDE = 64  # pixels
STEPS = 6
_FEW_IMAGES = 2


@dataclass(frozen=True)
class RunCase:
    """A method by name, with settings.

    Attributes:
        method: key of `METHODS`, or `module:Class`.
        settings: of the method, beyond its defaults.
        fields: of the training configuration, beyond those of a tiny run.
        data: the same of its block `data`.
        augmentation: name of a recipe.
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    augmentation: str = "nadir_color"

    def config(self, root: Path, cache: Path) -> TrainConfig:
        """Return a tiny training on scenes.

        Args:
            root: of the scenes.
            cache: of decoded images.
        """
        method = METHODS[self.method]
        data: dict[str, Any] = {
            "source": {"dataset": "scenes", "domain": "urban", "root": root},
            "target": {"dataset": "scenes", "domain": "rural", "root": root},
            "height": SIDE,
            "width": SIDE,
            "augmentation": self.augmentation,
            "cache": cache,
            **self.data,
        }
        if method.uses_few_shot(self.settings):
            data["few_shot"] = {"images": _FEW_IMAGES}
        if method.uses_external_labels(self.settings):
            data["external_labels"] = {"folder": _external_labels(data, cache.parent)}
        return TrainConfig.model_validate(
            {
                "data": data,
                "model": {"name": "fast_scnn", "width": 0.25},  # the cheapest
                "method": {"name": self.method, **self.settings},
                "optimizer": {"lr": 0.01},
                "steps": STEPS,
                "report_every": 4,
                "batch_size": 4,
                "precision": "fp32",
                "device": "cpu",
                "oracle": "never",
                **self.fields,
            }
        )


def check_target_labels_change_nothing(case: RunCase, folder: Path) -> None:
    """No label file of the target is opened: without any, the weights stay the same bit for bit.

    Of a few-shot method that holds for all labels but those that the configuration names. A method that is supervised by the
    target is an upper bound and left out.
    """
    if METHODS[case.method].supervision == "target":
        return
    config = case.config(_scenes(folder), folder / "cache")
    kept = _few_shot_names(config)
    expected = _weights(config, folder / "whole")
    # The same images elsewhere, and another folder of decoded ones: nothing may come from labels that were decoded before.
    bare = folder / "without labels"
    for path in _target_labels(_scenes(bare)):
        if path.stem not in kept:
            path.unlink()
    without = case.config(bare / "scenes", bare / "cache")
    _assert_same(_weights(without, bare / "run"), expected, "target labels are absent")


def check_interrupted_equals_uninterrupted(case: RunCase, folder: Path) -> None:
    """A training that is interrupted at a report and resumed ends with the same weights and metrics bit for bit on a CPU."""
    config = case.config(_scenes(folder), folder / "cache")
    expected = _weights(config, folder / "whole")

    def stop(step: int, metrics: Mapping[str, float], checkpoint: Path) -> None:
        raise InterruptedError

    try:
        train(config, stop, folder=folder / "interrupted")
    except InterruptedError:
        _assert_same(_weights(config, folder / "interrupted"), expected, "the training was interrupted")
    else:
        raise AssertionError("a report that raises must end the training")


RUN_CHECKS: dict[str, Callable[[RunCase, Path], None]] = {
    check.__name__.removeprefix("check_"): check
    for check in (check_target_labels_change_nothing, check_interrupted_equals_uninterrupted)
}


def _external_labels(data: Mapping[str, Any], folder: Path) -> Path:
    """Write what a teacher might say of the target's training images, once in a folder: blobs of classes, more or less sure."""
    labels, said = folder / "external labels", folder / "said"
    plain = {"data": dict(data)}
    said.mkdir(exist_ok=True)
    num_classes = len(DATASETS["scenes"].classes)
    for number, name in enumerate(open_target(load_data(plain)).names):
        logits = np.random.default_rng(number).normal(0, 3, (num_classes, SIDE // 8, SIDE // 8))
        powers = np.exp(logits).repeat(8, 1).repeat(8, 2)
        np.save(said / f"{name}.npy", powers / powers.sum(0))
    teach(plain, labels, predictions=said)
    return labels


def _scenes(folder: Path) -> Path:
    return generate_scenes(folder / "scenes", size=SIDE, train=4, val=1, seed=1)


def _weights(config: TrainConfig, folder: Path) -> dict[str, Tensor]:
    train(config, lambda *_: None, folder=folder)
    weights: dict[str, Tensor] = read_checkpoint(folder / "checkpoint.pt")["method"]
    return weights


def _target_labels(root: Path) -> list[Path]:
    found = sorted((root / "Train" / "Rural" / "masks_png").iterdir())
    assert found
    return found


def _few_shot_names(config: TrainConfig) -> frozenset[str]:
    few = open_splits(config).few_shot
    return frozenset() if few is None else frozenset(few.names)


def _assert_same(got: Mapping[str, Tensor], expected: Mapping[str, Tensor], when: str) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(got[name], value), f"{name} ends with another value when {when}"
