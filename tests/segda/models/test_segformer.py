from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from segda.efficiency import count_macs
from segda.models import MODELS
from segda.models.segformer import SegFormer, SegFormerB0, _official_names

Shapes = Iterator[tuple[str, tuple[int, ...]]]
WIDTHS, REDUCTIONS, KERNELS = (32, 64, 160, 256), (8, 4, 2, 1), (7, 3, 3, 3)
LARGER = (64, 128, 320, 512)


def with_bias(name: str, *shape: int) -> Shapes:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def trunk_shapes(widths: Sequence[int] = WIDTHS, depths: Sequence[int] = (2, 2, 2, 2)) -> Shapes:
    """Names and shapes of the authors' file of the trunk, without its classifier."""
    fan_in = 3
    stages = zip(widths, depths, REDUCTIONS, KERNELS, strict=True)
    for stage, (width, depth, reduction, kernel) in enumerate(stages, start=1):
        yield from with_bias(f"patch_embed{stage}.proj", width, fan_in, kernel, kernel)
        yield from with_bias(f"patch_embed{stage}.norm", width)
        for index in range(depth):
            block = f"block{stage}.{index}"
            yield from with_bias(f"{block}.norm1", width)
            yield from with_bias(f"{block}.attn.q", width, width)
            yield from with_bias(f"{block}.attn.kv", 2 * width, width)
            yield from with_bias(f"{block}.attn.proj", width, width)
            if reduction > 1:
                yield from with_bias(f"{block}.attn.sr", width, width, reduction, reduction)
                yield from with_bias(f"{block}.attn.norm", width)
            yield from with_bias(f"{block}.norm2", width)
            yield from with_bias(f"{block}.mlp.fc1", 4 * width, width)
            yield from with_bias(f"{block}.mlp.dwconv.dwconv", 4 * width, 1, 3, 3)
            yield from with_bias(f"{block}.mlp.fc2", width, 4 * width)
        yield from with_bias(f"norm{stage}", width)
        fan_in = width


def whole_shapes(widths: Sequence[int] = WIDTHS, depths: Sequence[int] = (2, 2, 2, 2), head_width: int = 256) -> Shapes:
    """Names and shapes of the authors' file of the whole network, without the layer that it never runs."""
    yield from ((f"backbone.{name}", shape) for name, shape in trunk_shapes(widths, depths))
    for level, width in enumerate(widths, start=1):
        yield from with_bias(f"decode_head.linear_c{level}.proj", head_width, width)
    yield "decode_head.linear_fuse.conv.weight", (head_width, 4 * head_width, 1, 1)
    yield from with_bias("decode_head.linear_fuse.bn", head_width)
    yield from ((f"decode_head.linear_fuse.bn.running_{part}", (head_width,)) for part in ("mean", "var"))
    yield "decode_head.linear_fuse.bn.num_batches_tracked", ()
    yield from with_bias("decode_head.linear_pred", 19, head_width, 1, 1)


def random_state(shapes: Shapes) -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = {name: torch.randn(shape) for name, shape in shapes}
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(5)
        elif value.ndim > 1:
            value.mul_(value[0].numel() ** -0.5)
    return state


def loaded(folder: Path, state: dict[str, Tensor], num_classes: int = 19) -> SegFormer:
    torch.save(state, folder / "official.pth")
    config = SegFormerB0.Config(pretrained="file", weights_file=folder / "official.pth")
    network = SegFormerB0(config, num_classes=num_classes)
    network.load_initial_weights()
    return network.eval()


def contents(state: dict[str, Tensor]) -> Counter[tuple[tuple[int, ...], bytes]]:
    return Counter((tuple(value.shape), value.numpy().tobytes()) for value in state.values())


def test_every_tensor_of_the_published_network_lands_and_none_is_left(tmp_path: Path) -> None:
    state = random_state(whole_shapes())
    unused = {"decode_head.conv_seg.weight": torch.zeros(19, 128, 1, 1), "decode_head.conv_seg.bias": torch.zeros(19)}

    network = loaded(tmp_path, {"state_dict": state | unused, "meta": {"epoch": 1}})

    assert contents(network.state_dict()) == contents(state)


@pytest.mark.parametrize(
    ("variant", "depths", "head_width", "millions"),
    [("b1", (2, 2, 2, 2), 256, 13.7), ("b2", (3, 4, 6, 3), 768, 27.5), ("b3", (3, 4, 18, 3), 768, 47.3)],
)
def test_larger_variants_are_those_of_the_authors(
    variant: str, depths: tuple[int, ...], head_width: int, millions: float
) -> None:
    """Names and shapes of their files, and the published numbers of parameters, which are for the 150 classes of ADE20K."""
    with torch.device("meta"):
        network, of_ade = (SegFormer(SegFormer.Config(variant=variant), num_classes=classes) for classes in (19, 150))
    names = _official_names(network._variant())
    theirs = {names.translate(name): shape for name, shape in whole_shapes(LARGER, depths, head_width)}

    assert theirs == {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert sum(parameter.numel() for parameter in of_ade.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_the_smallest_variant_keeps_its_name_of_before() -> None:
    config = MODELS["segformer_b0"].Config()
    assert config.architecture() == {"name": "segformer_b0"}
    with torch.device("meta"):
        smallest = MODELS["segformer_b0"](config, num_classes=150)
    assert sum(parameter.numel() for parameter in smallest.parameters()) / 1e6 == pytest.approx(3.8, abs=0.05)


def test_a_file_of_the_trunk_leaves_the_head_random(tmp_path: Path) -> None:
    state = random_state(trunk_shapes())
    network = loaded(tmp_path, state | {"head.weight": torch.zeros(1000, 256), "head.bias": torch.zeros(1000)}, 5)
    assert contents(network.backbone.state_dict()) == contents(state)


def test_a_loaded_stage_computes_what_the_published_one_does(tmp_path: Path) -> None:
    network = loaded(tmp_path, random_state(trunk_shapes()), num_classes=3).double()
    state = {name: value.double() for name, value in random_state(trunk_shapes()).items()}
    image = torch.randn(1, 32, 17, 22, dtype=torch.float64)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: Tensor, name: str, eps: float) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + eps).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    def conv(x: Tensor, name: str, **settings: int) -> Tensor:
        return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **settings)

    # The second stage: 9 x 11 positions, keys and values from 2 x 2, two heads of 32 channels.
    x = conv(image, "patch_embed2.proj", stride=2, padding=1)
    x = norm(x.flatten(2).mT, "patch_embed2.norm", 1e-5)[0]
    for block in ("block2.0", "block2.1"):
        y = norm(x, f"{block}.norm1", 1e-6)
        reduced = conv(y.T.reshape(1, 64, 9, 11), f"{block}.attn.sr", stride=4)
        assert reduced.shape[2:] == (2, 2)
        context = linear(norm(reduced.flatten(2).mT[0], f"{block}.attn.norm", 1e-5), f"{block}.attn.kv")
        query, key, value = linear(y, f"{block}.attn.q"), context[:, :64], context[:, 64:]
        heads = []
        for head in (slice(0, 32), slice(32, 64)):
            weights = (query[:, head] @ key[:, head].T / 32**0.5).exp()
            heads.append(weights / weights.sum(1, keepdim=True) @ value[:, head])
        x = x + linear(torch.cat(heads, 1), f"{block}.attn.proj")
        y = linear(norm(x, f"{block}.norm2", 1e-6), f"{block}.mlp.fc1")
        y = conv(y.T.reshape(1, 256, 9, 11), f"{block}.mlp.dwconv.dwconv", padding=1, groups=256)[0].flatten(1).T
        x = x + linear(y * (1 + torch.erf(y / 2**0.5)) / 2, f"{block}.mlp.fc2")
    expected = norm(x, "norm2", 1e-6).T.reshape(1, 64, 9, 11)

    with torch.no_grad():
        torch.testing.assert_close(network.backbone.stage2(image), expected, rtol=1e-9, atol=1e-9)


def test_the_head_joins_all_scales_at_the_finest_size_the_coarsest_first() -> None:
    torch.manual_seed(0)
    head = SegFormerB0(SegFormerB0.Config(), num_classes=3).head.double().eval()
    sizes = ((9, 14), (5, 7), (3, 4), (2, 2))
    levels = [torch.randn(2, width, *size, dtype=torch.float64) for width, size in zip(WIDTHS, sizes, strict=True)]
    seen: list[Tensor] = []
    head.fuse.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    with torch.no_grad():
        assert head(levels).shape == (2, 256, 9, 14)
        for place, number in enumerate((4, 3, 2, 1)):
            linear = head.levels[f"c{number}"]
            projected = torch.einsum("oc,bchw->bohw", linear.weight, levels[number - 1]) + linear.bias[:, None, None]
            expected = functional.interpolate(projected, size=(9, 14), mode="bilinear", align_corners=False)
            torch.testing.assert_close(seen[0][:, 256 * place : 256 * (place + 1)], expected)


def test_normalizations_add_what_the_published_weights_were_made_with() -> None:
    with torch.device("meta"):
        backbone = SegFormerB0(SegFormerB0.Config(), num_classes=3).backbone
    eps = {name: module.eps for name, module in backbone.named_modules() if isinstance(module, nn.LayerNorm)}
    assert {name for name, value in eps.items() if value == 1e-5} == {
        name for name in eps if name.endswith(("embed.norm", "attn.norm"))
    }
    assert set(eps.values()) == {1e-5, 1e-6}


def test_the_network_costs_what_is_published_for_it() -> None:
    network = SegFormerB0(SegFormerB0.Config(), num_classes=19)
    once, twice = (count_macs(network, input_shape=(1, 3, 64, width)) / 1e9 for width in (64, 128))

    # One part grows with the area, attention with its square.
    square = (twice - 2 * once) / 2
    for (height, width), published in {(512, 512): 7.95, (1024, 2048): 121.8}.items():
        area = height * width / 64**2
        assert area * (once - square) + area**2 * square == pytest.approx(published, rel=5e-4)


@pytest.mark.parametrize(("height", "width"), [(500, 333), (65, 33), (32, 32)])
def test_features_come_at_a_quarter(height: int, width: int) -> None:
    with torch.device("meta"):
        network = SegFormerB0(SegFormerB0.Config(), num_classes=6)
    features = network(torch.empty(2, 3, height, width, device="meta")).features
    assert features.shape == (2, 256, -(-height // 4), -(-width // 4))


def test_every_position_sees_the_whole_image_in_the_first_stage() -> None:
    torch.manual_seed(0)
    stage = SegFormerB0(SegFormerB0.Config(), num_classes=3).backbone.stage1.eval()
    image = torch.randn(1, 3, 128, 128)
    far = image.clone()
    far[..., :8, :8] += 3
    with torch.no_grad():
        difference = (stage(image) - stage(far)).abs().amax((0, 1))
    assert difference[-4:, -4:].min() > 0


@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")  # the exporter's own
def test_an_exported_stage_takes_maps_of_other_sizes() -> None:
    torch.manual_seed(0)
    stage = SegFormerB0(SegFormerB0.Config(), num_classes=3).backbone.stage3.eval()
    stage.blocks = stage.blocks[:1]
    sizes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(stage, (torch.randn(2, 64, 12, 18),), dynamic_shapes={"features": sizes})
    exported = program.module()
    for shape in ((1, 64, 9, 7), (3, 64, 16, 23)):
        features = torch.randn(shape)
        torch.testing.assert_close(exported(features), stage(features), rtol=1e-4, atol=1e-4)
