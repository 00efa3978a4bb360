"""STDC (Fan et al., CVPR 2021): a trunk of short dense blocks keeps enough detail that no second path is needed beside it.

Source: Rethinking BiSeNet for Real-time Semantic Segmentation, and its code MichaelFan01/STDC-Seg. The 1/8 features of the trunk
take the place of BiSeNet's spatial path. That they hold detail is taught: in training a head on them says where classes meet
(`SegmentationOutput.boundary`, rule `detail`; `loss.boundary_weight`). Published: mean IoU 0.719 (stdc1) and 0.734 (stdc2) on the
test images of Cityscapes at 512 x 1024, from ImageNet weights, with a cross-entropy over hard pixels (`loss: ohem`) on three
outputs of the same weight.

Scores are enlarged with `align_corners`, unlike in the other networks here: the published weights were trained with it, and what
they say would be shifted by up to half of the eight pixels that a score stands for.

`width` scales the trunk as the code's own `base` does, the channels of its second convolution (64, rounded to multiples of 8) of
which the others are multiples; what comes after the trunk keeps its channels.

Deviations: pooled maps are convolved and normalized in single precision; one of the four heads for detail that the code builds is
here, the one that its training uses. The code normalizes outside of the trunk with the absolute values of the weights, so a file's
are made positive.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from segda.depthwise import Conv2d
from segda.models.base import ModelConfig, Segmenter
from segda.models.blocks import (
    ConvBNReLU,
    enlarge_scores,
    in_full_precision,
    initialize_kaiming,
    pool,
)
from segda.models.context_path import CONTEXT, ContextPath
from segda.models.official_weights import OfficialNames, ScaledWeightsConfig, load_official_weights, unit_names
from segda.models.trunks.base import Pyramid
from segda.models.width import scaled
from segda.tunable import Choice
from segda.types import Boundary, SegmentationOutput

# Blocks of each stage, at 1/8, 1/16 and 1/32.
_BLOCKS = {"stdc1": (2, 2, 2), "stdc2": (4, 5, 3)}
# Channels of the second convolution, and how many times as many the stages have.
_BASE = 64
_FACTORS = (4, 8, 16)


class STDCConfig(ScaledWeightsConfig):
    """Settings of `STDC`."""

    name: Literal["stdc"] = "stdc"
    variant: Annotated[Literal["stdc1", "stdc2"], Choice("stdc1", "stdc2")] = Field(
        "stdc1", description="trunk of 6 or of 12 blocks; in the paper's table STDC1-Seg and STDC2-Seg"
    )
    weights_file: Path | None = Field(
        None,
        description="local copy of STDCNet813M_73.91.tar (ImageNet, stdc1), STDCNet1446_76.47.tar (stdc2), or one of the "
        "model_maxmIOU50.pth and model_maxmIOU75.pth (Cityscapes), to which the README of github.com/MichaelFan01/STDC-Seg links",
    )


class ShortTermDense(nn.Module):
    """Four convolutions in a row, each with half the channels of the one before, whose outputs are joined.

    The first one is 1x1. With stride 2 a depthwise convolution comes after it, and what is joined is its output averaged.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        """Build the block.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output, a multiple of 8.
            stride: 1 or 2.
        """
        super().__init__()
        half, quarter, eighth = (out_channels // part for part in (2, 4, 8))
        self.stride = stride
        self.squeeze = ConvBNReLU(in_channels, half, kernel_size=1)
        self.down = nn.Identity() if stride == 1 else _depthwise(half, stride=stride)
        self.chain = nn.ModuleList([ConvBNReLU(half, quarter), ConvBNReLU(quarter, eighth), ConvBNReLU(eighth, eighth)])

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, out_channels, ceil(h / stride), ceil(w / stride)]."""
        squeezed = self.squeeze(features)
        last = self.down(squeezed)
        outputs = [squeezed if self.stride == 1 else functional.avg_pool2d(squeezed, 3, self.stride, padding=1)]
        for layer in self.chain:
            last = layer(last)
            outputs.append(last)
        return torch.cat(outputs, dim=1)


def _depthwise(channels: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False), nn.BatchNorm2d(channels)
    )


class STDCTrunk(nn.Module):
    """Two strided convolutions, then three stages of short dense blocks."""

    def __init__(self, blocks: tuple[int, int, int], base: int) -> None:
        """Build the trunk.

        Args:
            blocks: number of blocks in each stage.
            base: channels of the second convolution; the first has half of them, the stages 4, 8 and 16 times as many.
        """
        super().__init__()
        self.stem = nn.Sequential(ConvBNReLU(3, base // 2, stride=2), ConvBNReLU(base // 2, base, stride=2))
        self.channels = [factor * base for factor in _FACTORS]
        stages, in_channels = [], base
        for channels, depth in zip(self.channels, blocks, strict=True):
            rest = (ShortTermDense(channels, channels) for _ in range(depth - 1))
            stages.append(nn.Sequential(ShortTermDense(in_channels, channels, stride=2), *rest))
            in_channels = channels
        self.eighth, self.sixteenth, self.thirty_second = stages

    def forward(self, image: Tensor) -> Pyramid:
        """Compute the features of float [B, 3, H, W]."""
        eighth = self.eighth(self.stem(image))
        sixteenth = self.sixteenth(eighth)
        return Pyramid(eighth, sixteenth, self.thirty_second(sixteenth))


class FeatureFusion(nn.Module):
    """Joins detail and context: 1x1 convolution, then channel attention with a shortcut."""

    def __init__(self, in_channels: int, channels: int) -> None:
        """Build the layers.

        Args:
            in_channels: channels of both inputs together.
            channels: channels of the result.
        """
        super().__init__()
        self.project = ConvBNReLU(in_channels, channels, kernel_size=1)
        self.attention = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 4, channels, 1, bias=False),
        )

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        """Map two maps of float [B, ..., h, w] to float [B, channels, h, w]."""
        fused: Tensor = self.project(torch.cat([detail, context], dim=1))
        weights = in_full_precision(self.attention, pool(fused)).sigmoid()
        # x * a + x, with the sum on the 1x1 map.
        return fused * (weights + 1).to(fused.dtype)


def _head(in_channels: int, channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(ConvBNReLU(in_channels, channels), nn.Conv2d(channels, out_channels, 1, bias=False))


def _names_of_trunk(theirs: str, blocks: tuple[int, int, int]) -> dict[str, str]:
    """Return the names of the trunk, whose layers the code numbers from the first convolution on.

    Args:
        theirs: beginning of the names in the file, the trunk's own module included.
        blocks: of each stage.
    """
    names = unit_names(f"{theirs}.0", "backbone.stem.0") | unit_names(f"{theirs}.1", "backbone.stem.1")
    stages = zip(("eighth", "sixteenth", "thirty_second"), blocks, strict=True)
    layers = [f"backbone.{stage}.{index}" for stage, depth in stages for index in range(depth)]
    for number, ours in enumerate(layers, start=2):
        names |= unit_names(f"{theirs}.{number}.conv_list.0", f"{ours}.squeeze")
        for index in range(3):
            names |= unit_names(f"{theirs}.{number}.conv_list.{index + 1}", f"{ours}.chain.{index}")
        names[f"{theirs}.{number}.avd_layer"] = f"{ours}.down"
    return names


def _names_of_head(theirs: str, ours: str) -> dict[str, str]:
    return unit_names(f"{theirs}.conv", f"{ours}.0") | {f"{theirs}.conv_out": f"{ours}.1"}


def _names_of_attention(theirs: str, ours: str) -> dict[str, str]:
    return unit_names(f"{theirs}.conv", f"{ours}.project") | {
        f"{theirs}.conv_atten": f"{ours}.attention.0",
        f"{theirs}.bn_atten": f"{ours}.attention.1",
    }


def _official_names(blocks: tuple[int, int, int]) -> OfficialNames:
    trunk = "cp.backbone"
    # The classifier of ImageNet, and the trunk's layers a second time under the names of their stages.
    rest = ("conv_last.", "fc.", "bn.", "linear.", "x2.", "x4.", "x8.", "x16.", "x32.")
    return OfficialNames(
        own={
            **_names_of_trunk("features", blocks),
            **_names_of_trunk(f"{trunk}.features", blocks),
            **unit_names("cp.conv_avg", "context.whole"),
            **_names_of_attention("cp.arm32", "context.refine_thirty_second"),
            **_names_of_attention("cp.arm16", "context.refine_sixteenth"),
            **unit_names("cp.conv_head32", "context.to_sixteenth"),
            **unit_names("cp.conv_head16", "context.to_eighth"),
            **unit_names("ffm.convblk", "fusion.project"),
            "ffm.conv1": "fusion.attention.0",
            "ffm.conv2": "fusion.attention.2",
            **_names_of_head("conv_out", "head"),
            **_names_of_head("conv_out16", "auxiliary_heads.0"),
            **_names_of_head("conv_out32", "auxiliary_heads.1"),
            **_names_of_head("conv_out_sp8", "boundary_head"),
        },
        optional=("context", "fusion", "head", "auxiliary_heads", "boundary_head"),
        classifiers=("head.1", "auxiliary_heads.0.1", "auxiliary_heads.1.1"),
        foreign=(
            *rest,
            *(f"{trunk}.{name}" for name in rest),
            *(f"conv_out_sp{stride}." for stride in (2, 4, 16)),
        ),
    )


class STDC(Segmenter):
    """The network.

    With 19 classes `stdc1` has 8,572,896 parameters in training and 8,275,104 in use (without the auxiliary heads and the one for
    detail), and needs 17.0 G multiply-accumulates at 512 x 1024; `stdc2` 12,603,360, 12,305,568 and 23.6 G. The published module
    has 12.05 M and 16.08 M: it carries the classifier of ImageNet and three more heads for detail.
    """

    Config: ClassVar[type[ModelConfig]] = STDCConfig
    num_auxiliary: ClassVar[int] = 2
    training_only: ClassVar[tuple[str, ...]] = ("auxiliary_heads", "boundary_head")
    trunk_module: ClassVar[str | None] = "backbone"

    def __init__(self, config: Any, *, num_classes: int) -> None:
        """Build the network with Kaiming initialization; see `Segmenter.__init__`."""
        super().__init__(config, num_classes=num_classes)
        self.backbone = STDCTrunk(_BLOCKS[config.variant], scaled(_BASE, config.width))
        eighth, sixteenth, thirty_second = self.backbone.channels
        self.context = ContextPath(sixteenth, thirty_second)
        self.fusion = FeatureFusion(eighth + CONTEXT, 256)
        self.head = _head(256, 256, num_classes)
        self.auxiliary_heads = nn.ModuleList(_head(CONTEXT, 64, num_classes) for _ in range(2))
        self.boundary_head = _head(eighth, 64, 1)
        initialize_kaiming(self)

    def load_initial_weights(self) -> None:
        """Load the published weights that the configuration names; see `load_official_weights`."""
        load_official_weights(self, self.config, _official_names(_BLOCKS[self.config.variant]))
        for name, part in self.named_children():
            if name != self.trunk_module:
                _take_absolute_values(part)

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        """Segment images; see `Segmenter.forward`.

        Args:
            image: normalized, float [B, 3, H, W]; B at least 2 in training mode.
            auxiliary: whether to compute the auxiliary outputs and the boundary.

        Returns:
            Logits float [B, num_classes, H, W]; two auxiliary outputs of the same shape, from the context at 1/8 and at 1/16, or
            none; features float [B, 256, ceil(H / 8), ceil(W / 8)], detail and context joined; with auxiliary outputs, where
            classes meet, from the trunk's features at 1/8.

        Raises:
            ConfigError: one image in training mode.
        """
        self.refuse_one_image(image)
        size = (image.shape[2], image.shape[3])
        pyramid: Pyramid = self.backbone(image)
        context, coarse_context = self.context(pyramid)
        features = self.fusion(pyramid.eighth, context)
        logits = _enlarged(self.head(features), size)
        if not (self.training if auxiliary is None else auxiliary):
            return SegmentationOutput(logits, (), features)
        levels = zip(self.auxiliary_heads, (context, coarse_context), strict=True)
        scores = tuple(_enlarged(head(level), size) for head, level in levels)
        detail = Boundary(_enlarged(self.boundary_head(pyramid.eighth), size), "detail")
        return SegmentationOutput(logits, scores, features, detail)


def _enlarged(scores: Tensor, size: tuple[int, int]) -> Tensor:
    return enlarge_scores(scores, sizes=[size], align_corners=True)


def _take_absolute_values(part: nn.Module) -> None:
    """Make the weights of normalizations positive: In-Place Activated BatchNorm, of the published code, uses their absolute values.

    It adds 1e-5 to them, too, which is left out.
    """
    for module in part.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.abs_()
