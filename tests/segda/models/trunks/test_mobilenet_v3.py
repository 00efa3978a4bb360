from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from segda.efficiency import count_macs
from segda.models.trunks.mobilenet_v3 import SqueezeExcitation, mobilenet_v3_large
from segda.models.trunks.pretrained import load_imagenet_weights

# Of each block: channels in, kernel, width, channels out, channels inside of squeeze-and-excitation, as torchvision has them.
BLOCKS = (
    (16, 3, 16, 16, 0),
    (16, 3, 64, 24, 0),
    (24, 3, 72, 24, 0),
    (24, 5, 72, 40, 24),
    (40, 5, 120, 40, 32),
    (40, 5, 120, 40, 32),
    (40, 3, 240, 80, 0),
    (80, 3, 200, 80, 0),
    (80, 3, 184, 80, 0),
    (80, 3, 184, 80, 0),
    (80, 3, 480, 112, 120),
    (112, 3, 672, 112, 168),
    (112, 5, 672, 160, 168),
    (160, 5, 960, 160, 240),
    (160, 5, 960, 160, 240),
)


def layer(name: str, width: int, fan_in: int, kernel: int = 1) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.0.weight", (width, fan_in, kernel, kernel)
    yield from ((f"{name}.1.{part}", (width,)) for part in ("weight", "bias", "running_mean", "running_var"))
    yield f"{name}.1.num_batches_tracked", ()


def published_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of torchvision's file up to the last block."""
    yield from layer("features.0", 16, 3, 3)
    for number, (fan_in, kernel, width, out, squeezed) in enumerate(BLOCKS, start=1):
        parts = [] if width == fan_in else [(width, fan_in, 1)]
        parts.append((width, 1, kernel))
        for index, part in enumerate(parts):
            yield from layer(f"features.{number}.block.{index}", *part)
        index = len(parts)
        if squeezed:
            yield f"features.{number}.block.{index}.fc1.weight", (squeezed, width, 1, 1)
            yield f"features.{number}.block.{index}.fc1.bias", (squeezed,)
            yield f"features.{number}.block.{index}.fc2.weight", (width, squeezed, 1, 1)
            yield f"features.{number}.block.{index}.fc2.bias", (width,)
            index += 1
        yield from layer(f"features.{number}.block.{index}", out, width)


def published_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = {name: torch.randn(shape) for name, shape in published_shapes()}
    for name, value in state.items():
        if name.endswith("running_var"):
            value.abs_().add_(0.5)
        elif name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(3)
        elif value.ndim == 4:
            value.mul_(value[0].numel() ** -0.5)
    return state


def test_the_published_file_fits_without_what_the_classifier_needs(tmp_path: Path) -> None:
    state, trunk = published_state(), mobilenet_v3_large()
    rest = {name: torch.zeros(shape) for name, shape in layer("features.16", 960, 160)}
    rest |= {"classifier.0.weight": torch.zeros(1280, 960), "classifier.3.bias": torch.zeros(1000)}
    torch.save(state | rest, tmp_path / "weights.pth")

    load_imagenet_weights(
        trunk, name="mobilenet_v3_large", pretrained="imagenet", weights_file=tmp_path / "weights.pth"
    )

    found = trunk.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in found.items())


def test_blocks_compute_what_the_published_ones_do() -> None:
    trunk = mobilenet_v3_large()
    trunk.load_state_dict(published_state())
    trunk = trunk.double().eval()
    state = {name: value.double() for name, value in published_state().items()}

    def layer(x: Tensor, name: str, **settings: int) -> Tensor:
        x = functional.conv2d(x, state[f"{name}.0.weight"], **settings)
        mean, var, weight, bias = (
            state[f"{name}.1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(x, mean, var, weight, bias, eps=1e-3)

    def hardswish(x: Tensor) -> Tensor:
        return x * (x + 3).clamp(0, 6) / 6

    # Block 13 halves the size, block 14 adds its input; both weigh channels.
    x = torch.randn(2, 112, 9, 6, dtype=torch.float64)
    expected = x
    for number, stride in ((13, 2), (14, 1)):
        block = f"features.{number}.block"
        y = hardswish(layer(expected, f"{block}.0"))
        y = hardswish(layer(y, f"{block}.1", stride=stride, padding=2, groups=y.shape[1]))
        pooled = y.mean((2, 3))
        weight, bias = (state[f"{block}.2.fc1.{part}"] for part in ("weight", "bias"))
        pooled = (pooled @ weight[..., 0, 0].T + bias).clamp(min=0)
        weight, bias = (state[f"{block}.2.fc2.{part}"] for part in ("weight", "bias"))
        pooled = (pooled @ weight[..., 0, 0].T + bias + 3).clamp(0, 6) / 6
        y = layer(y * pooled[..., None, None], f"{block}.3")
        expected = y + expected if stride == 1 else y

    with torch.no_grad():
        got = trunk.features[14](trunk.features[13](x))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


class _Deepest(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = mobilenet_v3_large()

    def forward(self, image: Tensor) -> Tensor:
        return self.trunk(image).thirty_second


def test_the_trunk_has_and_costs_what_is_published_for_it() -> None:
    trunk = _Deepest()

    assert sum(parameter.numel() for parameter in trunk.parameters()) == 2_816_432
    # Published: 2.241 G at 512 x 1024, of which 0.006 are averages over whole maps, which are not counted here. A sixteenth of the
    # area costs a sixteenth, but for the weights of channels, which each image has once.
    once = sum(
        parameter.numel()
        for name, parameter in trunk.named_parameters()
        if name.endswith((".fc1.weight", ".fc2.weight"))
    )
    counted = 16 * (count_macs(trunk, input_shape=(1, 3, 128, 256)) - once) + once
    assert counted / 1e9 == pytest.approx(2.241 - 0.006, abs=0.001)


def test_early_blocks_have_plain_rectifiers_and_late_ones_do_not() -> None:
    trunk = mobilenet_v3_large()
    kinds = [{type(part) for part in block.modules()} & {nn.ReLU, nn.Hardswish} for block in trunk.features]
    assert kinds == [{nn.Hardswish}, *[{nn.ReLU}] * 6, *[{nn.Hardswish}] * 9]


def test_batch_normalization_adds_what_the_weights_were_made_with() -> None:
    assert {part.eps for part in mobilenet_v3_large().modules() if isinstance(part, nn.BatchNorm2d)} == {1e-3}


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 33), (500, 333)])
def test_features_come_at_three_scales_rounded_up(height: int, width: int) -> None:
    with torch.device("meta"):
        trunk = mobilenet_v3_large()
    levels = trunk(torch.empty(2, 3, height, width, device="meta"))

    sizes = [(-(-height // scale), -(-width // scale)) for scale in (8, 16, 32)]
    assert trunk.channels == (40, 112, 160)
    assert [tuple(level.shape) for level in levels] == [
        (2, channels, *size) for channels, size in zip((40, 112, 160), sizes, strict=True)
    ]


def test_channels_are_weighed_in_single_precision_under_autocast() -> None:
    torch.manual_seed(0)
    squeeze = SqueezeExcitation(16, 4)
    features = torch.randn(2, 16, 9, 7).bfloat16()
    seen: list[Tensor] = []
    squeeze.fc2.register_forward_hook(lambda module, inputs, output: seen.append(output))
    squeeze(features.float())

    with torch.autocast("cpu", torch.bfloat16):
        weighed = squeeze(features)

    assert weighed.dtype == torch.bfloat16
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-5, atol=1e-6)
