import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from segda.efficiency import count_macs
from segda.models import build_segmenter
from segda.models.bisenet_v1 import BiSeNetV1


def test_a_convolution_costs_its_kernel_at_every_output_position() -> None:
    conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)

    assert count_macs(conv, input_shape=(2, 3, 10, 12)) == 2 * 8 * 3 * 9 * 5 * 6


def test_the_network_costs_what_is_published_for_it() -> None:
    segmenter = build_segmenter(BiSeNetV1.Config(), num_classes=19, pretrained=False)

    # Published: 25.8 G at 512 x 1024, of which 0.19 G are the classifier at full instead of at 1/8 resolution.
    # An eighth of the height and a quarter of the width: 1/32 of the area.
    macs = 32 * count_macs(segmenter, input_shape=(1, 3, 64, 256))

    assert macs == pytest.approx(25.8e9, rel=0.01)
    assert macs == pytest.approx(25.8e9 - 19 * 19 * 512 * 1024 * 63 / 64, rel=0.002)


def test_the_mode_and_the_module_do_not_change() -> None:
    segmenter = build_segmenter(BiSeNetV1.Config(), num_classes=4, pretrained=False).train()
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}

    training = count_macs(segmenter, input_shape=(1, 3, 32, 64))

    assert segmenter.training
    assert all(torch.equal(value, before[name]) for name, value in segmenter.state_dict().items())
    assert training == count_macs(segmenter.eval(), input_shape=(1, 3, 32, 64))


def test_half_precision_modules_are_counted_too() -> None:
    conv = nn.Conv2d(3, 8, 1).to(torch.bfloat16)

    assert count_macs(conv, input_shape=(1, 3, 4, 4)) == 3 * 8 * 16
    assert conv.weight.dtype == torch.bfloat16


def test_fused_attention_costs_its_two_matrix_products() -> None:
    class Attention(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            # Two heads of 3 channels; 40 queries, 10 keys, values of 5 channels.
            query = image.reshape(2, 2, 3, 40).transpose(2, 3)
            key, value = query[:, :, :10], query[:, :, :10, :1].expand(-1, -1, -1, 5)
            return functional.scaled_dot_product_attention(query, key, value)

    assert count_macs(Attention(), input_shape=(2, 6, 4, 10)) == 2 * 2 * 40 * 10 * (3 + 5)
