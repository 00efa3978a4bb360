import pytest
import torch
from torch.nn import functional

from segda.errors import WeightsError
from segda.models.trunks.pretrained import load_imagenet_weights
from segda.models.trunks.xception import Block, xception39


def test_the_trunk_has_the_layers_of_the_published_code() -> None:
    trunk = xception39()
    state = trunk.state_dict()

    depths = {
        stage: len({name.split(".")[1] for name in state if name.startswith(stage)})
        for stage in ("layer1", "layer2", "layer3")
    }
    assert depths == {"layer1": 4, "layer2": 8, "layer3": 4}
    shapes = {
        "conv1.conv.weight": (8, 3, 3, 3),
        "layer1.0.proj.conv1.weight": (8, 1, 3, 3),
        "layer1.0.proj.point_wise_cbr.conv.weight": (64, 8, 1, 1),
        "layer1.0.residual_branch.0.point_wise_cbr.conv.weight": (16, 8, 1, 1),
        "layer2.1.residual_branch.1.conv1.weight": (32, 1, 3, 3),
        "layer3.3.residual_branch.2.point_wise_cbr.bn.running_var": (256,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    # The projection is a part of a stage's first block alone.
    assert {name.rpartition(".proj.")[0] for name in state if ".proj." in name} == {"layer1.0", "layer2.0", "layer3.0"}
    # 216 + 16 of the stem; of a block of width w after c channels 9c + wc + 2w, 9w + w^2 + 2w and 9w + 4w^2 + 8w, and 9c + 4wc + 8w
    # of a projection.
    expected, channels = 232, 8
    for depth, width in ((4, 16), (8, 32), (4, 64)):
        expected += 9 * channels + 4 * width * channels + 8 * width
        for _ in range(depth):
            expected += (9 + width) * channels + 30 * width + 5 * width**2
            channels = 4 * width
    assert sum(parameter.numel() for parameter in trunk.parameters()) == expected == 299_448


def test_a_block_rectifies_within_and_after_the_sum_only() -> None:
    torch.manual_seed(0)
    block = Block(8, 2, stride=2).double().eval()
    features = torch.randn(1, 8, 7, 5, dtype=torch.float64)

    def separable(x: torch.Tensor, module: torch.nn.Module, *, stride: int = 1) -> torch.Tensor:
        kernel = module.conv1.weight
        x = functional.conv2d(x, kernel, stride=stride, padding=1, groups=len(kernel))
        return module.point_wise_cbr.bn(functional.conv2d(x, module.point_wise_cbr.conv.weight))

    first, second, third = block.residual_branch
    residual = separable(separable(separable(features, first, stride=2).relu(), second).relu(), third)
    expected = (separable(features, block.proj, stride=2) + residual).relu()

    torch.testing.assert_close(block(features), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 33), (500, 333)])
def test_features_come_at_three_scales_rounded_up(height: int, width: int) -> None:
    with torch.device("meta"):
        levels = xception39()(torch.empty(2, 3, height, width, device="meta"))

    sizes = [(-(-height // scale), -(-width // scale)) for scale in (8, 16, 32)]
    assert [tuple(level.shape) for level in levels] == [
        (2, channels, *size) for channels, size in zip((64, 128, 256), sizes, strict=True)
    ]


def test_that_there_are_no_weights_of_imagenet_is_told() -> None:
    with pytest.raises(WeightsError, match=r"no ImageNet weights are known for xception39; .*pretrained: none"):
        load_imagenet_weights(xception39(), name="xception39", pretrained="imagenet")
