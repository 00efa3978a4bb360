"""What every network must show with every trunk; a new line in MODELS or BACKBONES is tested from then on."""

from functools import lru_cache

import pytest
import torch
from torch import nn

from segda.errors import ConfigError
from segda.models import BACKBONES, MODELS, build_segmenter
from segda.models.logits_only import training_only_names
from segda.types import SegmentationOutput

NUM_CLASSES = 5
SIZES = [(64, 96), (65, 97), (33, 47), (32, 32)]
# Deep trunks are built without memory: shapes need no arithmetic.
PAIRS = [(model, backbone) for model in MODELS for backbone in BACKBONES]


@lru_cache(maxsize=1)
def segmenter_without_memory(model: str, backbone: str) -> nn.Module:
    with torch.device("meta"):
        return build_segmenter(model, num_classes=NUM_CLASSES, backbone=backbone, pretrained="none")


@pytest.fixture(params=MODELS)
def segmenter(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return build_segmenter(request.param, num_classes=NUM_CLASSES, backbone="resnet18", pretrained="none")


@pytest.mark.parametrize(("model", "backbone"), PAIRS)
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("training", [True, False])
def test_every_output_has_the_size_of_the_image(
    model: str, backbone: str, height: int, width: int, training: bool
) -> None:
    network = segmenter_without_memory(model, backbone).train(training)

    output = network(torch.empty(2, 3, height, width, device="meta"))

    assert isinstance(output, SegmentationOutput)
    assert output.logits.shape == (2, NUM_CLASSES, height, width)
    assert [tuple(scores.shape) for scores in output.auxiliary] == (
        [(2, NUM_CLASSES, height, width)] * network.num_auxiliary if training else []
    )
    assert output.features.shape[0] == 2
    assert output.features.ndim == 4


@pytest.mark.parametrize("training", [True, False])
def test_the_argument_overrules_the_mode_about_auxiliary_outputs(segmenter: nn.Module, training: bool) -> None:
    segmenter.train(training)
    image = torch.randn(2, 3, 32, 48)

    assert segmenter(image, auxiliary=False).auxiliary == ()
    assert len(segmenter(image, auxiliary=True).auxiliary) == segmenter.num_auxiliary


def test_leaving_out_auxiliary_outputs_does_not_change_the_logits(segmenter: nn.Module) -> None:
    image = torch.randn(2, 3, 32, 48)

    assert torch.equal(segmenter(image).logits, segmenter(image, auxiliary=False).logits)


def test_every_parameter_gets_a_gradient_in_training(segmenter: nn.Module) -> None:
    torch.manual_seed(1)
    output = segmenter(torch.randn(3, 3, 64, 96))

    weights = torch.randn_like(output.logits)
    sum((scores * weights).sum() for scores in (output.logits, *output.auxiliary)).backward()

    assert [name for name, parameter in segmenter.named_parameters() if parameter.grad is None] == []


def test_training_only_parts_get_no_gradient_without_auxiliary_outputs(segmenter: nn.Module) -> None:
    segmenter(torch.randn(2, 3, 32, 48), auxiliary=False).logits.square().sum().backward()

    unused = {name.split(".")[0] for name, parameter in segmenter.named_parameters() if parameter.grad is None}
    assert unused == set(training_only_names(segmenter))


def test_identical_images_get_identical_logits_in_evaluation(segmenter: nn.Module) -> None:
    image = torch.randn(1, 3, 40, 56).repeat(3, 1, 1, 1)

    with torch.no_grad():
        logits = segmenter.eval()(image).logits

    torch.testing.assert_close(logits[1:], logits[:1].expand(2, -1, -1, -1), rtol=1e-5, atol=1e-6)


def test_images_do_not_influence_each_other_in_evaluation(segmenter: nn.Module) -> None:
    torch.manual_seed(0)
    image = torch.randn(2, 3, 40, 56)

    with torch.no_grad():
        together = segmenter.eval()(image).logits
        alone = segmenter(image[1:]).logits

    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-5)


def test_memory_format_does_not_change_the_result(segmenter: nn.Module) -> None:
    image = torch.randn(2, 3, 33, 47)
    segmenter.eval()

    with torch.no_grad():
        expected = segmenter(image).logits
        segmenter.to(memory_format=torch.channels_last)
        logits = segmenter(image.contiguous(memory_format=torch.channels_last)).logits

    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_logits_are_single_precision_under_autocast(segmenter: nn.Module) -> None:
    image = torch.randn(2, 3, 32, 48)
    with torch.autocast("cpu", torch.bfloat16):
        output = segmenter(image)

    assert {scores.dtype for scores in (output.logits, *output.auxiliary)} == {torch.float32}


def test_building_with_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'bisenet_v1'"):
        build_segmenter("bisenet", num_classes=3, backbone="resnet18", pretrained="none")
    with pytest.raises(ConfigError, match="did you mean 'resnet18'"):
        build_segmenter("bisenet_v1", num_classes=3, backbone="resnet_18", pretrained="none")


@pytest.mark.parametrize("model", MODELS)
def test_one_class_is_refused(model: str) -> None:
    with pytest.raises(ConfigError, match="at least 2 classes"):
        build_segmenter(model, num_classes=1, backbone="resnet18", pretrained="none")
