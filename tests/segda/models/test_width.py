"""Width multipliers: what they make of channels, and what is known of a scaled network."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from segda.config import NetworkConfig, TrainConfig
from segda.errors import WeightsError
from segda.models import MODELS, ModelConfig, build_segmenter
from segda.models.bisenet_v1 import BiSeNetV1
from segda.models.trunks import BACKBONES, build_trunk
from segda.models.width import scaled

SCALED = [name for name, kind in MODELS.items() if "width" in kind.Config.model_fields]


def config_of(name: str, **settings: object) -> ModelConfig:
    return MODELS[name].Config.model_validate({"name": name, **settings})


def parameters(config: ModelConfig) -> int:
    with torch.device("meta"):
        network = MODELS[config.name](config, num_classes=19)
    return sum(parameter.numel() for parameter in network.parameters())


# MobileNetV3-Large at 0.75 as it is published, and the stages of EfficientNet-B2, which are those of Lite0 times 1.1.
@pytest.mark.parametrize(
    ("width", "channels", "expected"),
    [
        (0.75, (16, 24, 40, 80, 112, 160), (16, 24, 32, 64, 88, 120)),
        (1.1, (16, 24, 40, 80, 112, 192, 320), (16, 24, 48, 88, 120, 208, 352)),
        (1.0, (8, 16, 24, 72, 1024), (8, 16, 24, 72, 1024)),
    ],
)
def test_channels_are_the_published_ones(width: float, channels: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert tuple(scaled(number, width) for number in channels) == expected


@given(st.integers(1, 128).map(lambda number: 8 * number), st.floats(0.25, 2.0))
def test_channels_are_multiples_of_8_near_what_was_asked_for(channels: int, width: float) -> None:
    found = scaled(channels, width)
    assert found % 8 == 0
    assert found >= 8
    assert 0.9 * channels * width <= found <= max(8, channels * width + 8)


def test_these_networks_can_be_scaled() -> None:
    assert SCALED == ["bisenet_v1", "bisenet_v2", "ddrnet_23_slim", "fast_scnn", "pidnet_s", "stdc"]


@pytest.mark.parametrize("name", SCALED)
def test_a_wider_network_has_more_parameters(name: str) -> None:
    counts = [parameters(config_of(name, width=width)) for width in (0.25, 0.5, 0.75, 1.0, 2.0)]
    assert sorted(set(counts)) == counts
    assert counts[-1] > 2.5 * counts[-3]


@pytest.mark.parametrize("name", SCALED)
def test_width_is_of_the_architecture_but_width_1_is_the_network_that_there_was_before(name: str) -> None:
    usual, narrow = config_of(name), config_of(name, width=0.5)
    assert "width" not in usual.architecture()
    assert "width" not in usual.label()
    assert narrow.architecture()["width"] == 0.5
    assert "width 0.5" in narrow.label()
    assert config_of(name, width=1) == usual
    assert NetworkConfig.model_validate({"model": narrow.model_dump(mode="json")}).model == narrow


@pytest.mark.parametrize("name", [name for name in SCALED if name not in ("fast_scnn", "bisenet_v1")])
def test_published_weights_of_another_width_are_refused(name: str) -> None:
    with pytest.raises(
        ValidationError, match=rf"published weights of {name} are for width 1, got 0\.5; say pretrained: none"
    ):
        config_of(name, width=0.5, pretrained="file", weights_file=Path("weights.pth"))


@pytest.mark.parametrize("width", [0.2, 2.5, float("nan"), True])
def test_a_width_out_of_range_is_refused(width: float) -> None:
    with pytest.raises(ValidationError):
        config_of("fast_scnn", width=width)


def train_config(**model: object) -> TrainConfig:
    domain = {"dataset": "scenes", "domain": "urban"}
    return TrainConfig.model_validate(
        {
            "data": {"source": domain, "target": domain | {"domain": "rural"}, "height": 32, "width": 64},
            "model": {"name": "bisenet_v1", "backbone": "mobilenet_v3_large", **model},
            "method": {"name": "source_only"},
            "steps": 20,
        }
    )


def test_a_training_from_weights_that_a_scaled_trunk_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValidationError, match=r"no ImageNet weights are known for mobilenet_v3_large at width 0\.5; say none"
    ):
        train_config(width=0.5)
    assert train_config(width=0.5, pretrained="none").model.width == 0.5
    # A file of one's own may have them.
    assert train_config(width=0.5, weights_file=tmp_path / "own.pth").model.width == 0.5


def test_a_scaled_trunk_starts_from_a_file_that_fits_and_from_no_other(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for width in (0.5, 1.0):
        torch.save(build_trunk("mobilenet_v3_large", width=width).state_dict(), tmp_path / f"{width}.pth")
    settings = {"backbone": "mobilenet_v3_large", "width": 0.5}

    network = build_segmenter(BiSeNetV1.Config(**settings, weights_file=tmp_path / "0.5.pth"), num_classes=3)
    expected = torch.load(tmp_path / "0.5.pth", weights_only=True)
    assert all(torch.equal(value, expected[name]) for name, value in network.backbone.state_dict().items())
    with pytest.raises(WeightsError, match=r"1\.0\.pth does not fit the trunk"):
        build_segmenter(BiSeNetV1.Config(**settings, weights_file=tmp_path / "1.0.pth"), num_classes=3)
    with pytest.raises(WeightsError, match=r"no ImageNet weights are known for mobilenet_v3_large at width 0\.5"):
        build_segmenter(BiSeNetV1.Config(**settings), num_classes=3)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_trunk_of_ours_can_be_scaled_and_is_told_apart(name: str) -> None:
    with torch.device("meta"):
        whole, half = build_trunk(name), build_trunk(name, width=0.5)
        levels = half(torch.empty(1, 3, 65, 97, device="meta"))
    assert tuple(level.shape[1] for level in levels) == half.channels
    assert all(2 * few <= many + 16 for few, many in zip(half.channels, whole.channels, strict=True))
    assert half.published is None


def test_a_trunk_without_a_width_names_those_that_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES._built_in, "fixed", lambda: build_trunk("resnet18"))
    with pytest.raises(
        ValidationError, match=r"fixed cannot be scaled, got 0\.5; leave width at 1, or take one of resnet18, "
    ):
        BiSeNetV1.Config(backbone="fixed", width=0.5)
    assert BiSeNetV1.Config(backbone="fixed").width == 1
