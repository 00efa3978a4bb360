"""SCTNet against a second, literal version with the names of its authors' code, and the trap of its first weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from segda.errors import ConfigError, WeightsError
from segda.models import build_segmenter
from segda.models.sctnet import ConvFormerBlock, ConvolutionalAttention, SCTNet, normalize_twice

from .reference import Official, dappm, enlarge, head, stage, stem

CLASSES = 5
# Of variant s.
WIDTH = 32

Outputs = tuple[Tensor, Tensor, Tensor]


def literal_attention(w: Official, x: Tensor, name: str) -> Tensor:
    x, channels, total = w.norm(x, f"{name}.norm"), x.shape[1], 0
    for kernel, shape, padding in ((f"{name}.kv", (7, 1), (3, 0)), (f"{name}.kv3", (1, 7), (0, 3))):
        weight = w.tensor(kernel, 64, channels, *shape, spread=0.2)
        scores = functional.conv2d(x, weight, padding=padding)
        batch, _, height, width = scores.shape
        shares = scores.reshape(batch, 8, 8, height * width).softmax(3)
        shares = shares / (shares.sum(2, keepdim=True) + 1e-6)
        total = total + functional.conv2d(
            shares.reshape(batch, 64, height, width), weight.transpose(1, 0), padding=padding
        )
    return total


def literal_block(w: Official, x: Tensor, name: str) -> Tensor:
    x = x + literal_attention(w, x, f"{name}.attn_l")
    y = w.conv(w.norm(x, f"{name}.mlp_l.norm", eps=1e-6), f"{name}.mlp_l.conv1", x.shape[1], 3, bias=True)
    return x + w.conv(functional.gelu(y), f"{name}.mlp_l.conv2", x.shape[1], 3, bias=True)


def literal_forward(w: Official, image: Tensor) -> Outputs:
    """Return scores at 1/8, auxiliary scores at 1/8, and the features between."""
    x1 = stage(w, stem(w, image, "backbone.conv1", WIDTH), "backbone.layer1", WIDTH, bias=True)
    x2 = stage(w, x1.relu(), "backbone.layer2", 2 * WIDTH, stride=2, bias=True)
    x3 = stage(w, x2.relu(), "backbone.layer3", 4 * WIDTH, stride=2, bias=True)
    x3 = literal_block(w, x3.relu(), "backbone.layer3_2")
    down = w.conv(x3, "backbone.convdown4.0", 8 * WIDTH, 3, stride=2, bias=True)
    x4 = literal_block(w, w.norm(down, "backbone.convdown4.1").relu(), "backbone.layer4")
    x5 = literal_block(w, x4.relu(), "backbone.layer5")
    context = dappm(w, x5, "backbone.spp", 2 * WIDTH, 2 * WIDTH, bias=True)
    joined = torch.cat([x2, enlarge(context, x2)], 1)
    scores = head(w, joined, "decode_head", 4 * WIDTH, CLASSES, bias=True, classifier="conv_seg")
    auxiliary = head(w, x2, "auxiliary_head.0", 2 * WIDTH, CLASSES, bias=True, classifier="conv_seg")
    return scores, auxiliary, joined


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(1, 3, 104, 133, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def published(image: Tensor) -> tuple[Official, Outputs]:
    weights = Official()
    return weights, literal_forward(weights, image)


def saved(state: object, folder: Path) -> SCTNet.Config:
    torch.save(state, folder / "weights.pth")
    return SCTNet.Config(pretrained="file", weights_file=folder / "weights.pth")


def test_with_official_weights_it_is_the_network_of_its_authors(
    published: tuple[Official, Outputs], image: Tensor, tmp_path: Path
) -> None:
    official, (scores, auxiliary, joined) = published
    teacher = {
        "auxiliary_head.1.teacher_head.conv_seg.weight": torch.zeros(1),
        "auxiliary_head.1.convstage3.bias": torch.zeros(1),
    }
    config = saved({"meta": {"epoch": 1}, "state_dict": official.state | teacher}, tmp_path)
    network = build_segmenter(config, num_classes=CLASSES).double().eval()

    with torch.no_grad():
        output = network(image, auxiliary=True)

    torch.testing.assert_close(output.features, joined, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(output.logits, enlarge(scores, image), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(output.auxiliary[0], enlarge(auxiliary, image), rtol=1e-9, atol=1e-9)
    assert scores.std() > 0.1


def test_the_official_file_has_its_258_tensors_without_the_auxiliary_head_and_as_many_parameters(
    published: tuple[Official, Outputs],
) -> None:
    official, _ = published
    with torch.device("meta"):
        network = SCTNet(SCTNet.Config(), num_classes=CLASSES)

    assert len([name for name in official.state if not name.startswith("auxiliary_head.")]) == 258
    assert len(network.state_dict()) == len(official.state)
    assert sum(parameter.numel() for parameter in network.parameters()) == official.parameters()


@pytest.mark.parametrize("has_pyramid", [True, False])
def test_a_file_from_imagenet_holds_the_backbone_under_its_own_names(
    published: tuple[Official, Outputs], tmp_path: Path, has_pyramid: bool
) -> None:
    official, _ = published
    state = {
        name.removeprefix("backbone."): value
        for name, value in official.state.items()
        if name.startswith("backbone.") and (has_pyramid or ".spp." not in name)
    }
    network = build_segmenter(saved(state | {"head.fc.weight": torch.zeros(2)}, tmp_path), num_classes=CLASSES + 1)

    horizontal, theirs = network.backbone.former5.attention.horizontal, official.state["backbone.layer5.attn_l.kv3"]
    assert torch.equal(horizontal, theirs)
    shortcut, theirs = network.backbone.pyramid.shortcut[2].bias, official.state["backbone.spp.shortcut.2.bias"]
    assert torch.equal(shortcut, theirs) == has_pyramid


def test_a_file_of_the_other_variant_is_one_line_of_error(published: tuple[Official, Outputs], tmp_path: Path) -> None:
    official, _ = published
    config = saved(official.state, tmp_path).model_copy(update={"variant": "b"})

    with pytest.raises(WeightsError, match=r"backbone\.stem\.0\.weight has shape \[32, 3, 3, 3\] instead of") as caught:
        build_segmenter(config, num_classes=CLASSES)

    assert "\n" not in str(caught.value)


def test_filters_of_a_head_share_each_position() -> None:
    scores = torch.randn(2, 64, 9, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares = normalize_twice(scores)

    sums = shares.reshape(2, 8, 8, 9, 7).sum(2)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-3)
    # What one filter gives a position is in proportion to its softmax over all positions.
    positions = scores.flatten(2).softmax(-1).unflatten(2, (9, 7))
    ratio = shares[0, 3] / shares[0, 5]
    torch.testing.assert_close(ratio, positions[0, 3] / positions[0, 5])


def test_shares_are_computed_in_single_precision_under_autocast() -> None:
    scores = torch.randn(1, 64, 32, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = normalize_twice(scores.double())

    with torch.autocast("cpu", torch.bfloat16):
        shares = normalize_twice(scores)

    assert shares.dtype == torch.float32
    torch.testing.assert_close(shares.double(), expected, rtol=1e-4, atol=1e-7)


def test_filters_start_different_and_so_do_not_remain_one() -> None:
    torch.manual_seed(0)
    attention, features = ConvolutionalAttention(16), torch.randn(2, 16, 6, 9)
    target = torch.randn(2, 16, 6, 9)

    def spread(kernel: Tensor) -> float:
        """Return how much the gradients of the filters differ among each other."""
        (attention(features) * target).sum().backward()
        assert kernel.grad is not None
        return ((kernel.grad - kernel.grad.mean(0)).norm() / kernel.grad.norm()).item()

    assert attention.vertical.std().item() == pytest.approx(0.00088, rel=0.2)
    assert spread(attention.vertical) > 1e-3
    attention.zero_grad()
    torch.nn.init.zeros_(attention.vertical)
    assert spread(attention.vertical) < 1e-6


@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")  # the exporter's own
def test_an_exported_block_takes_other_sizes_and_numbers_of_images() -> None:
    torch.manual_seed(0)
    block, dynamic = ConvFormerBlock(16).eval(), torch.export.Dim.DYNAMIC
    torch.nn.init.normal_(block.attention.vertical, std=0.3)
    program = torch.export.export(
        block, (torch.randn(2, 16, 6, 9),), dynamic_shapes={"features": {0: dynamic, 2: dynamic, 3: dynamic}}
    )

    features = torch.randn(3, 16, 11, 4)
    torch.testing.assert_close(program.module()(features), block(features))


def test_one_image_in_training_is_refused_with_the_remedy() -> None:
    network = SCTNet(SCTNet.Config(), num_classes=3)

    with pytest.raises(ConfigError, match=r"SCTNet needs at least 2 images per batch, got 1.*batch_size"):
        network(torch.zeros(1, 3, 32, 32))
