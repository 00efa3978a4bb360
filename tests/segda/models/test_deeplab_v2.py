from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from segda.models.deeplab_v2 import Bottleneck, DeepLabV2, DeepLabV2Multi, DilatedScores
from segda.models.logits_only import inference_segmenter
from segda.models.trunks.resnet import resnet101
from segda.types import IMAGE_MEAN, IMAGE_STD

DEPTHS = (3, 4, 23, 3)


@pytest.fixture(scope="module")
def network() -> DeepLabV2Multi:
    torch.manual_seed(0)
    return DeepLabV2Multi(DeepLabV2Multi.Config(name="deeplab_v2_multi"), num_classes=3)


def test_the_trunk_keeps_an_eighth_by_widening_kernels() -> None:
    with torch.device("meta"):
        backbone = DeepLabV2(DeepLabV2.Config(), num_classes=3).backbone
    stages = (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)

    assert tuple(len(stage) for stage in stages) == DEPTHS
    assert [stage[0].conv1.stride[0] for stage in stages] == [1, 2, 1, 1]
    assert [{block.conv2.dilation[0] for block in stage} for stage in stages] == [{1}, {1}, {2}, {4}]
    assert {block.conv2.stride for stage in stages for block in stage} == {(1, 1)}
    # Pooling rounds up: 65 x 129 positions, not 64 x 128.
    third, fourth = backbone(torch.empty(1, 3, 512, 1024, device="meta"))
    assert (third.shape, fourth.shape) == ((1, 1024, 65, 129), (1, 2048, 65, 129))


def convolution_macs(network: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-accumulates of convolutions and normalizations (2 per value), from shapes alone."""
    counted: list[int] = []

    def count(module: nn.Module, inputs: object, output: Tensor) -> None:
        per_value = module.weight[0].numel() if isinstance(module, nn.Conv2d) else 2
        counted.append(per_value * output.numel())

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(count)
    network.eval()(torch.empty(1, 3, *size, device="meta"))
    return sum(counted)


def test_the_network_costs_what_is_published_for_it() -> None:
    with torch.device("meta"):
        network = DeepLabV2(DeepLabV2.Config(), num_classes=19)

    # The published code costs 368.8 G, with 0.04 for enlarging: it stops after two of the four convolutions that score.
    missing = 2 * network.classifier.convs[0].weight.numel() * 65 * 129
    assert (convolution_macs(network, (512, 1024)) - missing) / 1e9 == pytest.approx(368.8 - 0.04, abs=0.05)


def test_a_bottleneck_takes_the_step_first_and_adds_its_input() -> None:
    torch.manual_seed(0)
    block = Bottleneck(8, 4, stride=2, dilation=2).double().eval()
    x = torch.randn(2, 8, 9, 7, dtype=torch.float64)
    y = functional.conv2d(x, block.conv1.weight, stride=2).relu()
    y = functional.conv2d(y, block.conv2.weight, padding=2, dilation=2).relu()
    y = functional.conv2d(y, block.conv3.weight)
    expected = (y + functional.conv2d(x, block.downsample[0].weight, stride=2)).relu()

    # Normalizations divide by sqrt(1 + 1e-5) at the start.
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)


def test_scores_are_the_sum_of_all_four_dilations() -> None:
    torch.manual_seed(0)
    scores = DilatedScores(6, 3).double()
    features = torch.randn(1, 6, 33, 41, dtype=torch.float64)
    expected = sum(
        functional.conv2d(features, conv.weight, conv.bias, padding=distance, dilation=distance)
        for conv, distance in zip(scores.convs, (6, 12, 18, 24), strict=True)
    )
    torch.testing.assert_close(scores(features), expected)


def test_the_trunk_sees_blue_first_and_only_the_mean_is_taken_away(network: DeepLabV2Multi) -> None:
    pixels = torch.randint(0, 256, (1, 3, 32, 32)).float()
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    seen: list[Tensor] = []
    handle = network.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network.eval()((pixels - mean) / std)
    handle.remove()

    expected = pixels.flip(1) - torch.tensor([104.00698793, 116.66876762, 122.67891434]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-3)


def test_the_second_level_comes_from_the_third_stage_and_only_in_training(network: DeepLabV2Multi) -> None:
    image = torch.randn(2, 3, 32, 32)
    output = network.train()(image)
    (scores,) = output.auxiliary
    scores.square().mean().backward()

    assert scores.shape == output.logits.shape == (2, 3, 32, 32)
    assert network.auxiliary_head.convs[3].weight.grad is not None
    assert network.backbone.layer3[22].conv3.weight.grad.abs().sum() > 0
    assert network.backbone.layer4[0].conv1.weight.grad is None
    network.zero_grad()
    with torch.no_grad():
        assert network.eval()(image).auxiliary == ()


def test_what_is_shipped_runs_without_the_second_level() -> None:
    with torch.device("meta"):
        network = DeepLabV2Multi(DeepLabV2Multi.Config(name="deeplab_v2_multi"), num_classes=3)
    shipped = inference_segmenter(network)

    assert not hasattr(shipped, "auxiliary_head")
    assert shipped(torch.empty(1, 3, 33, 47, device="meta")).logits.shape == (1, 3, 33, 47)


def test_scores_start_small(network: DeepLabV2Multi) -> None:
    for scores in (network.classifier, network.auxiliary_head):
        for conv in scores.convs:
            assert conv.weight.std().item() == pytest.approx(0.01, rel=0.03)
            assert conv.bias.abs().max() == 0


@pytest.mark.parametrize(("kind", "prefix"), [(DeepLabV2, ""), (DeepLabV2Multi, "Scale.")])
def test_the_published_file_fills_the_trunk(kind: type[DeepLabV2], prefix: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        network = kind(DeepLabV2.Config(pretrained="file", weights_file=tmp_path / "official.pth"), num_classes=3)
        # Names and shapes of the trunk are those of every ResNet-101.
        shapes = {name: tuple(value.shape) for name, value in resnet101().state_dict().items()}
    network.to_empty(device="cpu")
    torch.nn.init.ones_(network.classifier.convs[0].weight)
    # One number each, which marks the tensor and takes no space.
    marks = {name: float(index + 1) for index, name in enumerate(shapes) if not name.endswith("num_batches_tracked")}
    state = {f"{prefix}{name}": torch.tensor(mark).expand(shapes[name]) for name, mark in marks.items()}
    state[f"{prefix}layer5.conv2d_list.0.weight"] = torch.zeros(21, 2048, 3, 3)
    torch.save(state, tmp_path / "official.pth")

    network.load_initial_weights()

    filled = {name: value for name, value in network.backbone.state_dict().items() if name in marks}
    assert filled.keys() == marks.keys()
    assert all(bool((value == marks[name]).all()) for name, value in filled.items())
    assert (network.classifier.convs[0].weight == 1).all()
