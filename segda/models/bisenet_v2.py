"""BiSeNetV2 (Yu et al., IJCV 2021): a wide shallow branch sees detail, a narrow deep one meaning, and each gates the other.

Source: arXiv:2004.02147 and the public implementation whose weights can be had, CoinCheung/BiSeNet: mean IoU 0.750 on the
validation images of Cityscapes; the authors' own has 0.726 on the test images. Where the two differ, this network is the
implementation: ReLU after the depthwise convolutions, after the aggregation and after the context embedding, 1024 channels in the
head, auxiliary heads that widen before they classify. It trains all five outputs with the same weight and cross-entropy over hard
pixels (`loss: ohem`).

`width` is the paper's width multiplier (there alpha): it scales the channels of both branches, of what joins them and inside of the
heads, rounded to multiples of 8. The ratio of the branches (there lambda, 1/4) and the depth stay.

Deviations: every up-sampling goes to an explicit size, so that every size from 32 x 32 works instead of multiples of 32; for those
the result is the same. Gates are computed before they are repeated to a finer grid, which commutes. Pooled maps are normalized in
single precision. Images are converted to the normalization that the implementation trains with.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from segda.depthwise import Conv2d
from segda.models.base import ModelConfig, Segmenter
from segda.models.blocks import (
    ConvBNReLU,
    enlarge_scores,
    in_full_precision,
    initialize_kaiming,
    pool,
    resize_nearest,
)
from segda.models.official_weights import OfficialNames, ScaledWeightsConfig, load_official_weights, unit_names
from segda.models.trunks.base import IMAGENET, Normalization, Renormalize
from segda.models.width import scaled
from segda.types import SegmentationOutput

# Of the images that the published weights were trained on: Cityscapes' own mean and deviation.
_NORMALIZATION = Normalization(
    mean=(255 * 0.3257, 255 * 0.3690, 255 * 0.3223), std=(255 * 0.2112, 255 * 0.2148, 255 * 0.2115)
)

_EXPANSION = 6
# Of the semantic branch's levels, whose outputs the auxiliary heads classify: channels, and pixels of the image per pixel.
_LEVELS = ((16, 4), (32, 8), (64, 16), (128, 32))
# Channels of what joins the branches, and inside of the head.
_JOINED, _HEAD = 128, 1024


class BiSeNetV2Config(ScaledWeightsConfig):
    """Settings of `BiSeNetV2`."""

    name: Literal["bisenet_v2"] = "bisenet_v2"
    weights_file: Path | None = Field(
        None,
        description="local copy of backbone_v2.pth (all but the heads) or model_final_v2_city.pth (Cityscapes), from "
        "https://github.com/CoinCheung/BiSeNet/releases/download/0.0.0/",
    )


class Stem(nn.Module):
    """To 1/4 by two ways at once, a strided convolution and a maximum, which are joined."""

    def __init__(self, channels: int) -> None:
        """Build the layers.

        Args:
            channels: of the result, even.
        """
        super().__init__()
        self.halve = ConvBNReLU(3, channels, stride=2)
        self.convolve = nn.Sequential(
            ConvBNReLU(channels, channels // 2, kernel_size=1), ConvBNReLU(channels // 2, channels, stride=2)
        )
        self.maximum = nn.MaxPool2d(3, 2, padding=1)
        self.fuse = ConvBNReLU(2 * channels, channels)

    def forward(self, image: Tensor) -> Tensor:
        """Map float [B, 3, H, W] to float [B, channels, ceil(H / 4), ceil(W / 4)]."""
        halved = self.halve(image)
        result: Tensor = self.fuse(torch.cat([self.convolve(halved), self.maximum(halved)], dim=1))
        return result


class GatherAndExpand(nn.Module):
    """3x3 convolution, depthwise 3x3 to six times as many channels, 1x1 back, and a shortcut.

    With stride 2 a second depthwise convolution doubles the receptive field, and the shortcut is a separable convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        """Build the block.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output; those of the input at stride 1.
            stride: 1 or 2.
        """
        super().__init__()
        width = _EXPANSION * in_channels
        self.gather = ConvBNReLU(in_channels, in_channels)
        if stride == 1:
            self.expand: nn.Module = ConvBNReLU(in_channels, width, groups=in_channels)
            self.shortcut: nn.Module = nn.Identity()
        else:
            self.expand = nn.Sequential(
                *_depthwise(in_channels, width, stride=stride), ConvBNReLU(width, width, groups=width)
            )
            self.shortcut = nn.Sequential(
                *_depthwise(in_channels, in_channels, stride=stride),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        self.project = nn.Sequential(nn.Conv2d(width, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, out_channels, ceil(h / stride), ceil(w / stride)]."""
        expanded = self.expand(self.gather(features))
        result: Tensor = (self.project(expanded) + self.shortcut(features)).relu()
        return result


def _depthwise(in_channels: int, out_channels: int, *, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    """Return a depthwise 3x3 convolution, of one or more outputs per input, and its normalization."""
    convolution = Conv2d(in_channels, out_channels, 3, stride, padding=1, groups=in_channels, bias=False)
    return convolution, nn.BatchNorm2d(out_channels)


class ContextEmbedding(nn.Module):
    """Adds what the whole image holds to every position."""

    def __init__(self, channels: int) -> None:
        """Build the layers.

        Args:
            channels: channels in and out.
        """
        super().__init__()
        self.context = nn.Sequential(nn.BatchNorm2d(channels), ConvBNReLU(channels, channels, kernel_size=1))
        self.refine = ConvBNReLU(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, channels, h, w] to another one."""
        context = in_full_precision(self.context, pool(features)).to(features.dtype)
        result: Tensor = self.refine(features + context)
        return result


class GuidedAggregation(nn.Module):
    """Joins detail at 1/8 and meaning at 1/32, at both of these scales: each is gated by the other."""

    def __init__(self, channels: int) -> None:
        """Build the layers.

        Args:
            channels: channels of both inputs and of the result.
        """
        super().__init__()
        self.fine_detail = nn.Sequential(*_depthwise(channels, channels), nn.Conv2d(channels, channels, 1, bias=False))
        self.coarse_detail = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.AvgPool2d(3, 2, padding=1),
        )
        self.fine_meaning = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        self.coarse_meaning = nn.Sequential(
            *_depthwise(channels, channels), nn.Conv2d(channels, channels, 1, bias=False)
        )
        self.fuse = ConvBNReLU(channels, channels)

    def forward(self, detail: Tensor, meaning: Tensor) -> Tensor:
        """Map float [B, channels, h, w] and [B, channels, ceil(h / 4), ceil(w / 4)] to float [B, channels, h, w]."""
        size = (detail.shape[2], detail.shape[3])
        fine = self.fine_detail(detail) * resize_nearest(self.fine_meaning(meaning).sigmoid(), size=size)
        coarse = self.coarse_detail(detail) * self.coarse_meaning(meaning).sigmoid()
        result: Tensor = self.fuse(fine + resize_nearest(coarse, size=size))
        return result


class Branches(NamedTuple):
    """What the trunk computes.

    Attributes:
        joined: both branches, float [B, 128 * width, ceil(H / 8), ceil(W / 8)].
        levels: of the semantic branch, at 1/4, 1/8, 1/16 and 1/32, with 16, 32, 64 and 128 times `width` channels.
    """

    joined: Tensor
    levels: tuple[Tensor, Tensor, Tensor, Tensor]


class BilateralTrunk(nn.Module):
    """The branches and what joins them: all but the heads."""

    def __init__(self, width: float) -> None:
        """Build the layers.

        Args:
            width: factor on the channels of every layer, see `scaled`.
        """
        super().__init__()
        first, second, third, fourth = (scaled(channels, width) for channels, _ in _LEVELS)
        narrow, wide = scaled(64, width), scaled(_JOINED, width)
        layers, in_channels = [], 3
        for channels, depth in ((narrow, 2), (narrow, 3), (wide, 3)):
            layers += [ConvBNReLU(in_channels, channels, stride=2)]
            layers += [ConvBNReLU(channels, channels) for _ in range(depth - 1)]
            in_channels = channels
        self.detail = nn.Sequential(*layers)
        self.stem = Stem(first)
        self.eighth = nn.Sequential(GatherAndExpand(first, second, stride=2), GatherAndExpand(second, second))
        self.sixteenth = nn.Sequential(GatherAndExpand(second, third, stride=2), GatherAndExpand(third, third))
        self.thirty_second = nn.Sequential(
            GatherAndExpand(third, fourth, stride=2), *(GatherAndExpand(fourth, fourth) for _ in range(3))
        )
        self.context = ContextEmbedding(fourth)
        self.aggregation = GuidedAggregation(wide)

    def forward(self, image: Tensor) -> Branches:
        """Compute the features of float [B, 3, H, W]."""
        quarter = self.stem(image)
        eighth = self.eighth(quarter)
        sixteenth = self.sixteenth(eighth)
        thirty_second = self.thirty_second(sixteenth)
        joined = self.aggregation(self.detail(image), self.context(thirty_second))
        return Branches(joined, (quarter, eighth, sixteenth, thirty_second))


class AuxiliaryHead(nn.Module):
    """Classifies a level at twice its resolution, with as many channels there as the level's pixels have pixels of the image."""

    def __init__(self, channels: int, width: int, stride: int, num_classes: int) -> None:
        """Build the layers.

        Args:
            channels: of the level.
            width: channels between the two convolutions.
            stride: pixels of the image per pixel of the level, along a side.
            num_classes: channels of the result.
        """
        super().__init__()
        self.stride = stride
        self.narrow = nn.Sequential(ConvBNReLU(channels, width), nn.Dropout(0.1))
        self.widen = ConvBNReLU(width, stride**2)
        self.classify = nn.Conv2d(stride**2, num_classes, 1)

    def forward(self, features: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Classify a level.

        Args:
            features: float [B, channels, ceil(H / stride), ceil(W / stride)].
            size: of the image, (H, W).

        Returns:
            Logits, float [B, num_classes, H, W].
        """
        height, width = (-(-side // (self.stride // 2)) for side in size)
        doubled = resize_nearest(self.narrow(features), size=(height, width))
        return enlarge_scores(self.classify(self.widen(doubled)), sizes=[size])


def _names_of_block(theirs: str, ours: str, *, strided: bool) -> dict[str, str]:
    """Return the names of a `GatherAndExpand`."""
    names = unit_names(f"{theirs}.conv1", f"{ours}.gather") | {f"{theirs}.conv2": f"{ours}.project"}
    if not strided:
        return names | {f"{theirs}.dwconv": f"{ours}.expand"}
    return names | {
        f"{theirs}.dwconv1": f"{ours}.expand",
        f"{theirs}.dwconv2": f"{ours}.expand.2",
        f"{theirs}.shortcut": f"{ours}.shortcut",
    }


def _names_of_trunk() -> dict[str, str]:
    names: dict[str, str] = {}
    layers = [f"S{stage}.{index}" for stage, depth in ((1, 2), (2, 3), (3, 3)) for index in range(depth)]
    for number, layer in enumerate(layers):
        names |= unit_names(f"detail.{layer}", f"backbone.detail.{number}")
    stem, semantic = "backbone.stem", "segment"
    names |= unit_names(f"{semantic}.S1S2.conv", f"{stem}.halve") | unit_names(f"{semantic}.S1S2.fuse", f"{stem}.fuse")
    for index in range(2):
        names |= unit_names(f"{semantic}.S1S2.left.{index}", f"{stem}.convolve.{index}")
    for stage, ours, depth in (("S3", "eighth", 2), ("S4", "sixteenth", 2), ("S5_4", "thirty_second", 4)):
        for index in range(depth):
            names |= _names_of_block(f"{semantic}.{stage}.{index}", f"backbone.{ours}.{index}", strided=index == 0)
    context = "backbone.context"
    return (
        names
        | {f"{semantic}.S5_5.bn": f"{context}.context.0"}
        | unit_names(f"{semantic}.S5_5.conv_gap", f"{context}.context.1")
        | unit_names(f"{semantic}.S5_5.conv_last", f"{context}.refine")
        | {
            "bga.left1": "backbone.aggregation.fine_detail",
            "bga.left2": "backbone.aggregation.coarse_detail",
            "bga.right1": "backbone.aggregation.fine_meaning",
            "bga.right2": "backbone.aggregation.coarse_meaning",
            "bga.conv": "backbone.aggregation.fuse",
        }
    )


def _names_of_auxiliary_head(theirs: str, ours: str) -> dict[str, str]:
    return (
        unit_names(f"{theirs}.conv", f"{ours}.narrow.0")
        | unit_names(f"{theirs}.conv_out.0.1", f"{ours}.widen")
        | {f"{theirs}.conv_out.1": f"{ours}.classify"}
    )


def _official_names() -> OfficialNames:
    names = _names_of_trunk() | unit_names("head.conv", "head.0") | {"head.conv_out.1": "head.2"}
    for number, level in enumerate(("aux2", "aux3", "aux4", "aux5_4")):
        names |= _names_of_auxiliary_head(level, f"auxiliary_heads.{number}")
    return OfficialNames(
        own=names,
        optional=("backbone.aggregation", "head", "auxiliary_heads"),
        classifiers=("head.2", *(f"auxiliary_heads.{number}.classify" for number in range(len(_LEVELS)))),
    )


_NAMES = _official_names()


class BiSeNetV2(Segmenter):
    """The network.

    With 19 classes it has 5,231,487 parameters in training and 3,358,627 in use (without the auxiliary heads), and needs 24.7 G
    multiply-accumulates at 512 x 1024.
    """

    Config: ClassVar[type[ModelConfig]] = BiSeNetV2Config
    num_auxiliary: ClassVar[int] = len(_LEVELS)
    training_only: ClassVar[tuple[str, ...]] = ("auxiliary_heads",)
    trunk_module: ClassVar[str | None] = "backbone"

    def __init__(self, config: Any, *, num_classes: int) -> None:
        """Build the network with Kaiming initialization; see `Segmenter.__init__`.

        The last normalization of every gather-and-expand block starts at zero: the block is its shortcut then.
        """
        super().__init__(config, num_classes=num_classes)
        self.renormalize = Renormalize(IMAGENET, _NORMALIZATION)
        self.backbone = BilateralTrunk(config.width)
        joined, inside = scaled(_JOINED, config.width), scaled(_HEAD, config.width)
        self.head = nn.Sequential(ConvBNReLU(joined, inside), nn.Dropout(0.1), nn.Conv2d(inside, num_classes, 1))
        self.auxiliary_heads = nn.ModuleList(
            AuxiliaryHead(scaled(channels, config.width), joined, stride, num_classes) for channels, stride in _LEVELS
        )
        initialize_kaiming(self)
        for block in self.modules():
            if isinstance(block, GatherAndExpand):
                last = block.project[1]
                assert isinstance(last, nn.BatchNorm2d)
                nn.init.zeros_(last.weight)

    def load_initial_weights(self) -> None:
        """Load the published weights that the configuration names; see `load_official_weights`."""
        load_official_weights(self, self.config, _NAMES)

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        """Segment images; see `Segmenter.forward`.

        Args:
            image: normalized, float [B, 3, H, W]; B at least 2 in training mode.
            auxiliary: whether to compute the auxiliary outputs.

        Returns:
            Logits float [B, num_classes, H, W]; four auxiliary outputs of the same shape, from the levels of the semantic branch
            at 1/4, 1/8, 1/16 and 1/32, or none; features float [B, 128 * width, ceil(H / 8), ceil(W / 8)], both branches joined.

        Raises:
            ConfigError: one image in training mode.
        """
        self.refuse_one_image(image)
        size = (image.shape[2], image.shape[3])
        branches: Branches = self.backbone(self.renormalize(image))
        logits = enlarge_scores(self.head(branches.joined), sizes=[size])
        if not (self.training if auxiliary is None else auxiliary):
            return SegmentationOutput(logits, (), branches.joined)
        heads = zip(self.auxiliary_heads, branches.levels, strict=True)
        return SegmentationOutput(logits, tuple(head(level, size=size) for head, level in heads), branches.joined)
