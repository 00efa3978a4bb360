import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from segda.models.fcn8s import _CROPS, _NAMES, FCN8s, enlarge_bilinearly

WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
# Places of the convolutions in torchvision's list of layers; a rectifier follows each, a pooling the last one of a scale.
PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def test_the_network_costs_what_is_published_for_it() -> None:
    with torch.device("meta"):
        network = FCN8s(FCN8s.Config(), num_classes=19).eval()
    counted: list[int] = []

    def count(module: nn.Module, inputs: object, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        counted.append(module.weight[0].numel() * output.shape[2:].numel() * output.shape[1])

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    features = network(torch.empty(1, 3, 512, 1024, device="meta")).features
    trunk = network.backbone
    counted.append((trunk.fc6.weight.numel() + trunk.fc7.weight.numel()) * features.shape[2:].numel())

    # Published: 334.8 G, of which 0.961 are for enlarging between all pairs of classes.
    assert sum(counted) / 1e9 == pytest.approx(334.8 - 0.961, abs=0.05)


@pytest.mark.parametrize("factor", [2, 8])
def test_enlarging_is_bilinear_inside(factor: int) -> None:
    scores = torch.randn(1, 3, 4, 6, dtype=torch.float64)

    enlarged = enlarge_bilinearly(scores, factor=factor)

    assert enlarged.shape == (1, 3, 5 * factor, 7 * factor)
    size = (4 * factor, 6 * factor)
    expected = functional.interpolate(scores, size=size, mode="bilinear", align_corners=False)
    inner = slice(factor // 2, -(factor // 2))
    cut = enlarged[..., factor // 2 : factor // 2 + size[0], factor // 2 : factor // 2 + size[1]]
    torch.testing.assert_close(cut[..., inner, inner], expected[..., inner, inner])


def test_a_transposed_convolution_between_all_classes_does_the_same() -> None:
    scores = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    kernel = torch.zeros(3, 3, 4, 4, dtype=torch.float64)
    side = torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=torch.float64)
    for channel in range(3):
        kernel[channel, channel] = side[:, None] * side

    torch.testing.assert_close(
        enlarge_bilinearly(scores, factor=2), functional.conv_transpose2d(scores, kernel, stride=2)
    )


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (500, 333), (512, 1024)])
def test_crops_have_enough_to_cut_from(size: tuple[int, int]) -> None:
    with torch.device("meta"):
        backbone = FCN8s(FCN8s.Config(), num_classes=2).backbone
    eighth, sixteenth, coarse = backbone(torch.empty(1, 3, *size, device="meta"))
    for axis in (2, 3):
        twice = 2 * (coarse.shape[axis] + 1)
        four_times = 2 * (twice + 1)
        assert sixteenth.shape[axis] >= _CROPS["fourth"] + twice
        assert eighth.shape[axis] >= _CROPS["third"] + four_times
        assert 8 * (four_times + 1) >= _CROPS["image"] + size[axis - 2]


def test_scores_of_all_scales_lie_over_what_they_are_about() -> None:
    """Maps that say where in the image each of their positions is centered come out as the image's own columns."""
    size = 256
    # Behind the first convolution, and then as poolings and the 7 x 7 window average.
    position = torch.arange(-99.0, size + 99, dtype=torch.float64).expand(1, 1, size + 198, -1)
    maps = {scale: functional.avg_pool2d(position, 2**scale, ceil_mode=True) for scale in (3, 4, 5)}
    scores = enlarge_bilinearly(functional.avg_pool2d(maps[5], 7, stride=1), factor=2)
    inner = slice(4, -5)

    fourth = maps[4][..., _CROPS["fourth"] :, _CROPS["fourth"] :][..., : scores.shape[2], : scores.shape[3]]
    torch.testing.assert_close(scores[..., inner, inner], fourth[..., inner, inner])
    scores = enlarge_bilinearly(fourth, factor=2)
    third = maps[3][..., _CROPS["third"] :, _CROPS["third"] :][..., : scores.shape[2], : scores.shape[3]]
    torch.testing.assert_close(scores[..., inner, inner], third[..., inner, inner])
    crop = slice(_CROPS["image"], _CROPS["image"] + size)
    image = enlarge_bilinearly(third, factor=8)[..., crop, crop]
    torch.testing.assert_close(image, torch.arange(size, dtype=torch.float64).expand(1, 1, size, size))


def test_torchvisions_file_fills_the_trunk() -> None:
    """Names and shapes alone; what `load_official_weights` does with them has tests of its own."""
    with torch.device("meta"):
        network = FCN8s(FCN8s.Config(), num_classes=3)
    shapes: dict[str, tuple[int, ...]] = {}
    for place, fan_in, width in zip(PLACES, (3, *WIDTHS), WIDTHS, strict=False):
        shapes |= {f"features.{place}.weight": (width, fan_in, 3, 3), f"features.{place}.bias": (width,)}
    shapes |= {"classifier.0.weight": (4096, 25088), "classifier.0.bias": (4096,)}
    shapes |= {"classifier.3.weight": (4096, 4096), "classifier.3.bias": (4096,)}

    translated = {_NAMES.translate(name): shape for name, shape in shapes.items()}

    trunk = {name: tuple(value.shape) for name, value in network.backbone.state_dict(prefix="backbone.").items()}
    assert translated == trunk
    assert _NAMES.translate("classifier.6.weight") is None
