"""What DDRNet, PIDNet and SCTNet share: residual blocks, stages, stem and head.

A stage leaves the last ReLU to whoever reads it: the next stage reads it rectified, another branch sometimes as it is.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from segda.models.blocks import BNReLUConv

# Within a head.
CLASSIFIER = "1.2"


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(
        self, in_channels: int, channels: int, *, stride: int = 1, bias: bool = False, rectifies: bool = False
    ) -> None:
        """Build the block.

        Args:
            in_channels: channels of the input.
            channels: channels of the output.
            stride: step of the first convolution.
            bias: whether convolutions have one.
            rectifies: whether a ReLU ends the block.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=bias)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride=stride, bias=bias)
        self._rectifies = rectifies

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, channels, ceil(h / stride), ceil(w / stride)]."""
        out = self.bn2(self.conv2(self.bn1(self.conv1(features)).relu()))
        result: Tensor = out + self.downsample(features)
        return result.relu() if self._rectifies else result


class Bottleneck(nn.Module):
    """1x1 to fewer channels, 3x3, 1x1 to twice as many, and a shortcut; no ReLU at the end."""

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1) -> None:
        """Build the block.

        Args:
            in_channels: channels of the input.
            channels: channels of the 3x3 convolution; the output has twice as many.
            stride: step of the 3x3 convolution.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(2 * channels)
        self.downsample = _shortcut(in_channels, 2 * channels, stride=stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, 2 * channels, ceil(h / stride), ceil(w / stride)]."""
        out = self.bn2(self.conv2(self.bn1(self.conv1(features)).relu())).relu()
        result: Tensor = self.bn3(self.conv3(out)) + self.downsample(features)
        return result


def stage(in_channels: int, channels: int, depth: int, *, stride: int = 1, bias: bool = False) -> nn.Sequential:
    """Return basic blocks in a row, of which the last one does not rectify.

    Args:
        in_channels: channels of the input.
        channels: channels of the output.
        depth: number of blocks, at least 2.
        stride: step of the first block.
        bias: whether convolutions have one.
    """
    first = BasicBlock(in_channels, channels, stride=stride, bias=bias, rectifies=True)
    middle = [BasicBlock(channels, channels, bias=bias, rectifies=True) for _ in range(depth - 2)]
    return nn.Sequential(first, *middle, BasicBlock(channels, channels, bias=bias))


def stem(channels: int) -> nn.Sequential:
    """Return two 3x3 convolutions of stride 2, each with a bias that its normalization swallows: an image becomes maps at 1/4.

    Args:
        channels: channels of the maps.
    """
    layers: list[nn.Module] = []
    for width in (3, channels):
        layers += [nn.Conv2d(width, channels, 3, 2, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def projection(in_channels: int, out_channels: int, *, kernel_size: int = 1, stride: int = 1) -> nn.Sequential:
    """Return a convolution and batch normalization, for what is added to another branch.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the square kernel, odd.
        stride: step of the kernel in pixels.
    """
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def head(in_channels: int, width: int, out_channels: int, *, bias: bool = False) -> nn.Sequential:
    """Return a 3x3 convolution and a 1x1 classifier, each behind batch normalization and ReLU.

    Args:
        in_channels: channels of the features.
        width: channels between the two.
        out_channels: number of classes, or 1 for boundaries.
        bias: whether the 3x3 convolution has one; the classifier always does.
    """
    return nn.Sequential(
        BNReLUConv(in_channels, width, kernel_size=3, bias=bias), BNReLUConv(width, out_channels, bias=True)
    )


def head_names(official: str, own: str, *, classifier: str = "conv2") -> Mapping[str, str]:
    """Return how the parts of a head are called in the files of its authors, for `OfficialNames`.

    Args:
        official: what the head is called there.
        own: what it is called here.
        classifier: what its classifier is called there.
    """
    parts = {"bn1": "0.0", "conv1": "0.2", "bn2": "1.0", classifier: CLASSIFIER}
    return {f"{official}.{there}": f"{own}.{here}" for there, here in parts.items()}


def _shortcut(in_channels: int, out_channels: int, *, stride: int, bias: bool) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=bias), nn.BatchNorm2d(out_channels))
