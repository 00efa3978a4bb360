"""ResNet trunks (He et al., CVPR 2016) with the parameter names that published ImageNet weights use.

Bottlenecks carry the stride on the 3x3 convolution ("v1.5"), as the published weights expect. There is no classifier: a
segmentation network would train, prune and count weights that it never uses.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from segda.models.trunks.base import PublishedWeights, Pyramid, Trunk
from segda.models.width import scaled


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1) -> None:
        """Build the block.

        Args:
            in_channels: channels of the input.
            channels: channels of the output.
            stride: step of the first convolution.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, channels, ceil(h / stride), ceil(w / stride)]."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(out)
        return result


class Bottleneck(nn.Module):
    """1x1 to fewer channels, 3x3, 1x1 to four times as many, and a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1) -> None:
        """Build the block.

        Args:
            in_channels: channels of the input.
            channels: channels of the 3x3 convolution; the output has four times as many.
            stride: step of the 3x3 convolution.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, channels * self.expansion, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, 4 * channels, ceil(h / stride), ceil(w / stride)]."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(out)
        return result


class ResNet(Trunk):
    """The trunk: stem and four stages."""

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], blocks: Sequence[int], *, file: str, width: float = 1.0
    ) -> None:
        """Build the trunk with random weights.

        Args:
            block: kind of residual block.
            blocks: number of blocks in each of the four stages.
            file: name of the file of its ImageNet weights.
            width: factor on the channels of every layer, see `scaled`.
        """
        super().__init__()
        self.published = PublishedWeights(file, classifier=("fc.",))
        first, second, third, fourth = (scaled(channels, width) for channels in (64, 128, 256, 512))
        self.conv1 = nn.Conv2d(3, first, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        expansion = block.expansion
        self.layer1 = _stage(block, first, first, blocks[0], stride=1)
        self.layer2 = _stage(block, first * expansion, second, blocks[1], stride=2)
        self.layer3 = _stage(block, second * expansion, third, blocks[2], stride=2)
        self.layer4 = _stage(block, third * expansion, fourth, blocks[3], stride=2)
        self.channels = (second * expansion, third * expansion, fourth * expansion)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Pyramid:
        """Compute the features; see `Trunk.forward`."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        eighth = self.layer2(self.layer1(x))
        sixteenth = self.layer3(eighth)
        return Pyramid(eighth, sixteenth, self.layer4(sixteenth))


def _shortcut(in_channels: int, out_channels: int, *, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _stage(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, channels: int, depth: int, *, stride: int
) -> nn.Sequential:
    rest = [block(channels * block.expansion, channels) for _ in range(depth - 1)]
    return nn.Sequential(block(in_channels, channels, stride=stride), *rest)


def resnet18(*, width: float = 1.0) -> ResNet:
    """Return ResNet-18 without classifier: 11,176,512 parameters, 256 and 512 channels at 1/16 and 1/32.

    Args:
        width: factor on the channels of every layer.
    """
    return ResNet(BasicBlock, (2, 2, 2, 2), file="resnet18-f37072fd.pth", width=width)


def resnet34(*, width: float = 1.0) -> ResNet:
    """Return ResNet-34 without classifier: 21,284,672 parameters, 256 and 512 channels at 1/16 and 1/32.

    Args:
        width: factor on the channels of every layer.
    """
    return ResNet(BasicBlock, (3, 4, 6, 3), file="resnet34-b627a593.pth", width=width)


def resnet50(*, width: float = 1.0) -> ResNet:
    """Return ResNet-50 without classifier: 23,508,032 parameters, 1024 and 2048 channels at 1/16 and 1/32.

    Args:
        width: factor on the channels of every layer.
    """
    return ResNet(Bottleneck, (3, 4, 6, 3), file="resnet50-0676ba61.pth", width=width)


def resnet101(*, width: float = 1.0) -> ResNet:
    """Return ResNet-101 without classifier: 42,500,160 parameters, 1024 and 2048 channels at 1/16 and 1/32.

    Args:
        width: factor on the channels of every layer.
    """
    return ResNet(Bottleneck, (3, 4, 23, 3), file="resnet101-63fe2227.pth", width=width)
