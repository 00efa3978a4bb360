"""BiSeNetV2 against a second, literal version with the names of the implementation whose weights it reads."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from segda.errors import ConfigError, WeightsError
from segda.models import build_segmenter
from segda.models.bisenet_v2 import BiSeNetV2, ContextEmbedding, GatherAndExpand
from segda.types import IMAGE_MEAN, IMAGE_STD

from .reference import Official

CLASSES = 5
BACKBONE = ("detail.", "segment.")


def unit(w: Official, x: Tensor, name: str, channels: int, side: int = 3, stride: int = 1) -> Tensor:
    return w.norm(w.conv(x, f"{name}.conv", channels, side, stride=stride), f"{name}.bn").relu()


def step(
    w: Official, x: Tensor, name: str, channels: int, side: int = 1, *, index: int = 0, stride: int = 1, groups: int = 1
) -> Tensor:
    """A convolution and a normalization that are numbers `index` and `index + 1` of a list."""
    return w.norm(w.conv(x, f"{name}.{index}", channels, side, stride=stride, groups=groups), f"{name}.{index + 1}")


def literal_block(w: Official, x: Tensor, name: str, channels: int, *, stride: int) -> Tensor:
    inputs, width = x.shape[1], 6 * x.shape[1]
    y, shortcut = unit(w, x, f"{name}.conv1", inputs), x
    if stride == 1:
        y = step(w, y, f"{name}.dwconv", width, 3, groups=inputs).relu()
    else:
        y = step(w, y, f"{name}.dwconv1", width, 3, stride=2, groups=inputs)
        y = step(w, y, f"{name}.dwconv2", width, 3, groups=width).relu()
        shortcut = step(w, x, f"{name}.shortcut", inputs, 3, stride=2, groups=inputs)
        shortcut = step(w, shortcut, f"{name}.shortcut", channels, index=2)
    return (step(w, y, f"{name}.conv2", channels) + shortcut).relu()


def literal_stage(w: Official, x: Tensor, name: str, channels: int, depth: int) -> Tensor:
    for index in range(depth):
        x = literal_block(w, x, f"segment.{name}.{index}", channels, stride=1 if index else 2)
    return x


def literal_levels(w: Official, image: Tensor) -> tuple[list[Tensor], Tensor]:
    halved = unit(w, image, "segment.S1S2.conv", 16, stride=2)
    left = unit(w, unit(w, halved, "segment.S1S2.left.0", 8, 1), "segment.S1S2.left.1", 16, stride=2)
    right = functional.max_pool2d(halved, 3, 2, 1)
    levels = [unit(w, torch.cat([left, right], 1), "segment.S1S2.fuse", 16)]
    for name, channels, depth in (("S3", 32, 2), ("S4", 64, 2), ("S5_4", 128, 4)):
        levels.append(literal_stage(w, levels[-1], name, channels, depth))
    pooled = w.norm(levels[-1].mean((2, 3), keepdim=True), "segment.S5_5.bn")
    pooled = unit(w, pooled, "segment.S5_5.conv_gap", 128, 1)
    return levels, unit(w, pooled + levels[-1], "segment.S5_5.conv_last", 128)


def literal_aggregation(w: Official, detail: Tensor, meaning: Tensor) -> Tensor:
    left1 = w.conv(step(w, detail, "bga.left1", 128, 3, groups=128), "bga.left1.2", 128)
    left2 = functional.avg_pool2d(step(w, detail, "bga.left2", 128, 3, stride=2), 3, 2, 1)
    right1 = functional.interpolate(step(w, meaning, "bga.right1", 128, 3), scale_factor=4)
    right2 = w.conv(step(w, meaning, "bga.right2", 128, 3, groups=128), "bga.right2.2", 128)
    right = functional.interpolate(left2 * right2.sigmoid(), scale_factor=4)
    return step(w, left1 * right1.sigmoid() + right, "bga.conv", 128, 3).relu()


def literal_auxiliary(w: Official, level: Tensor, name: str, factor: int) -> Tensor:
    doubled = functional.interpolate(unit(w, level, f"{name}.conv", 128), scale_factor=2)
    scores = w.conv(unit(w, doubled, f"{name}.conv_out.0.1", factor**2), f"{name}.conv_out.1", CLASSES, bias=True)
    return functional.interpolate(scores, scale_factor=factor // 2, mode="bilinear", align_corners=False)


def literal_forward(w: Official, image: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """Return logits, auxiliary logits, and the joined branches, of images as the implementation normalizes them."""
    detail = image
    for name, channels, depth in (("S1", 64, 2), ("S2", 64, 3), ("S3", 128, 3)):
        for index in range(depth):
            detail = unit(w, detail, f"detail.{name}.{index}", channels, stride=1 if index else 2)
    levels, meaning = literal_levels(w, image)
    joined = literal_aggregation(w, detail, meaning)
    scores = w.conv(unit(w, joined, "head.conv", 1024), "head.conv_out.1", CLASSES, bias=True)
    logits = functional.interpolate(scores, scale_factor=8, mode="bilinear", align_corners=False)
    heads = zip(levels, ("aux2", "aux3", "aux4", "aux5_4"), (4, 8, 16, 32), strict=True)
    return logits, [literal_auxiliary(w, level, name, factor) for level, name, factor in heads], joined


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """Images in 0..1; a multiple of 32, as the implementation needs it."""
    return torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def published(pixels: Tensor) -> tuple[Official, tuple[Tensor, list[Tensor], Tensor]]:
    weights = Official()
    mean, std = torch.tensor([0.3257, 0.3690, 0.3223]), torch.tensor([0.2112, 0.2148, 0.2115])
    return weights, literal_forward(weights, (pixels - mean[:, None, None]) / std[:, None, None])


@pytest.fixture(scope="module")
def official(published: tuple[Official, tuple[Tensor, list[Tensor], Tensor]]) -> Official:
    return published[0]


def build(state: object, folder: Path, *, num_classes: int = CLASSES) -> BiSeNetV2:
    torch.save(state, folder / "weights.pth")
    config = BiSeNetV2.Config(pretrained="file", weights_file=folder / "weights.pth")
    return build_segmenter(config, num_classes=num_classes)


def test_with_published_weights_it_is_the_published_network(
    published: tuple[Official, tuple[Tensor, list[Tensor], Tensor]], pixels: Tensor, tmp_path: Path
) -> None:
    official, (logits, auxiliary, joined) = published
    network = build(official.state, tmp_path).double().eval()
    image = (255 * pixels - torch.tensor(IMAGE_MEAN)[:, None, None]) / torch.tensor(IMAGE_STD)[:, None, None]

    with torch.no_grad():
        output = network(image, auxiliary=True)

    # The factors that change the normalization are kept in single precision.
    for ours, theirs in zip(
        (output.features, output.logits, *output.auxiliary), (joined, logits, *auxiliary), strict=True
    ):
        assert theirs.std() > 0.1
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_every_tensor_of_the_published_file_lands(official: Official, tmp_path: Path) -> None:
    state = build(official.state, tmp_path).state_dict()

    assert len(state) == len(official.state)
    assert sorted(value.double().sum().item() for value in state.values()) == pytest.approx(
        sorted(value.double().sum().item() for value in official.state.values())
    )


def test_parameters_are_those_of_the_published_file(official: Official) -> None:
    with torch.device("meta"):
        network = BiSeNetV2(BiSeNetV2.Config(), num_classes=CLASSES)

    assert sum(parameter.numel() for parameter in network.parameters()) == official.parameters()


def test_a_file_with_a_state_dict_per_branch_leaves_the_rest_random(official: Official, tmp_path: Path) -> None:
    parts = {
        branch: {name[len(branch) + 1 :]: value for name, value in official.state.items() if name.startswith(branch)}
        for branch in ("detail", "segment")
    }
    network = build(parts, tmp_path)

    assert torch.equal(network.backbone.detail[7][0].weight, official.state["detail.S3.2.conv.weight"])
    assert torch.equal(
        network.backbone.thirty_second[0].shortcut[2].weight, official.state["segment.S5_4.0.shortcut.2.weight"]
    )
    assert network.backbone.aggregation.fuse[1].weight.eq(1).all()
    assert network.head[0][1].weight.eq(1).all()


def test_a_branch_without_one_of_its_tensors_is_refused(official: Official, tmp_path: Path) -> None:
    state = {name: value for name, value in official.state.items() if name != "segment.S4.0.dwconv2.0.weight"}

    with pytest.raises(WeightsError, match=r"backbone\.sixteenth\.0\.expand\.2\.0\.weight is missing") as caught:
        build(state, tmp_path)

    assert "\n" not in str(caught.value)


def test_another_number_of_classes_starts_the_classifiers_anew(official: Official, tmp_path: Path) -> None:
    network = build(official.state, tmp_path, num_classes=CLASSES + 2)

    assert torch.equal(network.head[0][0].weight, official.state["head.conv.conv.weight"])
    assert torch.equal(network.auxiliary_heads[3].widen[0].weight, official.state["aux5_4.conv_out.0.1.conv.weight"])
    assert network.head[2].weight.shape[0] == network.auxiliary_heads[3].classify.weight.shape[0] == CLASSES + 2


@pytest.mark.parametrize(("height", "width"), [(65, 95), (33, 47), (40, 72)])
def test_branches_meet_at_an_eighth_whatever_the_size(height: int, width: int) -> None:
    with torch.device("meta"):
        network = BiSeNetV2(BiSeNetV2.Config(), num_classes=4)
    image = torch.empty(2, 3, height, width, device="meta")

    branches = network.backbone(image)

    assert branches.joined.shape == (2, 128, -(-height // 8), -(-width // 8))
    strides = [
        (level.shape[1], level.shape[2] == -(-height // stride), level.shape[3] == -(-width // stride))
        for level, stride in zip(branches.levels, (4, 8, 16, 32), strict=True)
    ]
    assert strides == [(16, True, True), (32, True, True), (64, True, True), (128, True, True)]


@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_is_its_shortcut_at_first(stride: int) -> None:
    torch.manual_seed(0)
    network = BiSeNetV2(BiSeNetV2.Config(), num_classes=3)
    block = network.backbone.sixteenth[2 - stride]
    assert isinstance(block, GatherAndExpand)
    features = torch.randn(2, 32 * (3 - stride), 8, 8)

    output = block(features)

    assert output.shape[2] == 8 // stride
    assert torch.equal(output, block.shortcut(features).relu())
    assert output.std() > 0.1


def test_the_context_of_the_image_is_normalized_in_single_precision_under_autocast() -> None:
    torch.manual_seed(0)
    embedding = ContextEmbedding(8)
    seen = []
    for module in (embedding.context[0], embedding.context[1][1]):
        module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    with torch.autocast("cpu", torch.bfloat16):
        embedding(torch.randn(2, 8, 6, 7).bfloat16())

    assert [(maps.dtype, tuple(maps.shape)) for maps in seen] == [(torch.float32, (2, 8, 1, 1))] * 2


def test_one_image_in_training_is_refused_with_the_remedy() -> None:
    network = BiSeNetV2(BiSeNetV2.Config(), num_classes=3)

    with pytest.raises(ConfigError, match=r"BiSeNetV2 needs at least 2 images per batch, got 1.*batch_size"):
        network(torch.zeros(1, 3, 32, 32))
