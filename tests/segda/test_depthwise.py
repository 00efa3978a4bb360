import pytest
import torch
from torch import nn

from segda.depthwise import Conv2d


def pair(**settings):
    torch.manual_seed(0)
    ours = Conv2d(8, 8, 5, 2, padding=2, **settings)
    plain = nn.Conv2d(8, 8, 5, 2, padding=2, **settings)
    plain.load_state_dict(ours.state_dict())
    return ours, plain, torch.randn(2, 8, 9, 11)


def computed(layer, image):
    image = image.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        result = layer(image)
    result.float().square().sum().backward()
    return result, image.grad, layer.weight.grad


def test_a_depthwise_convolution_under_autocast_is_exactly_the_one_in_single_precision():
    ours, plain, image = pair(groups=8)
    result, *gradients = computed(ours, image)
    assert result.dtype is torch.float32
    image.requires_grad_()
    expected = plain(image)
    expected.square().sum().backward()
    for got, wanted in zip([result, *gradients], [expected, image.grad, plain.weight.grad], strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("groups", [1, 2])
def test_any_other_convolution_stays_under_autocast(groups):
    ours, plain, image = pair(groups=groups)
    for got, wanted in zip(computed(ours, image), computed(plain, image), strict=True):
        assert got.dtype is wanted.dtype
        assert torch.equal(got, wanted)
    assert computed(ours, image)[0].dtype is torch.bfloat16
