"""EfficientViT (Cai et al., ICCV 2023): attention that costs as much per pixel in a large image as in a small one.

Softmax attention compares every pixel with every other one. Here the similarity of a query q and a key k is relu(q) relu(k), and
such sums can be taken in another order: sum_i (q k_i) v_i = q (sum_i k_i v_i), where the bracket is one small matrix for the whole
image. What is lost, sharp and local attention, comes back by depthwise convolutions: on queries, keys and values (a second "scale")
and in the block that follows.

Source: the authors' code (mit-han-lab/efficientvit, Apache-2.0), variants B0 and B1 with their heads for Cityscapes.
Deviations: levels of the head are enlarged to explicit sizes, bicubically as there, so that every size from 32 x 32 works and not
only multiples of 32; scores are enlarged bilinearly, as those of all networks here, where the authors' evaluation is bicubic; no
drop-path in training, so that a loss depends on weights and images alone. The authors have published no training of segmentation.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from segda.depthwise import Conv2d
from segda.models.base import ModelConfig, Segmenter
from segda.models.blocks import enlarge_scores, initialize_kaiming, no_autocast
from segda.models.official_weights import OfficialNames, OfficialWeightsConfig, load_official_weights
from segda.tunable import Choice
from segda.types import SegmentationOutput

# Channels of a query, a key or a value.
_HEAD = 16
_EXPANSION = 4
# Keeps 0 / 0 from being NaN where no query of a pixel is positive; below single precision it would be 0 itself.
_EPSILON = 1e-15
# Stages at 1/16 and 1/32, counted from 1/4.
_WITH_ATTENTION = (2, 3)


class _Variant(NamedTuple):
    widths: tuple[int, int, int, int, int]  # channels at 1/2, 1/4, ... 1/32
    depths: tuple[int, int, int, int, int]  # blocks there, without the ones that halve the size at 1/16 and 1/32
    head_width: int
    head_depth: int


_VARIANTS = {
    "b0": _Variant((8, 16, 32, 64, 128), (1, 2, 2, 2, 2), head_width=32, head_depth=1),
    "b1": _Variant((16, 32, 64, 128, 256), (1, 2, 3, 3, 4), head_width=64, head_depth=3),
}


def _official_names(variant: _Variant) -> OfficialNames:
    """Return how the authors' files call the parts of a variant."""
    own = {
        "backbone.input_stem.op_list.0": "backbone.stem.0",
        "head.input_ops.0.op_list.0": "head.levels.0",
        "head.input_ops.1.op_list.0": "head.levels.1",
        "head.input_ops.2": "head.levels.2",
        "head.output_ops.0.op_list.0": "head.output",
        "head.output_ops.0.op_list.1.conv": "classifier",
    }
    convolutions = {"backbone.input_stem.op_list.1.main": "backbone.stem.1"}
    for index in range(variant.head_depth):
        convolutions[f"head.middle.op_list.{index}.main"] = f"head.middle.{index}"
    for stage, depth in enumerate(variant.depths[1:]):
        has_attention = stage in _WITH_ATTENTION
        for index in range(depth + has_attention):
            official, here = f"backbone.stages.{stage}.op_list.{index}", f"backbone.stages.{stage}.{index}"
            if not has_attention or index == 0:
                convolutions[f"{official}.main"] = here
                continue
            convolutions[f"{official}.local_module.main"] = f"{here}.local"
            attention = f"{official}.context_module.main"
            own[f"{attention}.qkv.conv"] = f"{here}.attention.qkv"
            own[f"{attention}.aggreg.0"] = f"{here}.attention.aggregate"
            own[f"{attention}.proj"] = f"{here}.attention.project"
    for official, here in convolutions.items():
        own |= {
            f"{official}.inverted_conv": f"{here}.expand",
            f"{official}.depth_conv": f"{here}.depthwise",
            f"{official}.point_conv": f"{here}.project",
        }
    # What is foreign is the classifier of images.
    return OfficialNames(own, ("head", "classifier"), ("classifier",), foreign=("head.op_list.",))


class EfficientViTSegConfig(OfficialWeightsConfig):
    """Settings of `EfficientViTSeg`."""

    name: Literal["efficientvit_seg"] = "efficientvit_seg"
    variant: Annotated[Literal["b0", "b1"], Choice("b0", "b1")] = Field("b0", description="width and depth")
    weights_file: Path | None = Field(
        None,
        description="local copy of efficientvit_b0_r224.pt (ImageNet, b0), efficientvit_b1_r224.pt, _r256 or _r288 (b1), or of "
        "efficientvit_seg_b0_cityscapes.pt or efficientvit_seg_b1_cityscapes.pt, to which the README of "
        "github.com/mit-han-lab/efficientvit links",
    )


class Convolution(nn.Module):
    """Convolution, batch normalization and Hardswish; what is normalized has no bias."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        is_depthwise: bool = False,
        is_normalized: bool = True,
        is_activated: bool = True,
    ) -> None:
        """Build the layers; the padding keeps the size at stride 1.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            kernel_size: side of the square kernel, odd.
            stride: step of the kernel in pixels.
            is_depthwise: whether no channel sees another one.
            is_normalized: whether there is a normalization instead of a bias.
            is_activated: whether there is an activation.
        """
        super().__init__()
        groups = in_channels if is_depthwise else 1
        self.conv = Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=not is_normalized,
        )
        self.norm = nn.BatchNorm2d(out_channels) if is_normalized else nn.Identity()
        self.activation = nn.Hardswish() if is_activated else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, out_channels, ceil(h / stride), ceil(w / stride)]."""
        result: Tensor = self.activation(self.norm(self.conv(features)))
        return result


class InvertedResidual(nn.Module):
    """1x1 to more channels, depthwise 3x3, 1x1 without activation, and a shortcut at stride 1."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        expansion: int = _EXPANSION,
        few_norms: bool = False,
    ) -> None:
        """Build the block.

        Args:
            in_channels: channels of the input; equal to those of the output at stride 1.
            out_channels: channels of the output.
            stride: step of the depthwise convolution.
            expansion: how many times as many channels there are in between; 1: the first layer is left out.
            few_norms: whether only the last layer is normalized.
        """
        super().__init__()
        width = expansion * in_channels
        is_normalized = not few_norms
        self.expand = Convolution(in_channels, width, is_normalized=is_normalized) if expansion != 1 else nn.Identity()
        self.depthwise = Convolution(width, width, 3, stride=stride, is_depthwise=True, is_normalized=is_normalized)
        self.project = Convolution(width, out_channels, is_activated=False)
        self._adds_input = stride == 1

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, out_channels, ceil(h / stride), ceil(w / stride)]."""
        result: Tensor = self.project(self.depthwise(self.expand(features)))
        return result + features if self._adds_input else result


def linear_attention(qkv: Tensor) -> Tensor:
    """Average the values of all pixels, weighted by relu(query) relu(key).

    In bfloat16 the products would be off by a third of a percent, in half precision sums over the pixels of a large image overflow;
    so all is computed in single precision at least.

    Args:
        qkv: float [B, heads * 48, h, w]; of each head the channels of query, key and value stand together.

    Returns:
        float32 (or float64, if the input is) [B, heads * 16, h, w]; zero where no weight is positive.
    """
    batch, channels, height, width = qkv.shape
    precise = qkv.float() if qkv.dtype.itemsize < 4 else qkv
    # Heads of all images in a row: products over two axes of them would ask whether there is a single pixel, which programs for
    # many sizes must not depend on.
    heads = precise.reshape(batch * (channels // (3 * _HEAD)), 3 * _HEAD, height * width)
    query, key, value = heads[:, :_HEAD].relu(), heads[:, _HEAD : 2 * _HEAD].relu(), heads[:, 2 * _HEAD :]
    # A row of ones beside the values: what it gives is the sum of the weights.
    value = functional.pad(value, (0, 0, 0, 1), value=1.0)
    with no_autocast(qkv.device):
        sums = value.bmm(key.transpose(1, 2)).bmm(query)
    # The authors add epsilon to the sum of the weights, which is the same in single precision but where there are none; exporters
    # to ONNX take a sum with so small a number for one with zero, and leave it out.
    averages = sums[:, :-1] / sums[:, -1:].clamp(min=_EPSILON)
    return averages.reshape(batch, channels // 3, height, width)


class LinearAttention(nn.Module):
    """Attention with queries, keys and values of single pixels and, in other heads, with those mixed over 5x5; adds its input."""

    # Cut into heads of 48 channels.
    fixed_width = ("qkv", "aggregate")

    def __init__(self, channels: int) -> None:
        """Build the layers.

        Args:
            channels: channels in and out, a multiple of 16.
        """
        super().__init__()
        width = 3 * channels
        self.qkv = nn.Conv2d(channels, width, 1, bias=False)
        self.aggregate = nn.Sequential(
            Conv2d(width, width, 5, padding=2, groups=width, bias=False),
            nn.Conv2d(width, width, 1, groups=width // _HEAD, bias=False),
        )
        self.project = Convolution(2 * channels, channels, is_activated=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, channels, h, w] to another one."""
        qkv = self.qkv(features)
        mixed = linear_attention(torch.cat([qkv, self.aggregate(qkv)], dim=1))
        result: Tensor = self.project(mixed.to(features.dtype))
        return result + features


class EfficientViTBlock(nn.Module):
    """Attention, for the whole image, and a block of convolutions, for what is near."""

    def __init__(self, channels: int) -> None:
        """Build both.

        Args:
            channels: channels in and out, a multiple of 16.
        """
        super().__init__()
        self.attention = LinearAttention(channels)
        self.local = InvertedResidual(channels, channels, few_norms=True)

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, channels, h, w] to another one."""
        result: Tensor = self.local(self.attention(features))
        return result


class Backbone(nn.Module):
    """Stem and four stages, each of which halves the size; the last two have attention."""

    def __init__(self, variant: _Variant) -> None:
        """Build the layers.

        Args:
            variant: width and depth.
        """
        super().__init__()
        width = variant.widths[0]
        stem = [InvertedResidual(width, width, expansion=1) for _ in range(variant.depths[0])]
        self.stem = nn.Sequential(Convolution(3, width, 3, stride=2), *stem)
        stages = []
        for stage, (channels, depth) in enumerate(zip(variant.widths[1:], variant.depths[1:], strict=True)):
            has_attention = stage in _WITH_ATTENTION
            first = InvertedResidual(width, channels, stride=2, few_norms=has_attention)
            rest: list[nn.Module] = (
                [EfficientViTBlock(channels) for _ in range(depth)]
                if has_attention
                else [InvertedResidual(channels, channels) for _ in range(depth - 1)]
            )
            stages.append(nn.Sequential(first, *rest))
            width = channels
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the features.

        Args:
            image: float [B, 3, H, W].

        Returns:
            Features at 1/32, 1/16 and 1/8 of the image's size, rounded up.
        """
        x, levels = self.stem(image), []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        _, eighth, sixteenth, thirty_second = levels
        return thirty_second, sixteenth, eighth


class Head(nn.Module):
    """Brings the levels to the same channels and the finest one's size, adds them and goes on at that size."""

    def __init__(self, variant: _Variant) -> None:
        """Build the layers.

        Args:
            variant: width and depth.
        """
        super().__init__()
        width = variant.head_width
        self.levels = nn.ModuleList(
            Convolution(channels, width, is_activated=False) for channels in reversed(variant.widths[2:])
        )
        self.middle = nn.Sequential(*[InvertedResidual(width, width) for _ in range(variant.head_depth)])
        self.output = Convolution(width, _EXPANSION * width)

    def forward(self, thirty_second: Tensor, sixteenth: Tensor, eighth: Tensor) -> Tensor:
        """Map the levels to float [B, 4 * head width, h, w], h and w of the finest one."""
        coarse, middle, fine = (
            project(level) for project, level in zip(self.levels, (thirty_second, sixteenth, eighth), strict=True)
        )
        size = (fine.shape[2], fine.shape[3])
        result: Tensor = self.output(self.middle(_enlarge(coarse, size=size) + _enlarge(middle, size=size) + fine))
        return result


def _enlarge(features: Tensor, *, size: tuple[int, int]) -> Tensor:
    # Under autocast interpolation returns single precision.
    return functional.interpolate(features, size=size, mode="bicubic", align_corners=False).to(features.dtype)


class EfficientViTSeg(Segmenter):
    """The network.

    With 19 classes B0 has 706,691 parameters and B1 4,803,443; they need 1.19 and 6.44 G multiply-accumulates at 512 x 1024.
    """

    Config: ClassVar[type[ModelConfig]] = EfficientViTSegConfig
    trunk_module: ClassVar[str | None] = "backbone"

    def __init__(self, config: Any, *, num_classes: int) -> None:
        """Build the network with Kaiming initialization; see `Segmenter.__init__`."""
        super().__init__(config, num_classes=num_classes)
        variant = _VARIANTS[config.variant]
        self.backbone = Backbone(variant)
        self.head = Head(variant)
        self.classifier = nn.Conv2d(_EXPANSION * variant.head_width, num_classes, 1)
        initialize_kaiming(self)

    def load_initial_weights(self) -> None:
        """Load the official weights that the configuration names; see `load_official_weights`."""
        load_official_weights(self, self.config, _official_names(_VARIANTS[self.config.variant]))

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        """Segment images; see `Segmenter.forward`.

        Args:
            image: normalized, float [B, 3, H, W].
            auxiliary: of no effect, there are no auxiliary outputs.

        Returns:
            Logits float [B, num_classes, H, W]; features float [B, 4 * head width, ceil(H / 8), ceil(W / 8)].
        """
        features = self.head(*self.backbone(image))
        logits = enlarge_scores(self.classifier(features), sizes=[(image.shape[2], image.shape[3])])
        return SegmentationOutput(logits, (), features)
