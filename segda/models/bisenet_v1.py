"""BiSeNet (Yu et al., ECCV 2018): a shallow path for detail beside a deep one for context.

There are two forms. `course` is the one that the adversarial adaptation studies on lightweight discriminators use, and what a
configuration means that names none; `paper` is the network as published, for comparison with papers.

| | `course` | `paper` |
| --- | --- | --- |
| detail | three 3x3 convolutions of stride 2, to 256 channels | 7x7, 3x3 and 3x3 of stride 2 and a 1x1, to 128 channels |
| attention modules | keep the trunk's channels | a 3x3 convolution to 128 channels before |
| average over the image | multiplies the features at 1/32 | a 1x1 convolution to 128 channels, added to the features at 1/32 |
| context at 1/8 | levels enlarged bilinearly, beside each other | level by level: add, repeat, convolve; see `ContextPath` |
| fusion | 3x3 to one channel per class, attention of two layers | 1x1 to 256 channels, attention of one layer with normalization |
| head, auxiliary heads | 1x1 | 3x3 to 256 or 64 channels and 1x1 |
| auxiliary heads read | the refined levels at 1/16 and 1/32 | the context at 1/8 and 1/16 |
| loss in its training | Dice | cross-entropy over hard pixels (`loss: ohem`) |

Both train with auxiliary outputs of the main one's weight (`loss.auxiliary_weight: 1`), the paper form's heads ten times as fast
as the rest. Published mean IoU of the paper form on the test images of Cityscapes: 0.747 with `resnet18`, 0.684 with `xception39`.

Of the course form two versions are public, with the same shapes and names. The first (ooooverflow/BiSeNet) makes the batch
normalization of the attention modules but does not apply it, so that attention is the sigmoid of the convolution alone, and
gives biases to convolutions before a normalization; the one that the studies took (taveraantonio/BiseNetv1) applies it and
has no such biases. This network is the second. Weights of the first fit into it without the biases, and mean something else.

Three things are computed in another order than written there, with the same result up to rounding:

- The classifiers are 1x1 convolutions after a bilinear up-sampling. Both are linear, one over channels and one over
  positions, and the interpolation weights sum to 1, so they commute, biases included. Here the 1x1 runs first, on 64
  (main), 4 and 16 (auxiliary) times fewer pixels.
- The attention of the 1/32 level and the tail are both one number per channel: they are multiplied with each other
  before they meet the feature map.
- The attention module and the tail share one global average.

The paper form is the public implementation CoinCheung/BiSeNet: mean IoU 0.754 on the validation images of Cityscapes with
ResNet-18. Where it differs from the text of the paper it is followed, in the fusion's attention (there two convolutions, the first
to fewer channels) and in the convolutions after each repetition. Deviation: every up-sampling goes to an explicit size, so that
every size from 32 x 32 works instead of multiples of 32; for those the result is the same.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from segda.config_problems import LocatedError
from segda.models.base import ModelConfig, Segmenter
from segda.models.blocks import (
    ConvBNReLU,
    enlarge_scores,
    in_full_precision,
    initialize_kaiming,
    no_autocast,
    pool,
    resize,
)
from segda.models.context_path import CONTEXT, ContextPath
from segda.models.trunks import BACKBONES, Pyramid, build_trunk, has_width
from segda.models.trunks.base import IMAGENET, Renormalize
from segda.models.trunks.pretrained import PretrainedName, load_imagenet_weights
from segda.models.width import Width
from segda.named import OneOf
from segda.tunable import Choice
from segda.types import SegmentationOutput


class BiSeNetV1Config(ModelConfig):
    """Settings of `BiSeNetV1`."""

    initial_weights: ClassVar[frozenset[str]] = frozenset({"pretrained", "weights_file"})
    unnamed_defaults: ClassVar[frozenset[str]] = frozenset({"form", "width"})

    name: str = "bisenet_v1"
    form: Annotated[Literal["course", "paper"], Choice("course", "paper")] = Field(
        "course", description="layers as in the adaptation studies, or as published"
    )
    backbone: Annotated[str, OneOf(BACKBONES), Choice(*BACKBONES)] = Field(
        "resnet18", description="trunk of the network; timm/NAME is one of the package timm, which is an extra"
    )
    width: Width = Field(
        1.0, description="factor on the channels of the trunk, rounded to multiples of 8; the other layers keep theirs"
    )
    pretrained: PretrainedName = Field(
        "imagenet", description="initial weights of the trunk; none: random initialization, asked for"
    )
    weights_file: Path | None = Field(
        None,
        description="local file with ImageNet weights of the trunk; unset: the package that holds them, or the user's cache, then "
        "the official address",
    )

    @model_validator(mode="after")
    def _file_is_read(self) -> Self:
        if self.weights_file is not None and self.pretrained == "none":
            raise LocatedError(
                ("weights_file",),
                "is read with pretrained: imagenet only, got pretrained: none; leave out one of the two",
            )
        return self

    @model_validator(mode="after")
    def _trunk_has_width(self) -> Self:
        if self.width != 1 and not has_width(self.backbone):
            known = ", ".join(name for name in BACKBONES if BACKBONES.is_ours(name) and has_width(name))
            raise LocatedError(
                ("width",),
                f"{self.backbone} cannot be scaled, got {self.width:g}; leave width at 1, or take one of {known}",
            )
        return self

    @property
    def trunk_label(self) -> str:
        """The trunk for people."""
        return self.backbone if self.width == 1 else f"{self.backbone} at width {self.width:g}"

    def weights_problem(self) -> str | None:
        """Return why there are no such initial weights; see `ModelConfig.weights_problem`."""
        if self.width == 1 or self.pretrained == "none" or self.weights_file is not None:
            return None
        return f"no ImageNet weights are known for {self.trunk_label}; say none, name weights_file, or leave width at 1"


class AttentionRefinement(nn.Module):
    """Channel attention from the globally pooled features: 1x1 convolution, batch normalization, sigmoid.

    The normalization sees one value per image and channel, so training needs at least two images per batch, and single
    precision, see `in_full_precision`: at batch 2 the gradient's cosine to that of a training in single precision is 0.91
    instead of 0.79 (ResNet-18, CamVid at 120 x 160, mean of eight batches; from batch 4 on it is above 0.99 either way). The
    convolution's bias is swallowed by the normalization; it stays because published counts and checkpoints have it.
    """

    def __init__(self, channels: int) -> None:
        """Build the module.

        Args:
            channels: channels in and out.
        """
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, pooled: Tensor) -> Tensor:
        """Compute the attention.

        Args:
            pooled: global average of the features, float [B, channels, 1, 1].

        Returns:
            Weights in (0, 1), float [B, channels, 1, 1].
        """
        with no_autocast(pooled.device):
            weights: Tensor = self.bn(self.conv(pooled.to(self.conv.weight.dtype))).sigmoid()
        return weights


class FeatureFusion(nn.Module):
    """Joins detail and context: 3x3 convolution to one channel per class, then channel attention with a shortcut."""

    # A channel per class is what it is about.
    fixed_width = ("project", "attention")

    def __init__(self, in_channels: int, num_classes: int) -> None:
        """Build the module.

        Args:
            in_channels: channels of all inputs together.
            num_classes: channels of the result.
        """
        super().__init__()
        self.project = ConvBNReLU(in_channels, num_classes)
        self.attention = nn.Sequential(
            nn.Conv2d(num_classes, num_classes, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(num_classes, num_classes, 1),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, num_classes, h, w]."""
        fused = self.project(features)
        # x * a + x, with the sum on the 1x1 map.
        result: Tensor = fused * (self.attention(fused.mean((2, 3), keepdim=True)) + 1)
        return result


class PublishedFeatureFusion(nn.Module):
    """Joins detail and context: 1x1 convolution, then channel attention with a shortcut."""

    def __init__(self, in_channels: int, channels: int) -> None:
        """Build the module.

        Args:
            in_channels: channels of all inputs together.
            channels: channels of the result.
        """
        super().__init__()
        self.project = ConvBNReLU(in_channels, channels, kernel_size=1)
        self.attention = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, channels, h, w]."""
        fused: Tensor = self.project(features)
        weights = in_full_precision(self.attention, pool(fused)).sigmoid()
        # x * a + x, with the sum on the 1x1 map.
        return fused * (weights + 1).to(fused.dtype)


def _published_head(in_channels: int, channels: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(ConvBNReLU(in_channels, channels), nn.Conv2d(channels, num_classes, 1))


class BiSeNetV1(Segmenter):
    """The network.

    With a ResNet-18 trunk and 19 classes the course form has 12,068,672 parameters in training and 12,054,042 in use (without the
    auxiliary heads), and needs 25.6 G multiply-accumulates at 512 x 1024 (25.8 G with the classifier behind the
    up-sampling); with EfficientNet-Lite0 3,573,424, 3,565,178 and 10.1 G. The paper form has 13,425,721 and 13,275,539, and needs
    29.7 G; with Xception39 2,073,521, 1,923,339 and 10.7 G. The paper gives 49 M parameters with ResNet-18 and 5.8 M with
    Xception39, which no public code has; the course form with ResNet-101 has 48.7 M.
    """

    Config: ClassVar[type[ModelConfig]] = BiSeNetV1Config
    num_auxiliary: ClassVar[int] = 2
    training_only: ClassVar[tuple[str, ...]] = ("auxiliary_heads",)
    trunk_module: ClassVar[str | None] = "backbone"

    def __init__(self, config: Any, *, num_classes: int) -> None:
        """Build the network, see `Segmenter.__init__`; everything but the trunk gets Kaiming initialization."""
        super().__init__(config, num_classes=num_classes)
        backbone = build_trunk(config.backbone, width=config.width)
        _, sixteenth, thirty_second = backbone.channels
        build = self._build_course if config.form == "course" else self._build_published
        build(sixteenth, thirty_second)
        initialize_kaiming(self)
        # Assigned last: the trunk keeps an initialization of its own.
        self.backbone = backbone
        wanted = backbone.normalization
        self.trunk_input = nn.Identity() if wanted == IMAGENET else Renormalize(IMAGENET, wanted)

    def _build_course(self, sixteenth: int, thirty_second: int) -> None:
        self.spatial_path = nn.Sequential(
            ConvBNReLU(3, 64, stride=2), ConvBNReLU(64, 128, stride=2), ConvBNReLU(128, 256, stride=2)
        )
        self.refine_sixteenth = AttentionRefinement(sixteenth)
        self.refine_thirty_second = AttentionRefinement(thirty_second)
        self.fusion: nn.Module = FeatureFusion(256 + sixteenth + thirty_second, self.num_classes)
        self.classifier: nn.Module = nn.Conv2d(self.num_classes, self.num_classes, 1)
        self.auxiliary_heads = nn.ModuleList(
            nn.Conv2d(channels, self.num_classes, 1) for channels in (sixteenth, thirty_second)
        )

    def _build_published(self, sixteenth: int, thirty_second: int) -> None:
        self.spatial_path = nn.Sequential(
            ConvBNReLU(3, 64, kernel_size=7, stride=2),
            ConvBNReLU(64, 64, stride=2),
            ConvBNReLU(64, 64, stride=2),
            ConvBNReLU(64, 128, kernel_size=1),
        )
        self.context = ContextPath(sixteenth, thirty_second)
        self.fusion = PublishedFeatureFusion(128 + CONTEXT, 256)
        self.classifier = _published_head(256, 256, self.num_classes)
        self.auxiliary_heads = nn.ModuleList(_published_head(CONTEXT, 64, self.num_classes) for _ in range(2))

    def load_initial_weights(self) -> None:
        """Load the trunk's weights; see `load_imagenet_weights`."""
        load_imagenet_weights(
            self.backbone,
            name=self.config.trunk_label,
            pretrained=self.config.pretrained,
            weights_file=self.config.weights_file,
        )

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        """Segment images; see `Segmenter.forward`.

        Args:
            image: normalized, float [B, 3, H, W]; B at least 2 in training mode.
            auxiliary: whether to compute the auxiliary outputs.

        Returns:
            Logits float [B, num_classes, H, W]; two auxiliary logits of the same shape, or none; features, the output of the fusion
            module, float [B, num_classes, ceil(H / 8), ceil(W / 8)], of the paper form with 256 channels.

        Raises:
            ConfigError: one image in training mode.
        """
        self.refuse_one_image(image)
        size = (image.shape[2], image.shape[3])
        pyramid: Pyramid = self.backbone(self.trunk_input(image))
        detail = self.spatial_path(image)
        if self.config.form == "course":
            levels = self._course_context(pyramid)
            detail_size = (detail.shape[2], detail.shape[3])
            context = [resize(level, size=detail_size) for level in levels]
            # In the literal order the heads sit between two interpolations; two do not equal one, so both stay.
            sizes = [detail_size, size]
        else:
            levels = self.context(pyramid)
            context = [levels[0]]
            sizes = [size]
        features = self.fusion(torch.cat([detail, *context], dim=1))
        logits = enlarge_scores(self.classifier(features), sizes=[size])

        if not (self.training if auxiliary is None else auxiliary):
            return SegmentationOutput(logits, (), features)
        coarse = [head(level) for head, level in zip(self.auxiliary_heads, levels, strict=True)]
        return SegmentationOutput(logits, tuple(enlarge_scores(scores, sizes=sizes) for scores in coarse), features)

    def _course_context(self, pyramid: Pyramid) -> tuple[Tensor, Tensor]:
        """Return the refined levels at 1/16 and 1/32."""
        middle = pyramid.sixteenth * self.refine_sixteenth(pool(pyramid.sixteenth)).to(pyramid.sixteenth.dtype)
        tail = pool(pyramid.thirty_second)
        deep = pyramid.thirty_second * (self.refine_thirty_second(tail) * tail).to(pyramid.thirty_second.dtype)
        return middle, deep
