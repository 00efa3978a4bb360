import pytest
import torch
from torch import Tensor, nn

from segda.efficiency import measure_peak_memory
from segda.models import build_segmenter
from segda.models.bisenet_v1 import BiSeNetV1

SHAPE = (1, 4, 8, 16)
INPUT_BYTES = 4 * 4 * 8 * 16


class Branches(nn.Module):
    """Holds three results at once, then frees two of them."""

    def forward(self, image: Tensor) -> Tensor:
        parts = [image + 1, image + 2, image + 3]
        total = parts[0] + parts[1] + parts[2]
        del parts
        return total.relu()


class Views(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1).view(image.shape).relu_()


def test_a_chain_holds_the_input_and_two_results() -> None:
    chain = nn.Sequential(*[nn.ReLU() for _ in range(6)])

    assert measure_peak_memory(chain, input_shape=SHAPE) == 3 * INPUT_BYTES


def test_an_operation_in_place_and_views_take_nothing() -> None:
    # `flatten` of a channels_last image copies once; the view and the operation in place do not.
    assert measure_peak_memory(Views(), input_shape=SHAPE) == 2 * INPUT_BYTES


def test_results_count_as_long_as_they_live() -> None:
    # The input, three parts, and the sums of two and of three parts.
    assert measure_peak_memory(Branches(), input_shape=SHAPE) == (1 + 3 + 2) * INPUT_BYTES


def test_weights_and_buffers_are_resident() -> None:
    norm = nn.BatchNorm2d(4)
    state_bytes = 4 * (4 * 4) + 8  # weight, bias, mean, variance, and a 64-bit counter
    # Batch normalization also returns the empty or per-channel statistics that its backward pass would use.
    expected = state_bytes + 2 * INPUT_BYTES

    assert expected <= measure_peak_memory(norm, input_shape=SHAPE) <= expected + 2 * 4 * 4


def test_weights_that_modules_share_are_resident_once() -> None:
    conv = nn.Conv2d(4, 4, 1, bias=False)

    once = measure_peak_memory(nn.Sequential(conv, nn.Conv2d(4, 4, 1, bias=False)), input_shape=SHAPE)
    shared = measure_peak_memory(nn.Sequential(conv, conv), input_shape=SHAPE)

    assert once - shared == 4 * 4 * 4


def test_half_precision_halves_the_memory() -> None:
    chain = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())

    single = measure_peak_memory(chain, input_shape=SHAPE)

    assert measure_peak_memory(chain, input_shape=SHAPE, precision="bf16") == single / 2


def test_a_network_needs_its_weights_and_more_for_larger_images() -> None:
    segmenter = build_segmenter(BiSeNetV1.Config(), num_classes=4, pretrained=False)
    weights = 4 * sum(parameter.numel() for parameter in segmenter.parameters())

    small = measure_peak_memory(segmenter, input_shape=(1, 3, 64, 64))
    large = measure_peak_memory(segmenter, input_shape=(1, 3, 128, 128))

    assert small > weights
    assert (large - weights) == pytest.approx(4 * (small - weights), rel=0.1)
    assert segmenter.training


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_count_of_tensors() -> None:
    chain = nn.Sequential(*[nn.ReLU() for _ in range(6)])
    shape = (1, 4, 512, 512)

    assert measure_peak_memory(chain, input_shape=shape, device="cuda") == measure_peak_memory(chain, input_shape=shape)
