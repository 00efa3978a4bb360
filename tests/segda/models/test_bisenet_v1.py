from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from segda.errors import ConfigError
from segda.models import build_segmenter
from segda.models.bisenet_v1 import AttentionRefinement, BiSeNetV1
from segda.models.blocks import pool
from segda.models.logits_only import inference_segmenter
from segda.models.trunks.resnet import resnet18


def literal_forward(network: BiSeNetV1, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The network as it is usually written: classifiers after the up-sampling, every factor on the full map."""

    def up(features: Tensor, size: torch.Size) -> Tensor:
        return functional.interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)

    def refine(module: torch.nn.Module, features: Tensor) -> Tensor:
        pooled = functional.adaptive_avg_pool2d(features, 1)
        return features * torch.sigmoid(module.bn(module.conv(pooled)))

    detail = network.spatial_path(image)
    pyramid = network.backbone(image)
    tail = pyramid.thirty_second.mean(3, keepdim=True).mean(2, keepdim=True)
    middle = up(refine(network.refine_sixteenth, pyramid.sixteenth), detail.shape[-2:])
    deep = up(refine(network.refine_thirty_second, pyramid.thirty_second) * tail, detail.shape[-2:])
    fused = network.fusion.project(torch.cat([detail, middle, deep], dim=1))
    fused = fused * network.fusion.attention(functional.adaptive_avg_pool2d(fused, 1)) + fused
    head_middle, head_deep = network.auxiliary_heads
    size = image.shape[-2:]
    return network.classifier(up(fused, size)), up(head_middle(middle), size), up(head_deep(deep), size)


def randomized_network(form: str = "course") -> BiSeNetV1:
    """A network in which every term matters: biases and normalizations are not at their start."""
    torch.manual_seed(0)
    network = BiSeNetV1(BiSeNetV1.Config(form=form), num_classes=4).double()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize(("height", "width"), [(64, 96), (75, 101)])
@pytest.mark.parametrize("training", [True, False])
def test_the_cheap_order_equals_the_literal_one(height: int, width: int, training: bool) -> None:
    network = randomized_network().train(training)
    image = torch.randn(3, 3, height, width, dtype=torch.float64)

    output = network(image, auxiliary=True)
    expected = literal_forward(network, image)

    for scores, wanted in zip((output.logits, *output.auxiliary), expected, strict=True):
        assert wanted.abs().max() > 0.1
        torch.testing.assert_close(scores, wanted, rtol=1e-9, atol=1e-9)


def test_the_cheap_order_has_the_literal_gradients() -> None:
    network = randomized_network()
    image = torch.randn(3, 3, 40, 56, dtype=torch.float64)
    weights = [torch.randn(3, 4, 40, 56, dtype=torch.float64) for _ in range(3)]
    parameters = list(network.parameters())

    def gradients(outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(sum((o * w).sum() for o, w in zip(outputs, weights, strict=True)), parameters)

    output = network(image)
    ours = gradients((output.logits, *output.auxiliary))
    literal = gradients(literal_forward(network, image))

    for gradient, wanted in zip(ours, literal, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-6, atol=1e-7)


def published_forward(network: BiSeNetV1, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The paper form as its public implementation computes it: by fixed factors, for multiples of 32."""

    def attention(features: Tensor, layers: torch.nn.Sequential) -> Tensor:
        return torch.sigmoid(layers[1](layers[0](features.mean((2, 3), keepdim=True))))

    def refine(module: torch.nn.Module, features: Tensor) -> Tensor:
        projected = module.project(features)
        return projected * attention(projected, module.attention)

    def twice(features: Tensor) -> Tensor:
        return functional.interpolate(features, scale_factor=2.0, mode="nearest")

    def enlarge(scores: Tensor, factor: float) -> Tensor:
        return functional.interpolate(scores, scale_factor=factor, mode="bilinear", align_corners=False)

    pyramid, path = network.backbone(image), network.context
    whole = path.whole(functional.adaptive_avg_pool2d(pyramid.thirty_second, 1)).expand(
        -1, -1, *pyramid.thirty_second.shape[2:]
    )
    sixteenth = path.to_sixteenth(twice(refine(path.refine_thirty_second, pyramid.thirty_second) + whole))
    eighth = path.to_eighth(twice(refine(path.refine_sixteenth, pyramid.sixteenth) + sixteenth))
    fused = network.fusion.project(torch.cat([network.spatial_path(image), eighth], dim=1))
    fused = fused * attention(fused, network.fusion.attention) + fused
    of_eighth, of_sixteenth = network.auxiliary_heads
    return (
        enlarge(network.classifier(fused), 8.0),
        enlarge(of_eighth(eighth), 8.0),
        enlarge(of_sixteenth(sixteenth), 16.0),
    )


@pytest.mark.parametrize("training", [True, False])
def test_the_paper_form_computes_what_its_public_implementation_does(training: bool) -> None:
    network = randomized_network("paper").train(training)
    image = torch.randn(3, 3, 64, 96, dtype=torch.float64)

    output = network(image, auxiliary=True)
    expected = published_forward(network, image)

    for scores, wanted in zip((output.logits, *output.auxiliary), expected, strict=True):
        assert wanted.abs().max() > 0.1
        torch.testing.assert_close(scores, wanted, rtol=1e-9, atol=1e-9)
    assert output.features.shape == (3, 256, 8, 12)


def test_who_names_no_form_has_the_network_that_there_was_before_there_were_two() -> None:
    config = BiSeNetV1.Config(form="course")

    assert BiSeNetV1.Config() == config
    assert config.architecture() == {"name": "bisenet_v1", "backbone": "resnet18"}
    assert "form" not in config.model_dump(mode="json")
    paper = BiSeNetV1.Config(form="paper")
    assert (config.label(), paper.label()) == ("bisenet_v1 (resnet18)", "bisenet_v1 (paper, resnet18)")
    assert BiSeNetV1.Config.model_validate(paper.model_dump(mode="json")) == paper


def test_a_file_of_weights_that_would_not_be_read_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"read with pretrained: imagenet only, got pretrained: none"):
        BiSeNetV1.Config(pretrained="none", weights_file=Path("weights.pth"))


# Counts of the published implementation without its unused ImageNet classifier, auxiliary heads included.
@pytest.mark.parametrize(
    ("backbone", "num_classes", "expected"),
    [
        ("resnet18", 7, 11_947_844),
        ("resnet18", 12, 11_998_084),
        ("resnet18", 19, 12_068_672),
        ("resnet101", 7, 48_354_884),
        ("resnet101", 12, 48_520_324),
        ("resnet101", 19, 48_752_192),
    ],
)
def test_parameter_counts_equal_the_published_ones(backbone: str, num_classes: int, expected: int) -> None:
    with torch.device("meta"):
        network = BiSeNetV1(BiSeNetV1.Config(backbone=backbone), num_classes=num_classes)

    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_the_spatial_path_and_the_fusion_have_the_published_sizes() -> None:
    with torch.device("meta"):
        network = BiSeNetV1(BiSeNetV1.Config(), num_classes=19)

    assert sum(parameter.numel() for parameter in network.spatial_path.parameters()) == 371_264
    assert sum(parameter.numel() for parameter in network.fusion.parameters()) == 175_902


def test_features_are_the_fused_maps_at_an_eighth() -> None:
    with torch.device("meta"):
        network = BiSeNetV1(BiSeNetV1.Config(), num_classes=6)

    features = network(torch.empty(2, 3, 65, 95, device="meta")).features

    assert features.shape == (2, 6, 9, 12)


def test_attention_is_computed_in_single_precision_under_autocast() -> None:
    torch.manual_seed(0)
    attention = AttentionRefinement(16)
    features = torch.randn(2, 16, 9, 7).bfloat16()
    expected = attention(features.float().mean((2, 3), keepdim=True))

    with torch.autocast("cpu", torch.bfloat16):
        weights = attention(pool(features))

    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-6)


def test_one_image_in_training_is_refused_with_the_remedy() -> None:
    network = BiSeNetV1(BiSeNetV1.Config(), num_classes=3)

    with pytest.raises(ConfigError, match=r"at least 2 images per batch, got 1.*batch_size"):
        network(torch.zeros(1, 3, 32, 32))


def test_one_image_in_evaluation_is_fine() -> None:
    network = BiSeNetV1(BiSeNetV1.Config(), num_classes=3).eval()

    with torch.no_grad():
        assert network(torch.zeros(1, 3, 32, 32)).logits.isfinite().all()


def test_the_trunk_keeps_the_initialization_that_it_has_alone() -> None:
    torch.manual_seed(3)
    alone = resnet18().state_dict()
    torch.manual_seed(3)
    network = BiSeNetV1(BiSeNetV1.Config(), num_classes=3)

    assert all(torch.equal(value, alone[name]) for name, value in network.backbone.state_dict().items())


def test_layers_outside_the_trunk_start_with_kaiming_variance() -> None:
    torch.manual_seed(0)
    network = build_segmenter(BiSeNetV1.Config(), num_classes=12, pretrained=False)

    weight = network.spatial_path[2][0].weight
    assert weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert network.classifier.bias.abs().max() == 0


def test_a_copy_for_inference_gives_the_same_logits() -> None:
    torch.manual_seed(0)
    network = BiSeNetV1(BiSeNetV1.Config(), num_classes=3).eval()
    image = torch.randn(1, 3, 33, 47)

    with torch.no_grad():
        assert torch.equal(inference_segmenter(network)(image).logits, network(image).logits)
