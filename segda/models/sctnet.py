"""SCTNet (Xu et al., AAAI 2024): one branch of convolutions, some of which are shaped like the blocks of a transformer.

Source: arXiv:2312.17071 and its code (xzz777/SCTNet, MIT), whose names the file of weights uses. Published: mean IoU 0.729 (s, at
half the size of Cityscapes) to 0.805 (b, at full size). Training there has three losses: cross-entropy, 0.4 times that of an
auxiliary head (`loss.auxiliary_weight`), and the distance to the features of a SegFormer that was trained on the same images
(`distillation` with `learned: features`, see `segda.models.sctnet_alignment`). The teacher never enters the network, and a training
without it is complete, but the published figures are those with it.

Deviations: the kernels of the attention start as normal numbers of deviation 0.001, everything else as He et al. draw it. The code
means to do so, but hands tensors to functions that look for modules, so that these kernels stay zero; from zero all filters get
the same gradient in every step and remain one single filter, which only its ImageNet weights hide. There is no drop-path in
training (there 0.1), so that a loss depends on weights and images alone. Averages over windows are convolved in single precision.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from segda.models.alignment import FeatureAlignment
from segda.models.base import ModelConfig, Segmenter
from segda.models.blocks import enlarge_scores, initialize_kaiming, resize
from segda.models.dual_resolution import CLASSIFIER, head, head_names, stage, stem
from segda.models.official_weights import OfficialNames, OfficialWeightsConfig, load_official_weights
from segda.models.pyramids import DeepAggregationPyramid, pyramid_names
from segda.models.sctnet_alignment import SCTNetAlignment
from segda.tunable import Choice
from segda.types import SegmentationOutput

_FILTERS, _HEADS = 64, 8
_WIDTHS = {"s": 32, "b": 64}


def _former_names(official: str, own: str) -> dict[str, str]:
    return {
        f"{official}.attn_l.norm": f"{own}.attention.norm",
        f"{official}.attn_l.kv": f"{own}.attention.vertical",
        f"{official}.attn_l.kv3": f"{own}.attention.horizontal",
        f"{official}.mlp_l.norm": f"{own}.convolutions.0",
        f"{official}.mlp_l.conv1": f"{own}.convolutions.1",
        f"{official}.mlp_l.conv2": f"{own}.convolutions.3",
    }


_BACKBONE_NAMES = {
    "conv1": "backbone.stem",
    "layer1": "backbone.quarter",
    "layer2": "backbone.eighth",
    "layer3": "backbone.sixteenth",
    **_former_names("layer3_2", "backbone.former3"),
    "convdown4": "backbone.down",
    **_former_names("layer4", "backbone.former4"),
    **_former_names("layer5", "backbone.former5"),
    **pyramid_names("spp", "backbone.pyramid"),
}

_NAMES = OfficialNames(
    own={
        # The file from ImageNet holds the backbone alone.
        **_BACKBONE_NAMES,
        **{f"backbone.{there}": here for there, here in _BACKBONE_NAMES.items()},
        **head_names("decode_head", "head", classifier="conv_seg"),
        **head_names("auxiliary_head.0", "auxiliary_head", classifier="conv_seg"),
    },
    optional=("backbone.pyramid", "head", "auxiliary_head"),
    classifiers=(f"head.{CLASSIFIER}", f"auxiliary_head.{CLASSIFIER}"),
    # The teacher and what compares features with its own; a classifier of ImageNet.
    foreign=("auxiliary_head.1.", "head.", "fc.", "linear.", "classifier."),
)


class SCTNetConfig(OfficialWeightsConfig):
    """Settings of `SCTNet`."""

    name: Literal["sctnet"] = "sctnet"
    variant: Annotated[Literal["s", "b"], Choice("s", "b")] = Field(
        "s", description="s has 32 channels in its first layer and multiples of it in the others, b 64"
    )
    weights_file: Path | None = Field(
        None,
        description="local copy of a model for Cityscapes or ADE20K, or of SCT-S_Pretrain.pth or SCT-B_Pretrain.pth (ImageNet), to "
        "which the README of github.com/xzz777/SCTNet links",
    )


def normalize_twice(scores: Tensor) -> Tensor:
    """Return how much each position counts for each filter: softmax over positions, then shares of a head's filters.

    Args:
        scores: float [B, 64, h, w], eight filters for each of eight heads.

    Returns:
        At least float32 [B, 64, h, w]; at each position the eight filters of a head sum to 1, but for 1e-6.
    """
    # One of thousands of positions gets so little that half precision has few digits for it.
    precise = torch.promote_types(scores.dtype, torch.float32)
    positions = scores.reshape(scores.shape[0], _HEADS, _FILTERS // _HEADS, -1).softmax(dim=-1, dtype=precise)
    shares = positions / (positions.sum(dim=2, keepdim=True) + 1e-6)
    return shares.reshape(scores.shape)


class ConvolutionalAttention(nn.Module):
    """Attention whose keys and values are learned: convolution with a set of filters, two normalizations, and the way back.

    There are a set of columns and one of rows of seven pixels, whose results add up. The way back has the same kernels, with
    filters and channels exchanged.
    """

    def __init__(self, channels: int) -> None:
        """Draw the kernels; see the head of this file.

        Args:
            channels: channels in and out.
        """
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.vertical = nn.Parameter(torch.empty(_FILTERS, channels, 7, 1))
        self.horizontal = nn.Parameter(torch.empty(_FILTERS, channels, 1, 7))
        for kernel in (self.vertical, self.horizontal):
            nn.init.trunc_normal_(kernel, std=0.001)

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, channels, h, w] to another one."""
        normalized = self.norm(features)
        return _attend(normalized, self.vertical, padding=(3, 0)) + _attend(normalized, self.horizontal, padding=(0, 3))


def _attend(features: Tensor, kernel: Tensor, *, padding: tuple[int, int]) -> Tensor:
    scores = functional.conv2d(features, kernel, padding=padding)
    return functional.conv2d(normalize_twice(scores).to(scores.dtype), kernel.transpose(0, 1), padding=padding)


class ConvFormerBlock(nn.Module):
    """CFBlock: attention and two 3x3 convolutions, each beside a shortcut."""

    # Its kernels are no layers, and what it gives is added to the features: these keep their width.
    fixed_width = ("attention",)

    def __init__(self, channels: int) -> None:
        """Build the layers.

        Args:
            channels: channels in and out.
        """
        super().__init__()
        self.attention = ConvolutionalAttention(channels)
        self.convolutions = nn.Sequential(
            nn.BatchNorm2d(channels, eps=1e-6),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, channels, h, w] to another one."""
        features = features + self.attention(features)
        result: Tensor = features + self.convolutions(features)
        return result


class BackboneFeatures(NamedTuple):
    """What the backbone computes.

    Attributes:
        eighth: detail, float [B, 2 * width, ceil(H / 8), ceil(W / 8)].
        joined: detail and context beside each other, float [B, 4 * width, ceil(H / 8), ceil(W / 8)].
    """

    eighth: Tensor
    joined: Tensor


class SingleBranch(nn.Module):
    """Residual stages down to 1/16, blocks of attention there and at 1/32, a pyramid of averages, and the way back to 1/8."""

    def __init__(self, width: int) -> None:
        """Build the layers.

        Args:
            width: channels of the first layers.
        """
        super().__init__()
        self.stem = stem(width)
        self.quarter = stage(width, width, 2, bias=True)
        self.eighth = stage(width, 2 * width, 2, stride=2, bias=True)
        self.sixteenth = stage(2 * width, 4 * width, 2, stride=2, bias=True)
        self.former3 = ConvFormerBlock(4 * width)
        self.down = nn.Sequential(
            nn.Conv2d(4 * width, 8 * width, 3, 2, padding=1), nn.BatchNorm2d(8 * width), nn.ReLU(inplace=True)
        )
        self.former4, self.former5 = ConvFormerBlock(8 * width), ConvFormerBlock(8 * width)
        self.pyramid = DeepAggregationPyramid(8 * width, 2 * width, 2 * width, bias=True)

    def forward(self, image: Tensor) -> BackboneFeatures:
        """Compute the features of float [B, 3, H, W]."""
        eighth = self.eighth(self.quarter(self.stem(image)).relu())
        sixteenth = self.former3(self.sixteenth(eighth.relu()).relu())
        context = self.pyramid(self.former5(self.former4(self.down(sixteenth)).relu()))
        enlarged = resize(context, size=(eighth.shape[2], eighth.shape[3]))
        return BackboneFeatures(eighth, torch.cat([eighth, enlarged], dim=1))


class SCTNet(Segmenter):
    """The network.

    With 19 classes variant s has 4,693,062 parameters in training and 4,654,643 in use (without the auxiliary head), and needs
    8.1 G multiply-accumulates at 512 x 1024; variant b 17,588,326, 17,437,779 and 30.0 G. In the published recipe heads learn ten
    times as fast as the backbone (`optimizer.head_lr_factor`).
    """

    Config: ClassVar[type[ModelConfig]] = SCTNetConfig
    num_auxiliary: ClassVar[int] = 1
    training_only: ClassVar[tuple[str, ...]] = ("auxiliary_head",)
    trunk_module: ClassVar[str | None] = "backbone"
    feature_alignment: ClassVar[type[FeatureAlignment] | None] = SCTNetAlignment

    def __init__(self, config: Any, *, num_classes: int) -> None:
        """Build the network; see `Segmenter.__init__`, and the head of this file for its random weights."""
        super().__init__(config, num_classes=num_classes)
        width = _WIDTHS[config.variant]
        self.backbone = SingleBranch(width)
        self.head = head(4 * width, 4 * width, num_classes, bias=True)
        self.auxiliary_head = head(2 * width, 2 * width, num_classes, bias=True)
        initialize_kaiming(self, mode="fan_out")

    def load_initial_weights(self) -> None:
        """Load the official weights that the configuration names; see `load_official_weights`."""
        load_official_weights(self, self.config, _NAMES)

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        """Segment images; see `Segmenter.forward`.

        Args:
            image: normalized, float [B, 3, H, W]; B at least 2 in training mode.
            auxiliary: whether to compute the auxiliary output.

        Returns:
            Logits float [B, num_classes, H, W]; one auxiliary output of the same shape, from the detail at 1/8, or none; features
            float [B, 4 * width, ceil(H / 8), ceil(W / 8)], detail and context beside each other.

        Raises:
            ConfigError: one image in training mode.
        """
        self.refuse_one_image(image)
        size = (image.shape[2], image.shape[3])
        detail, features = self.backbone(image)
        logits = enlarge_scores(self.head(features), sizes=[size])
        if not (self.training if auxiliary is None else auxiliary):
            return SegmentationOutput(logits, (), features)
        return SegmentationOutput(logits, (enlarge_scores(self.auxiliary_head(detail), sizes=[size]),), features)
