"""STDC against a second, literal version with the names of its authors' code."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from segda.errors import ConfigError, WeightsError
from segda.losses import SegmentationLoss
from segda.models import build_segmenter
from segda.models.stdc import STDC, ShortTermDense

from .reference import Official

CLASSES = 5
BLOCKS = {"stdc1": (2, 2, 2), "stdc2": (4, 5, 3)}
TRUNK = "cp.backbone.features"

Outputs = tuple[Tensor, list[Tensor], Tensor, Tensor]


def active_norm(w: Official, x: Tensor, name: str) -> Tensor:
    """In-Place Activated BatchNorm without an activation: it counts no batches, and a weight's sign means nothing."""
    w.norm(x, name)
    w.state.pop(f"{name}.num_batches_tracked")
    w.state[f"{name}.weight"][::5] *= -1
    mean, variance, weight, bias = (
        w.state[f"{name}.{part}"].double()[:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * (weight.abs() + 1e-5) + bias


def conv_x(w: Official, x: Tensor, name: str, channels: int, side: int = 3, stride: int = 1) -> Tensor:
    return w.norm(w.conv(x, f"{name}.conv", channels, side, stride=stride), f"{name}.bn").relu()


def unit(w: Official, x: Tensor, name: str, channels: int, side: int = 3) -> Tensor:
    return active_norm(w, w.conv(x, f"{name}.conv", channels, side), f"{name}.bn").relu()


def literal_block(w: Official, x: Tensor, name: str, channels: int, stride: int) -> Tensor:
    first = conv_x(w, x, f"{name}.conv_list.0", channels // 2, 1)
    y = first
    if stride == 2:
        y = w.conv(first, f"{name}.avd_layer.0", channels // 2, 3, stride=2, groups=channels // 2)
        y = w.norm(y, f"{name}.avd_layer.1")
        first = functional.avg_pool2d(first, 3, 2, 1)
    outputs = [first]
    for number, part in enumerate((4, 8, 8), start=1):
        y = conv_x(w, y, f"{name}.conv_list.{number}", channels // part)
        outputs.append(y)
    return torch.cat(outputs, 1)


def literal_trunk(w: Official, image: Tensor, blocks: tuple[int, ...]) -> list[Tensor]:
    x = conv_x(w, conv_x(w, image, f"{TRUNK}.0", 32, stride=2), f"{TRUNK}.1", 64, stride=2)
    number, levels = 2, []
    for channels, depth in zip((256, 512, 1024), blocks, strict=True):
        for index in range(depth):
            x = literal_block(w, x, f"{TRUNK}.{number}", channels, 1 if index else 2)
            number += 1
        levels.append(x)
    return levels


def literal_attention(w: Official, x: Tensor, name: str) -> Tensor:
    x = unit(w, x, f"{name}.conv", 128)
    pooled = w.conv(x.mean((2, 3), keepdim=True), f"{name}.conv_atten", 128)
    return x * active_norm(w, pooled, f"{name}.bn_atten").sigmoid()


def literal_head(w: Official, x: Tensor, name: str, width: int, channels: int, image: Tensor) -> Tensor:
    scores = w.conv(unit(w, x, f"{name}.conv", width), f"{name}.conv_out", channels)
    return functional.interpolate(scores, image.shape[2:], mode="bilinear", align_corners=True)


def literal_forward(w: Official, image: Tensor, variant: str) -> Outputs:
    """Return logits, auxiliary logits, detail logits and what is classified."""
    fine, middle, deep = literal_trunk(w, image, BLOCKS[variant])
    whole = unit(w, deep.mean((2, 3), keepdim=True), "cp.conv_avg", 128, 1)
    context = functional.interpolate(literal_attention(w, deep, "cp.arm32") + whole, middle.shape[2:])
    coarse = unit(w, context, "cp.conv_head32", 128)
    context = functional.interpolate(literal_attention(w, middle, "cp.arm16") + coarse, fine.shape[2:])
    context = unit(w, context, "cp.conv_head16", 128)
    fused = unit(w, torch.cat([fine, context], 1), "ffm.convblk", 256, 1)
    attention = w.conv(w.conv(fused.mean((2, 3), keepdim=True), "ffm.conv1", 64).relu(), "ffm.conv2", 256).sigmoid()
    fused = fused * attention + fused
    auxiliary = [
        literal_head(w, context, "conv_out16", 64, CLASSES, image),
        literal_head(w, coarse, "conv_out32", 64, CLASSES, image),
    ]
    detail = literal_head(w, fine, "conv_out_sp8", 64, 1, image)
    return literal_head(w, fused, "conv_out", 256, CLASSES, image), auxiliary, detail, fused


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(1, 3, 65, 103, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def published(image: Tensor) -> tuple[Official, Outputs]:
    weights = Official()
    return weights, literal_forward(weights, image, "stdc1")


@pytest.fixture(scope="module")
def official(published: tuple[Official, Outputs]) -> Official:
    return published[0]


def whole_file(official: Official) -> dict[str, Tensor]:
    """What is in a file besides: layers of the trunk a second time, the classifier of ImageNet, three more heads for detail."""
    again = {
        f"cp.backbone.x{stride}.0.{name[len(TRUNK) + 1 :]}": value
        for stride, numbers in {2: "0", 4: "1", 8: "23", 16: "45", 32: "67"}.items()
        for name, value in official.state.items()
        if name.startswith(tuple(f"{TRUNK}.{number}." for number in numbers))
    }
    others = ("cp.backbone.conv_last.conv", "cp.backbone.fc", "cp.backbone.bn", "cp.backbone.linear")
    heads = tuple(f"conv_out_sp{stride}.conv_out" for stride in (2, 4, 16))
    return official.state | again | {f"{name}.weight": torch.zeros(2) for name in (*others, *heads)}


def build(state: object, folder: Path, *, num_classes: int = CLASSES, variant: str = "stdc1") -> STDC:
    torch.save(state, folder / "weights.pth")
    config = STDC.Config(variant=variant, pretrained="file", weights_file=folder / "weights.pth")
    return build_segmenter(config, num_classes=num_classes)


def test_with_published_weights_it_is_the_published_network(
    published: tuple[Official, Outputs], image: Tensor, tmp_path: Path
) -> None:
    official, (logits, auxiliary, detail, fused) = published
    network = build(whole_file(official), tmp_path).double().eval()

    with torch.no_grad():
        output = network(image, auxiliary=True)

    ours = (output.features, output.logits, *output.auxiliary, output.boundary.logits)
    # The 1e-5 that the code adds to weights of normalizations is left out.
    for scores, wanted in zip(ours, (fused, logits, *auxiliary, detail), strict=True):
        assert wanted.std() > 0.1
        torch.testing.assert_close(scores, wanted, rtol=1e-3, atol=1e-3)


def test_every_tensor_of_the_published_file_lands(official: Official, tmp_path: Path) -> None:
    network = build(whole_file(official), tmp_path)
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    theirs = {name: value for name, value in official.state.items() if "num_batches" not in name}

    assert len(state) == len(theirs)
    assert sorted(value.double().abs().sum().item() for value in state.values()) == pytest.approx(
        sorted(value.double().abs().sum().item() for value in theirs.values())
    )


@pytest.mark.parametrize("variant", BLOCKS)
def test_parameters_and_names_are_those_of_the_published_files(variant: str, tmp_path: Path) -> None:
    weights = Official()
    literal_forward(weights, torch.zeros(1, 3, 32, 32, dtype=torch.float64), variant)

    network = build(weights.state, tmp_path, variant=variant)

    assert sum(parameter.numel() for parameter in network.parameters()) == weights.parameters()
    last = 1 + sum(BLOCKS[variant])
    assert torch.equal(
        network.backbone.thirty_second[-1].chain[2][0].weight, weights.state[f"{TRUNK}.{last}.conv_list.3.conv.weight"]
    )


def test_a_file_from_imagenet_gives_the_trunk_and_leaves_the_rest_random(official: Official, tmp_path: Path) -> None:
    state = {
        name.removeprefix("cp.backbone."): value for name, value in official.state.items() if name.startswith(TRUNK)
    }
    rest = {"conv_last.bn.weight": torch.ones(2), "fc.weight": torch.ones(2), "linear.weight": torch.ones(2)}

    network = build({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in (state | rest).items()}}, tmp_path)

    assert torch.equal(network.backbone.stem[0][0].weight, official.state[f"{TRUNK}.0.conv.weight"])
    # In the trunk weights of normalizations mean what they are.
    assert torch.equal(network.backbone.sixteenth[0].down[1].weight, official.state[f"{TRUNK}.4.avd_layer.1.weight"])
    assert network.context.to_eighth[1].running_mean.eq(0).all()


def test_another_number_of_classes_starts_the_classifiers_anew(official: Official, tmp_path: Path) -> None:
    network = build(official.state, tmp_path, num_classes=CLASSES + 2)

    assert torch.equal(network.auxiliary_heads[1][0][0].weight, official.state["conv_out32.conv.conv.weight"])
    assert torch.equal(network.boundary_head[1].weight, official.state["conv_out_sp8.conv_out.weight"])
    assert network.head[1].weight.shape[0] == CLASSES + 2


def test_a_file_of_the_other_variant_is_one_line_of_error(official: Official, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"does not fit stdc: .*give an official file of this network") as caught:
        build(official.state, tmp_path, variant="stdc2")

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_joins_what_its_convolutions_give_at_half_the_size_for_stride_two(stride: int) -> None:
    torch.manual_seed(0)
    block = ShortTermDense(16, 32, stride=stride)
    seen = []
    for layer in (block.squeeze, *block.chain):
        layer.register_forward_hook(lambda _, inputs, output: seen.append(output))

    joined = block(torch.randn(2, 16, 9, 11))

    assert joined.shape == (2, 32, -(-9 // stride), -(-11 // stride))
    assert [maps.shape[1] for maps in seen] == [16, 8, 4, 4]
    assert torch.equal(joined[:, 16:], torch.cat(seen[1:], 1))
    first = seen[0] if stride == 1 else functional.avg_pool2d(seen[0], 3, 2, 1)
    assert torch.equal(joined[:, :16], first)


def test_the_detail_loss_teaches_the_trunk_up_to_an_eighth_and_nothing_behind_it() -> None:
    torch.manual_seed(0)
    network = STDC(STDC.Config(), num_classes=3)
    label = torch.zeros(2, 64, 64, dtype=torch.int64)
    label[:, 20:40, 10:50] = 2
    output = network(torch.randn(2, 3, 64, 64))
    loss = SegmentationLoss("cross_entropy", auxiliary_weight=0.0)
    difference = loss(output, label).value - loss(output._replace(boundary=None), label).value

    difference.backward()

    moved = {
        name for name, parameter in network.named_parameters() if parameter.grad is not None and parameter.grad.any()
    }
    prefixes = {".".join(name.split(".")[:2]) if name.startswith("backbone") else name.split(".")[0] for name in moved}
    assert prefixes == {"backbone.stem", "backbone.eighth", "boundary_head"}


def test_pooled_maps_are_computed_in_single_precision_under_autocast() -> None:
    torch.manual_seed(0)
    network = STDC(STDC.Config(), num_classes=3)
    seen = []
    modules = (network.context.whole[1], network.context.refine_sixteenth.attention[1], network.fusion.attention[2])
    for module in modules:
        module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    with torch.autocast("cpu", torch.bfloat16):
        network(torch.randn(2, 3, 32, 64))

    assert [(maps.dtype, tuple(maps.shape[2:])) for maps in seen] == [(torch.float32, (1, 1))] * 3


def test_one_image_in_training_is_refused_with_the_remedy() -> None:
    network = STDC(STDC.Config(), num_classes=3)

    with pytest.raises(ConfigError, match=r"STDC needs at least 2 images per batch, got 1.*batch_size"):
        network(torch.zeros(1, 3, 32, 32))
