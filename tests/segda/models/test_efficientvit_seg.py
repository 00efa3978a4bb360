from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from segda.models.efficientvit_seg import EfficientViTSeg, linear_attention

Shapes = Iterator[tuple[str, tuple[int, ...]]]
DEPTHS = {"b0": (2, 2, 2, 2, 1), "b1": (2, 3, 3, 4, 3)}  # of four stages, and in the middle of the head
WIDTHS = {"b0": (8, 16, 32, 64, 128, 32), "b1": (16, 32, 64, 128, 256, 64)}


def layer(name: str, width: int, fan_in: int, kernel_size: int = 1, *, bias: bool = False, norm: bool = True) -> Shapes:
    yield f"{name}.conv.weight", (width, fan_in, kernel_size, kernel_size)
    if bias:
        yield f"{name}.conv.bias", (width,)
    if norm:
        yield from ((f"{name}.norm.{part}", (width,)) for part in ("weight", "bias", "running_mean", "running_var"))
        yield f"{name}.norm.num_batches_tracked", ()


def inverted(name: str, width: int, out: int, *, few_norms: bool = False) -> Shapes:
    yield from layer(f"{name}.inverted_conv", 4 * width, width, bias=few_norms, norm=not few_norms)
    yield from layer(f"{name}.depth_conv", 4 * width, 1, 3, bias=few_norms, norm=not few_norms)
    yield from layer(f"{name}.point_conv", out, 4 * width)


def official_shapes(variant: str, num_classes: int = 19) -> Shapes:
    """Names and shapes of the authors' file, from their description."""
    *widths, head = WIDTHS[variant]
    yield from layer("backbone.input_stem.op_list.0", widths[0], 3, 3)
    yield from layer("backbone.input_stem.op_list.1.main.depth_conv", widths[0], 1, 3)
    yield from layer("backbone.input_stem.op_list.1.main.point_conv", widths[0], widths[0])
    for stage in range(4):
        width, out = widths[stage : stage + 2]
        blocks = f"backbone.stages.{stage}.op_list"
        yield from inverted(f"{blocks}.0.main", width, out, few_norms=stage >= 2)
        for index in range(1, DEPTHS[variant][stage] + (stage >= 2)):
            if stage < 2:
                yield from inverted(f"{blocks}.{index}.main", out, out)
                continue
            attention = f"{blocks}.{index}.context_module.main"
            yield f"{attention}.qkv.conv.weight", (3 * out, out, 1, 1)
            yield f"{attention}.aggreg.0.0.weight", (3 * out, 1, 5, 5)
            yield f"{attention}.aggreg.0.1.weight", (3 * out, 16, 1, 1)
            yield from layer(f"{attention}.proj", out, 2 * out)
            yield from inverted(f"{blocks}.{index}.local_module.main", out, out, few_norms=True)
    yield from layer("head.input_ops.0.op_list.0", head, widths[4])
    yield from layer("head.input_ops.1.op_list.0", head, widths[3])
    yield from layer("head.input_ops.2", head, widths[2])
    for index in range(DEPTHS[variant][4]):
        yield from inverted(f"head.middle.op_list.{index}.main", head, head)
    yield from layer("head.output_ops.0.op_list.0", 4 * head, head)
    yield from layer("head.output_ops.0.op_list.1", num_classes, 4 * head, bias=True, norm=False)


def official_state(variant: str = "b0") -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = {name: torch.randn(shape) for name, shape in official_shapes(variant)}
    for name, value in state.items():
        if name.endswith("running_var"):
            value.abs_().add_(0.5)
        elif name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(len(name))
        elif value.ndim == 4:
            value.mul_(value[0].numel() ** -0.5)
    return state


def loaded(folder: Path, state: dict[str, Tensor], num_classes: int = 19, variant: str = "b0") -> EfficientViTSeg:
    torch.save(state, folder / "official.pt")
    network = EfficientViTSeg(
        EfficientViTSeg.Config(variant=variant, pretrained="file", weights_file=folder / "official.pt"),
        num_classes=num_classes,
    )
    network.load_initial_weights()
    return network.eval()


def contents(state: dict[str, Tensor]) -> Counter[tuple[tuple[int, ...], bytes]]:
    return Counter((tuple(value.shape), value.numpy().tobytes()) for value in state.values())


@pytest.mark.parametrize(("variant", "tensors"), [("b0", 230), ("b1", 341)])
def test_the_network_has_the_tensors_of_the_published_file(variant: str, tensors: int) -> None:
    with torch.device("meta"):
        network = EfficientViTSeg(EfficientViTSeg.Config(variant=variant), num_classes=19)
    official = Counter(shape for _, shape in official_shapes(variant))

    assert official.total() == tensors
    assert Counter(tuple(value.shape) for value in network.state_dict().values()) == official


@pytest.mark.parametrize("variant", ["b0", "b1"])
def test_every_tensor_of_the_published_file_lands_and_none_is_left(variant: str, tmp_path: Path) -> None:
    state = official_state(variant)
    assert contents(loaded(tmp_path, state, variant=variant).state_dict()) == contents(state)


def test_a_file_of_the_trunk_leaves_the_head_random(tmp_path: Path) -> None:
    state = {name: value for name, value in official_state().items() if name.startswith("backbone.")}
    network = loaded(tmp_path, state | {"head.op_list.0.conv.weight": torch.zeros(8, 128, 1, 1)}, num_classes=5)
    assert contents(network.backbone.state_dict()) == contents(state)


def reference_attention(qkv: Tensor) -> Tensor:
    """Attention with the whole matrix of weights, in double precision; qkv [heads * 48, N] -> [heads * 16, N]."""
    results = []
    for head in qkv.double().split(48):
        query, key, value = head[:16].clamp(min=0), head[16:32].clamp(min=0), head[32:]
        weights = query.T @ key
        results.append(value @ (weights / weights.sum(1, keepdim=True)).nan_to_num().T)
    return torch.cat(results)


def test_a_loaded_attention_block_computes_what_the_published_one_does(tmp_path: Path) -> None:
    network = loaded(tmp_path, official_state()).double()
    state = {name: value.double() for name, value in official_state().items()}
    block = "backbone.stages.2.op_list.1"
    features = torch.randn(1, 64, 5, 7, dtype=torch.float64)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(x, mean, var, weight, bias, eps=1e-5)

    attention = f"{block}.context_module.main"
    qkv = functional.conv2d(features, state[f"{attention}.qkv.conv.weight"])
    mixed = functional.conv2d(qkv, state[f"{attention}.aggreg.0.0.weight"], padding=2, groups=192)
    mixed = functional.conv2d(mixed, state[f"{attention}.aggreg.0.1.weight"], groups=12)
    averages = reference_attention(torch.cat([qkv, mixed], 1)[0].flatten(1)).reshape(1, 128, 5, 7)
    x = features + norm(functional.conv2d(averages, state[f"{attention}.proj.conv.weight"]), f"{attention}.proj.norm")
    local = f"{block}.local_module.main"
    weight, bias = (state[f"{local}.inverted_conv.conv.{part}"] for part in ("weight", "bias"))
    y = functional.hardswish(functional.conv2d(x, weight, bias))
    weight, bias = (state[f"{local}.depth_conv.conv.{part}"] for part in ("weight", "bias"))
    y = functional.hardswish(functional.conv2d(y, weight, bias, padding=1, groups=256))
    y = functional.conv2d(y, state[f"{local}.point_conv.conv.weight"])
    expected = x + norm(y, f"{local}.point_conv.norm")

    with torch.no_grad():
        torch.testing.assert_close(network.backbone.stages[2][1](features), expected, rtol=1e-9, atol=1e-9)


def test_the_head_adds_three_levels_bicubically_at_the_finest_size() -> None:
    torch.manual_seed(0)
    head = EfficientViTSeg(EfficientViTSeg.Config(), num_classes=3).head.double().eval()
    levels = [
        torch.randn(1, channels, *size, dtype=torch.float64)
        for channels, size in ((128, (2, 3)), (64, (3, 6)), (32, (5, 11)))
    ]
    seen: list[Tensor] = []
    head.middle.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    with torch.no_grad():
        assert head(*levels).shape == (1, 128, 5, 11)
        coarse, middle, fine = (project(level) for project, level in zip(head.levels, levels, strict=True))
        enlarged = [functional.interpolate(x, size=(5, 11), mode="bicubic") for x in (coarse, middle)]
    torch.testing.assert_close(seen[0], enlarged[0] + enlarged[1] + fine)


@pytest.mark.parametrize("pixels", [(1, 3), (5, 7)])
def test_the_linear_order_equals_the_quadratic_one(pixels: tuple[int, int]) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(2, 96, *pixels, dtype=torch.float64)
    expected = torch.stack([reference_attention(image.flatten(1)) for image in qkv])
    torch.testing.assert_close(linear_attention(qkv).flatten(2), expected, rtol=1e-9, atol=1e-9)


def test_attention_is_computed_in_single_precision_under_autocast() -> None:
    torch.manual_seed(0)
    qkv = torch.randn(1, 48, 16, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        averages = linear_attention(qkv)
    assert averages.dtype == torch.float32
    torch.testing.assert_close(
        averages[0].flatten(1), reference_attention(qkv[0].flatten(1)).float(), rtol=1e-5, atol=1e-5
    )


def test_sums_over_a_large_image_do_not_overflow_in_half_precision() -> None:
    # Weights sum to 16 * 9 * 8192, which is more than half precision holds.
    averages = linear_attention(torch.full((1, 48, 64, 128), 3.0).half())
    torch.testing.assert_close(averages, torch.full_like(averages, 3.0))


@pytest.mark.parametrize("silent", ["query", "key"])
def test_where_nothing_is_similar_the_average_and_its_gradient_are_zero(silent: str) -> None:
    qkv = torch.ones(1, 48, 2, 2)
    start = 0 if silent == "query" else 16
    qkv[:, start : start + 16] = -1
    qkv.requires_grad_()
    averages = linear_attention(qkv)
    averages.sum().backward()
    assert averages.abs().max() == 0
    assert qkv.grad is not None
    assert qkv.grad.abs().max() == 0


def test_training_steps_under_autocast_stay_finite() -> None:
    torch.manual_seed(0)
    network = EfficientViTSeg(EfficientViTSeg.Config(), num_classes=3)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    image = torch.randn(2, 3, 64, 64)
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(image).logits
        optimizer.zero_grad()
        logits.square().mean().backward()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())
        optimizer.step()


def test_attention_blocks_look_at_the_whole_image() -> None:
    torch.manual_seed(0)
    backbone = EfficientViTSeg(EfficientViTSeg.Config(), num_classes=3).backbone.eval()
    block = backbone.stages[2][1]
    features = torch.randn(1, 64, 24, 24)
    far = features.clone()
    far[..., 0, 0] += 5
    with torch.no_grad():
        difference = (block(features) - block(far)).abs().amax((0, 1))
    assert difference[-4:, -4:].min() > 0


def test_features_come_at_an_eighth() -> None:
    with torch.device("meta"):
        network = EfficientViTSeg(EfficientViTSeg.Config(variant="b1"), num_classes=6)
    assert network(torch.empty(2, 3, 500, 333, device="meta")).features.shape == (2, 256, 63, 42)
