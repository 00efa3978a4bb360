"""Xception39, the lightest trunk of BiSeNet (Yu et al., ECCV 2018): separable convolutions in sixteen residual blocks.

The paper only says that it is a modified Xception (Chollet, CVPR 2017). Source of its layers and of the names of its parameters:
the code of the paper's first author, TorchSeg (`xception39`), the trunk of its BiSeNet for speed. No file of its ImageNet weights
has a stable address.
"""

from torch import Tensor, nn

from segda.depthwise import Conv2d
from segda.models.trunks.base import Pyramid, Trunk
from segda.models.width import scaled

_STEM = 8
# Blocks, and channels inside of each, at 1/8, 1/16 and 1/32; four times as many come out.
_STAGES = ((4, 16), (8, 32), (4, 64))
_EXPANSION = 4


class _ConvNorm(nn.Module):
    """Convolution without bias, batch normalization and, if wanted, ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, *, stride: int = 1, rectifies: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self._rectifies = rectifies

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.bn(self.conv(features))
        return result.relu() if self._rectifies else result


class SeparableConv(nn.Module):
    """Depthwise 3x3 convolution and 1x1 convolution; only the second is normalized."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, rectifies: bool = True) -> None:
        """Build the layers.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            stride: step of the depthwise convolution.
            rectifies: whether a ReLU ends it.
        """
        super().__init__()
        self.conv1 = Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False)
        self.point_wise_cbr = _ConvNorm(in_channels, out_channels, rectifies=rectifies)

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, out_channels, ceil(h / stride), ceil(w / stride)]."""
        result: Tensor = self.point_wise_cbr(self.conv1(features))
        return result


class Block(nn.Module):
    """Three separable convolutions, narrow inside, and a shortcut, which is one itself where the size is halved."""

    def __init__(self, in_channels: int, width: int, *, stride: int = 1) -> None:
        """Build the block.

        Args:
            in_channels: channels of the input; those of the output at stride 1.
            width: channels inside; four times as many come out.
            stride: 1 or 2.
        """
        super().__init__()
        channels = _EXPANSION * width
        self.proj = (
            nn.Identity() if stride == 1 else SeparableConv(in_channels, channels, stride=stride, rectifies=False)
        )
        self.residual_branch = nn.Sequential(
            SeparableConv(in_channels, width, stride=stride),
            SeparableConv(width, width),
            SeparableConv(width, channels, rectifies=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, 4 * width, ceil(h / stride), ceil(w / stride)]."""
        result: Tensor = self.proj(features) + self.residual_branch(features)
        return result.relu()


class Xception39(Trunk):
    """The trunk: stem and three stages."""

    def __init__(self, *, width: float = 1.0) -> None:
        """Build the trunk with random weights (He et al., fan out, of a depthwise kernel its own).

        Args:
            width: factor on the channels of every layer, see `scaled`.
        """
        super().__init__()
        stem, stages_inside = scaled(_STEM, width), [(depth, scaled(inside, width)) for depth, inside in _STAGES]
        self.conv1 = _ConvNorm(3, stem, 3, stride=2)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        stages, in_channels = [], stem
        for depth, inside in stages_inside:
            first = Block(in_channels, inside, stride=2)
            in_channels = _EXPANSION * inside
            stages.append(nn.Sequential(first, *(Block(in_channels, inside) for _ in range(depth - 1))))
        self.layer1, self.layer2, self.layer3 = stages
        eighth, sixteenth, thirty_second = (_EXPANSION * inside for _, inside in stages_inside)
        self.channels = (eighth, sixteenth, thirty_second)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)

    def forward(self, image: Tensor) -> Pyramid:
        """Compute the features; see `Trunk.forward`."""
        eighth = self.layer1(self.maxpool(self.conv1(image)))
        sixteenth = self.layer2(eighth)
        return Pyramid(eighth, sixteenth, self.layer3(sixteenth))


def xception39(*, width: float = 1.0) -> Xception39:
    """Return Xception39 without classifier: 299,448 parameters, 128 and 256 channels at 1/16 and 1/32.

    Args:
        width: factor on the channels of every layer.
    """
    return Xception39(width=width)
