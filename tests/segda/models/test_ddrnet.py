"""DDRNet-23-slim against a second, literal version with the names of its authors' code."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from segda.errors import ConfigError, WeightsError
from segda.models import build_segmenter
from segda.models.ddrnet import DDRNet23Slim

from .reference import Official, bottleneck, dappm, enlarge, head, stage, stem

CLASSES = 5


def literal_forward(w: Official, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores at 1/8, auxiliary scores at 1/8, and the features between."""

    def step(x: Tensor, name: str, channels: int, side: int, index: int = 0, stride: int = 1) -> Tensor:
        return w.norm(w.conv(x, f"{name}.{index}", channels, side, stride=stride), f"{name}.{index + 1}")

    eighth = stage(w, stage(w, stem(w, image, "conv1", 32), "layer1", 32).relu(), "layer2", 64, stride=2)
    low3 = stage(w, eighth.relu(), "layer3", 128, stride=2)
    high3 = stage(w, eighth.relu(), "layer3_", 64)
    low = low3 + step(high3.relu(), "down3", 128, 3, stride=2)
    high = high3 + enlarge(step(low3.relu(), "compression3", 64, 1), high3)
    auxiliary = high
    low4, high4 = stage(w, low.relu(), "layer4", 256, stride=2), stage(w, high.relu(), "layer4_", 64)
    halved = step(high4.relu(), "down4", 128, 3, stride=2).relu()
    low = low4 + step(halved, "down4", 256, 3, index=3, stride=2)
    high = high4 + enlarge(step(low4.relu(), "compression4", 64, 1), high4)
    high = bottleneck(w, high.relu(), "layer5_.0", 64)
    low = dappm(w, bottleneck(w, low.relu(), "layer5.0", 256, stride=2), "spp", 128, 128)
    total = high + enlarge(low, high)
    return head(w, total, "final_layer", 64, CLASSES), head(w, auxiliary, "seghead_extra", 64, CLASSES), total


@pytest.fixture(scope="module")
def image() -> Tensor:
    # At 1/64 more than one pixel, and a multiple of no stride.
    return torch.randn(1, 3, 200, 133, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def published(image: Tensor) -> tuple[Official, tuple[Tensor, Tensor, Tensor]]:
    weights = Official()
    return weights, literal_forward(weights, image)


@pytest.fixture(scope="module")
def official(published: tuple[Official, tuple[Tensor, Tensor, Tensor]]) -> Official:
    return published[0]


def config_of(file: Path) -> DDRNet23Slim.Config:
    return DDRNet23Slim.Config(pretrained="file", weights_file=file)


def saved(state: object, folder: Path) -> Path:
    torch.save(state, folder / "weights.pth")
    return folder / "weights.pth"


def test_with_official_weights_it_is_the_network_of_its_authors(
    published: tuple[Official, tuple[Tensor, Tensor, Tensor]], image: Tensor, tmp_path: Path
) -> None:
    official, (scores, auxiliary, total) = published
    wrapped = {f"model.{name}": value for name, value in official.state.items()}
    file = saved(wrapped | {"loss.criterion.weight": torch.ones(19)}, tmp_path)
    network = build_segmenter(config_of(file), num_classes=CLASSES).double().eval()

    with torch.no_grad():
        output = network(image, auxiliary=True)

    torch.testing.assert_close(output.features, total, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(output.logits, enlarge(scores, image), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(output.auxiliary[0], enlarge(auxiliary, image), rtol=1e-9, atol=1e-9)
    assert scores.std() > 0.1


def test_every_tensor_of_the_official_file_lands(official: Official, tmp_path: Path) -> None:
    network = build_segmenter(config_of(saved(official.state, tmp_path)), num_classes=CLASSES)
    state = network.state_dict()

    assert len(state) == len(official.state)
    assert sorted(value.double().sum().item() for value in state.values()) == pytest.approx(
        sorted(value.double().sum().item() for value in official.state.values())
    )


def test_parameters_are_those_of_the_official_file(official: Official) -> None:
    with torch.device("meta"):
        network = DDRNet23Slim(DDRNet23Slim.Config(), num_classes=CLASSES)

    assert sum(parameter.numel() for parameter in network.parameters()) == official.parameters()


def test_a_file_from_imagenet_leaves_pyramid_and_heads_random(official: Official, tmp_path: Path) -> None:
    rest = ("spp.", "final_layer.", "seghead_extra.")
    state = {name: value for name, value in official.state.items() if not name.startswith(rest)}
    classifier = {"down5.0.weight": torch.zeros(2), "last_layer.1.bias": torch.zeros(2), "linear.bias": torch.zeros(2)}
    file = saved({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in (state | classifier).items()}}, tmp_path)
    torch.manual_seed(0)
    random = DDRNet23Slim(DDRNet23Slim.Config(), num_classes=CLASSES)
    torch.manual_seed(0)
    network = build_segmenter(config_of(file), num_classes=CLASSES)

    assert torch.equal(network.backbone.low5.conv2.weight, official.state["layer5.0.conv2.weight"])
    assert torch.equal(network.backbone.stem[0].bias, official.state["conv1.0.bias"])
    for part in ("pyramid", "head", "auxiliary_head"):
        ours, theirs = network.get_submodule(part).state_dict(), random.get_submodule(part).state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_another_number_of_classes_starts_the_classifiers_anew_and_nothing_else(
    official: Official, tmp_path: Path
) -> None:
    network = build_segmenter(config_of(saved(official.state, tmp_path)), num_classes=CLASSES + 2)

    assert torch.equal(network.head[0][2].weight, official.state["final_layer.conv1.weight"])
    assert network.head[1][2].weight.shape[0] == CLASSES + 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer4_.1.bn2.bias"), r"backbone\.high4\.1\.bn2\.bias is missing"),
        # A module that files may lack is there as a whole, or not at all.
        (lambda state: state.pop("spp.process2.0.weight"), r"pyramid\.refine\.1\.0\.weight is missing"),
        (lambda state: state.pop("final_layer.conv2.bias"), r"head\.1\.2\.bias is missing"),
        (lambda state: state.update({"fc.weight": torch.zeros(1)}), "fc.weight is not a part of ddrnet_23_slim"),
        (
            lambda state: state.update({"conv1.0.weight": torch.zeros(64, 3, 3, 3)}),
            r"backbone\.stem\.0\.weight has shape \[64, 3, 3, 3\] instead of \[32, 3, 3, 3\]",
        ),
    ],
)
def test_a_file_of_another_network_is_one_line_of_error(
    official: Official, tmp_path: Path, change: object, message: str
) -> None:
    state = dict(official.state)
    change(state)

    with pytest.raises(WeightsError, match=message) as caught:
        build_segmenter(config_of(saved(state, tmp_path)), num_classes=CLASSES)

    assert "\n" not in str(caught.value)


def test_a_file_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights of ddrnet_23_slim at .*absent\.pth"):
        build_segmenter(config_of(tmp_path / "absent.pth"), num_classes=CLASSES)


def test_a_file_without_the_wish_for_it_is_refused_and_the_other_way_round() -> None:
    with pytest.raises(ValueError, match="is read with pretrained: file only"):
        DDRNet23Slim.Config(weights_file=Path("weights.pth"))
    with pytest.raises(ValueError, match="names no file"):
        DDRNet23Slim.Config(pretrained="file")


def test_one_image_in_training_is_refused_with_the_remedy() -> None:
    network = DDRNet23Slim(DDRNet23Slim.Config(), num_classes=3)

    with pytest.raises(ConfigError, match=r"DDRNet23Slim needs at least 2 images per batch, got 1.*batch_size"):
        network(torch.zeros(1, 3, 32, 32))
