"""The look of target images in whole trainings: what it needs, whom it reaches, and that no target label is read for it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from segda.config import TrainConfig
from segda.config_problems import validated
from segda.datasets.scenes import generate_scenes
from segda.errors import ConfigError
from segda.feed import Feed
from segda.methods import METHODS
from segda.named import guests_in
from segda.splits import open_splits
from segda.team import Team
from segda.testing.runs import RUN_CHECKS, RunCase
from segda.transforms.styles import STYLES


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return generate_scenes(tmp_path_factory.mktemp("data") / "scenes", size=64, train=6, val=1, seed=1)


def plain(root: Path, style: Any = None, *, method: str = "source_only", **fields: Any) -> dict[str, Any]:
    domain = {"dataset": "scenes", "root": str(root)}
    data: dict[str, Any] = {
        "source": domain | {"domain": "urban"},
        "target": domain | {"domain": "rural"},
        "height": 64,
        "width": 64,
        "cache": str(root.parent / "cache"),
    }
    if style is not None:
        data["style"] = style
    return {
        "data": data,
        "model": {"pretrained": "none"},
        "method": {"name": method},
        "steps": 2,
        "batch_size": 4,
        "precision": "fp32",
        "device": "cpu",
        "oracle": "never",
        **fields,
    }


def configure(*arguments: Any, **options: Any) -> TrainConfig:
    return validated(TrainConfig, plain(*arguments, **options), where="configuration")


def read(config: TrainConfig) -> Any:
    """Return the images and labels of the first two steps."""
    team = Team(rank=0, size=1, device=torch.device("cpu"))
    feed = Feed(config, open_splits(config), team, needs_target=METHODS[config.method.name].needs_target, rare=None)
    feed.open(0, round=None)
    try:
        return [feed.on_device(feed.read(), step=step) for step in range(2)]
    finally:
        feed.close()


def test_labeled_source_images_alone_are_styled(scenes):
    few = {"few_shot": {"images": 2}}
    without = plain(scenes, method="joint")
    without["data"] |= few
    with_style = plain(scenes, "channel_statistics", method="joint")
    with_style["data"] |= few | {"style": {"name": "channel_statistics"}}
    runs = [read(validated(TrainConfig, data, where="run")) for data in (without, with_style)]
    for own, styled in zip(*runs, strict=True):
        assert not torch.equal(own.labeled.image, styled.labeled.image)
        assert torch.equal(own.labeled.label, styled.labeled.label)
        assert torch.equal(own.few_shot.image, styled.few_shot.image)
        assert torch.equal(own.target.image, styled.target.image)


def test_source_images_get_the_targets_colors_also_where_the_method_reads_no_target(scenes):
    own, styled = (read(configure(scenes, style)) for style in (None, {"name": "channel_statistics"}))
    target = read(configure(scenes, method="adversarial"))
    assert own[0].target.image.numel() == 0
    assert styled[0].target.image.numel() == 0

    def color(images: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat(images).mean((0, 2, 3))

    wanted = color([step.target.image for step in target])
    before, after = (color([step.labeled.image for step in run]) for run in (own, styled))
    assert (after - wanted).norm() < 0.6 * (before - wanted).norm()


class Styled(RunCase):
    def config(self, root: Path, cache: Path) -> TrainConfig:
        config = super().config(root, cache)
        style = STYLES["amplitude_mix"].Config(name="amplitude_mix", probability=0.8)
        return config.model_copy(update={"data": config.data.model_copy(update={"style": style})})


@pytest.mark.parametrize("check", RUN_CHECKS)
def test_target_labels_change_nothing_and_a_resumed_training_is_the_same(check, tmp_path):
    RUN_CHECKS[check](Styled("source_only"), tmp_path)


def test_a_configuration_without_a_style_is_one_with_none(scenes):
    default, named = configure(scenes), configure(scenes, {"name": "none"})
    assert default == named
    assert default.canonical()["data"]["style"] == {"name": "none"}
    assert configure(scenes, {}) == named
    fda = [configure(scenes, {"name": "fda", "beta": beta}) for beta in (0.01, 0.09)]
    assert len({config.fingerprint() for config in (default, *fda)}) == 3


@pytest.mark.parametrize(
    ("style", "method", "message"),
    [
        (
            {"name": "lab"},
            "target_only",
            r"data.style.name: method target_only trains on target images, .* set it to none",
        ),
        ({"name": "lap"}, "source_only", r"data.style.name: unknown style 'lap' .did you mean 'lab'"),
        ({"name": "lab", "beta": 0.1}, "source_only", r"data.style.beta: unknown key"),
        ({"name": "none", "probability": 1}, "source_only", r"data.style.probability: unknown key"),
        ({"name": "fda", "beta": 0.5}, "source_only", r"data.style.beta: must be smaller than 0.5"),
        ({"name": "fda", "probability": 0}, "source_only", r"data.style.probability: must be greater than 0"),
        ("fda", "source_only", r"data.style: style needs a name"),
    ],
)
def test_what_does_not_fit_is_one_line(scenes, style, method, message):
    with pytest.raises(ConfigError, match=message) as caught:
        configure(scenes, style, method=method)
    assert "\n" not in str(caught.value)


MIST = """
import numpy as np
from segda.transforms.styles import Style, StyleConfig, TransferConfig


class Mist(Style):
    class Config(TransferConfig):
        name: str = "misty:Mist"
        density: float = 0.5

    def __call__(self, source, target, *, rng):
        return np.full_like(source, 255 * self.config.density)


class Bare(Style):
    Config = StyleConfig

    def __call__(self, source, target, *, rng):
        return source
"""


def test_a_style_of_ones_own_is_named_by_its_module(scenes, tmp_path, monkeypatch):
    (tmp_path / "misty.py").write_text(MIST)
    monkeypatch.syspath_prepend(tmp_path)
    config = configure(scenes, {"name": "misty:Mist", "density": 0.2})
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config
    assert [guest.name for guest in guests_in(config)] == ["misty:Mist"]
    first = read(config)[0].labeled.image
    assert torch.equal(first[:, :, :1, :1].expand_as(first), first)
    with pytest.raises(ConfigError, match=r"style 'misty:Bare' must have a class attribute Config, .*TransferConfig"):
        configure(scenes, {"name": "misty:Bare"})
