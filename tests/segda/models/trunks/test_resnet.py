import pytest
import torch

from segda.models.trunks import BACKBONES
from segda.models.trunks.resnet import resnet18, resnet50


@pytest.mark.parametrize(
    ("name", "expected"),
    [("resnet18", 11_176_512), ("resnet34", 21_284_672), ("resnet50", 23_508_032), ("resnet101", 42_500_160)],
)
def test_trunks_have_the_published_number_of_parameters(name: str, expected: int) -> None:
    with torch.device("meta"):
        trunk = BACKBONES[name]()

    assert sum(parameter.numel() for parameter in trunk.parameters()) == expected


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        (
            "resnet18",
            {
                "conv1.weight": (64, 3, 7, 7),
                "bn1.running_var": (64,),
                "layer1.0.conv1.weight": (64, 64, 3, 3),
                "layer1.1.bn2.bias": (64,),
                "layer2.0.downsample.0.weight": (128, 64, 1, 1),
                "layer2.0.downsample.1.running_mean": (128,),
                "layer4.0.conv1.weight": (512, 256, 3, 3),
                "layer4.1.bn2.num_batches_tracked": (),
            },
        ),
        (
            "resnet101",
            {
                "layer1.0.conv3.weight": (256, 64, 1, 1),
                "layer1.0.downsample.0.weight": (256, 64, 1, 1),
                "layer3.22.conv2.weight": (256, 256, 3, 3),
                "layer4.2.bn3.weight": (2048,),
            },
        ),
    ],
)
def test_parameters_have_the_names_of_published_weights(name: str, shapes: dict[str, tuple[int, ...]]) -> None:
    with torch.device("meta"):
        state = BACKBONES[name]().state_dict()

    assert {key: tuple(state[key].shape) for key in shapes} == shapes
    assert not any(key.startswith("fc") for key in state)


def test_the_state_of_resnet18_has_as_many_entries_as_the_published_file_without_classifier() -> None:
    # 20 convolutions, and 20 normalizations with 5 entries each.
    assert len(resnet18().state_dict()) == 120


def test_bottlenecks_carry_the_stride_on_the_3x3_convolution() -> None:
    with torch.device("meta"):
        first = resnet50().layer2[0]

    assert (first.conv1.stride, first.conv2.stride, first.conv3.stride) == ((1, 1), (2, 2), (1, 1))


@pytest.mark.parametrize(("name", "channels"), [("resnet34", (128, 256, 512)), ("resnet101", (512, 1024, 2048))])
def test_features_come_at_three_scales_rounded_up(name: str, channels: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        trunk = BACKBONES[name]()
    pyramid = trunk(torch.empty(2, 3, 65, 100, device="meta"))

    assert trunk.channels == channels
    assert [tuple(level.shape) for level in pyramid] == [
        (2, channels[0], 9, 13),
        (2, channels[1], 5, 7),
        (2, channels[2], 3, 4),
    ]


def test_a_block_adds_its_input() -> None:
    torch.manual_seed(0)
    block = resnet18().layer1[0].eval()
    torch.nn.init.zeros_(block.bn2.weight)
    image = torch.randn(1, 64, 5, 5)

    with torch.no_grad():
        torch.testing.assert_close(block(image.clone()), image.relu())


def test_the_trunk_does_not_change_its_input() -> None:
    trunk = resnet18().eval()
    image = torch.randn(1, 3, 32, 32)
    before = image.clone()

    with torch.no_grad():
        trunk(image)

    assert torch.equal(image, before)
