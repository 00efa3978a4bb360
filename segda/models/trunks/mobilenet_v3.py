"""MobileNetV3-Large (Howard et al., ICCV 2019) with the parameter names that published ImageNet weights use.

The trunk ends at 1/32 with 160 channels. The 1x1 convolution to 960 that follows prepares the classifier's pooling; it is left out
with the classifier, as EfficientNet's is: a segmentation network that keeps its trunk's channels would pay for them in every layer
behind it.

Source: torchvision, whose first ImageNet weights (`IMAGENET1K_V1`, top-1 74.0 %) these are; its segmentation networks start from
them, too. Batch normalization adds 1e-3 to the variance, as these weights expect.
Deviation, in training only: the running statistics move by a tenth per step, as in the other trunks, not by a hundredth; see
`efficientnet_lite.py`.
"""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from segda.depthwise import Conv2d
from segda.models.blocks import no_autocast, pool
from segda.models.trunks.base import PublishedWeights, Pyramid, Trunk
from segda.models.width import scaled


class _Block(NamedTuple):
    kernel_size: int
    stride: int
    width: int
    channels: int
    squeezed: int  # channels inside of squeeze-and-excitation; 0: the block has none
    activation: type[nn.Module]


_STEM = 16
_BLOCKS = (
    _Block(3, 1, 16, 16, 0, nn.ReLU),  # 1/2
    _Block(3, 2, 64, 24, 0, nn.ReLU),
    _Block(3, 1, 72, 24, 0, nn.ReLU),  # 1/4
    _Block(5, 2, 72, 40, 24, nn.ReLU),
    _Block(5, 1, 120, 40, 32, nn.ReLU),
    _Block(5, 1, 120, 40, 32, nn.ReLU),  # 1/8
    _Block(3, 2, 240, 80, 0, nn.Hardswish),
    _Block(3, 1, 200, 80, 0, nn.Hardswish),
    _Block(3, 1, 184, 80, 0, nn.Hardswish),
    _Block(3, 1, 184, 80, 0, nn.Hardswish),
    _Block(3, 1, 480, 112, 120, nn.Hardswish),
    _Block(3, 1, 672, 112, 168, nn.Hardswish),  # 1/16
    _Block(5, 2, 672, 160, 168, nn.Hardswish),
    _Block(5, 1, 960, 160, 240, nn.Hardswish),
    _Block(5, 1, 960, 160, 240, nn.Hardswish),  # 1/32
)
# Layers that are the last ones at their scale; the stem is layer 0.
_LEVELS = (6, 12, 15)


class _ConvNorm(nn.Sequential):
    """Convolution without bias, batch normalization and, unless it is None, an activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        activation: type[nn.Module] | None,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        padding = kernel_size // 2
        layers = [
            Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels, eps=1e-3),
        ]
        super().__init__(*layers, *([] if activation is None else [activation()]))


class SqueezeExcitation(nn.Module):
    """Weighs channels by what their averages over the whole map say."""

    def __init__(self, channels: int, squeezed: int) -> None:
        """Build the layers.

        Args:
            channels: channels in and out.
            squeezed: channels in between.
        """
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, channels, h, w] to another one; the averages and their weights are computed in single precision."""
        pooled = pool(features)
        with no_autocast(pooled.device):
            weights = functional.hardsigmoid(self.fc2(self.fc1(pooled.to(self.fc1.weight.dtype)).relu()))
        return features * weights.to(features.dtype)


class InvertedResidual(nn.Module):
    """1x1 to more channels, depthwise convolution, weights of channels, 1x1 to few channels; a shortcut where sizes agree."""

    def __init__(self, in_channels: int, settings: _Block) -> None:
        """Build the block.

        Args:
            in_channels: channels of the input.
            settings: all else.
        """
        super().__init__()
        width, channels, activation = settings.width, settings.channels, settings.activation
        layers: list[nn.Module] = []
        if width != in_channels:
            layers.append(_ConvNorm(in_channels, width, activation=activation))
        layers.append(
            _ConvNorm(width, width, settings.kernel_size, activation=activation, stride=settings.stride, groups=width)
        )
        if settings.squeezed:
            layers.append(SqueezeExcitation(width, settings.squeezed))
        layers.append(_ConvNorm(width, channels, activation=None))
        self.block = nn.Sequential(*layers)
        self._adds_input = settings.stride == 1 and in_channels == channels

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, channels, ceil(h / stride), ceil(w / stride)]."""
        result: Tensor = self.block(features)
        return result + features if self._adds_input else result


def _scaled_block(block: _Block, width: float) -> _Block:
    """Scale a block as the authors do; what squeezes channels has a quarter of the scaled ones."""
    inside = scaled(block.width, width)
    squeezed = scaled(inside, 1 / 4) if block.squeezed else 0
    return block._replace(width=inside, channels=scaled(block.channels, width), squeezed=squeezed)


class MobileNetV3Large(Trunk):
    """The trunk: stem and fifteen blocks."""

    published = PublishedWeights("mobilenet_v3_large-8738ca79.pth", classifier=("features.16.", "classifier."))

    def __init__(self, *, width: float = 1.0) -> None:
        """Build the trunk with random weights (He et al., fan out).

        Args:
            width: factor on the channels of every layer, see `scaled`.
        """
        super().__init__()
        in_channels = scaled(_STEM, width)
        layers: list[nn.Module] = [_ConvNorm(3, in_channels, 3, activation=nn.Hardswish, stride=2)]
        for settings in (_scaled_block(block, width) for block in _BLOCKS):
            layers.append(InvertedResidual(in_channels, settings))
            in_channels = settings.channels
        self.features = nn.ModuleList(layers)
        eighth, sixteenth, thirty_second = (scaled(_BLOCKS[level - 1].channels, width) for level in _LEVELS)
        self.channels = (eighth, sixteenth, thirty_second)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Pyramid:
        """Compute the features; see `Trunk.forward`."""
        x, levels = image, []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in _LEVELS:
                levels.append(x)
        return Pyramid(*levels)


def mobilenet_v3_large(*, width: float = 1.0) -> MobileNetV3Large:
    """Return MobileNetV3-Large without classifier: 2,816,432 parameters, 112 and 160 channels at 1/16 and 1/32.

    Args:
        width: factor on the channels of every layer.
    """
    return MobileNetV3Large(width=width)
