"""BiSeNet (Yu et al., ECCV 2018): a shallow path for detail beside a deep one for context.

This is the variant that the adversarial adaptation studies on lightweight discriminators use. It differs from the
paper in these points: the pooled tail multiplies the 1/32 features instead of being added to them; the attention
modules keep the trunk's channels; the fusion module goes straight to one channel per class, and its attention does
not reduce channels; the auxiliary heads are single 1x1 convolutions.

Two versions of this variant are public, with the same shapes and names. The first (ooooverflow/BiSeNet) makes the batch
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
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from segda.models.base import ModelConfig, Segmenter
from segda.models.blocks import ConvBNReLU, enlarge_scores, initialize_kaiming, no_autocast, pool, resize
from segda.models.trunks import BACKBONES, Pyramid
from segda.models.trunks.base import IMAGENET, Renormalize
from segda.models.trunks.pretrained import PretrainedName, load_imagenet_weights
from segda.named import OneOf
from segda.tunable import Choice
from segda.types import SegmentationOutput


class BiSeNetV1Config(ModelConfig):
    """Settings of `BiSeNetV1`."""

    initial_weights: ClassVar[frozenset[str]] = frozenset({"pretrained", "weights_file"})

    name: str = "bisenet_v1"
    backbone: Annotated[str, OneOf(BACKBONES), Choice(*BACKBONES)] = Field(
        "resnet18", description="trunk of the network"
    )
    pretrained: PretrainedName = Field(
        "imagenet", description="initial weights of the trunk; none: random initialization, asked for"
    )
    weights_file: Path | None = Field(
        None,
        description="local file with ImageNet weights of the trunk; unset: the package that holds them, or the user's cache, then "
        "the official address",
    )


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


class BiSeNetV1(Segmenter):
    """The network.

    With a ResNet-18 trunk and 19 classes it has 12,068,672 parameters in training and 12,054,042 in use (without the
    auxiliary heads), and needs 25.6 G multiply-accumulates at 512 x 1024 (25.8 G with the classifier behind the
    up-sampling); with EfficientNet-Lite0 3,573,424, 3,565,178 and 10.1 G.
    """

    Config: ClassVar[type[ModelConfig]] = BiSeNetV1Config
    num_auxiliary: ClassVar[int] = 2
    training_only: ClassVar[tuple[str, ...]] = ("auxiliary_heads",)
    trunk_module: ClassVar[str | None] = "backbone"

    def __init__(self, config: Any, *, num_classes: int) -> None:
        """Build the network, see `Segmenter.__init__`; everything but the trunk gets Kaiming initialization."""
        super().__init__(config, num_classes=num_classes)
        backbone = BACKBONES[config.backbone]()
        _, sixteenth, thirty_second = backbone.channels
        self.spatial_path = nn.Sequential(
            ConvBNReLU(3, 64, stride=2), ConvBNReLU(64, 128, stride=2), ConvBNReLU(128, 256, stride=2)
        )
        self.refine_sixteenth = AttentionRefinement(sixteenth)
        self.refine_thirty_second = AttentionRefinement(thirty_second)
        self.fusion = FeatureFusion(256 + sixteenth + thirty_second, num_classes)
        self.classifier = nn.Conv2d(num_classes, num_classes, 1)
        self.auxiliary_heads = nn.ModuleList(
            nn.Conv2d(channels, num_classes, 1) for channels in (sixteenth, thirty_second)
        )
        initialize_kaiming(self)
        # Assigned last: the trunk keeps an initialization of its own.
        self.backbone = backbone
        wanted = backbone.normalization
        self.trunk_input = nn.Identity() if wanted == IMAGENET else Renormalize(IMAGENET, wanted)

    def load_initial_weights(self) -> None:
        """Load the trunk's weights; see `load_imagenet_weights`."""
        load_imagenet_weights(
            self.backbone,
            name=self.config.backbone,
            pretrained=self.config.pretrained,
            weights_file=self.config.weights_file,
        )

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        """Segment images; see `Segmenter.forward`.

        Args:
            image: normalized, float [B, 3, H, W]; B at least 2 in training mode.
            auxiliary: whether to compute the auxiliary outputs.

        Returns:
            Logits float [B, num_classes, H, W]; two auxiliary logits of the same shape, from the 1/16 and the 1/32
            level, or none; features float [B, num_classes, ceil(H / 8), ceil(W / 8)], the output of the fusion
            module.

        Raises:
            ConfigError: one image in training mode.
        """
        self.refuse_one_image(image)
        size = (image.shape[2], image.shape[3])
        pyramid: Pyramid = self.backbone(self.trunk_input(image))
        detail = self.spatial_path(image)
        detail_size = (detail.shape[2], detail.shape[3])

        middle = pyramid.sixteenth * self.refine_sixteenth(pool(pyramid.sixteenth)).to(pyramid.sixteenth.dtype)
        tail = pool(pyramid.thirty_second)
        deep = pyramid.thirty_second * (self.refine_thirty_second(tail) * tail).to(pyramid.thirty_second.dtype)

        context = [resize(level, size=detail_size) for level in (middle, deep)]
        features = self.fusion(torch.cat([detail, *context], dim=1))
        logits = enlarge_scores(self.classifier(features), sizes=[size])

        if not (self.training if auxiliary is None else auxiliary):
            return SegmentationOutput(logits, (), features)
        # In the literal order the heads sit between two interpolations; two do not equal one, so both stay.
        coarse = [head(level) for head, level in zip(self.auxiliary_heads, (middle, deep), strict=True)]
        enlarged = tuple(enlarge_scores(scores, sizes=[detail_size, size]) for scores in coarse)
        return SegmentationOutput(logits, enlarged, features)
