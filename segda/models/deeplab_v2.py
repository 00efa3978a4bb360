"""DeepLabV2 on ResNet-101 (Chen et al., PAMI 2018): the network that adaptation papers of the time are compared on. Not real-time.

The trunk keeps 1/8 of the image's size: its last two stages widen their kernels instead of taking steps. Scores are the sum of four
3x3 convolutions that look 6, 12, 18 and 24 positions far.

`deeplab_v2_multi` has such scores of the third stage, too: the second level of multi-level adversarial adaptation (Tsai et al.,
CVPR 2018). In the supervised loss they count a tenth there (`loss.auxiliary_weight: 0.1`).

The trunk is Caffe's ResNet: the first 1x1 convolution of a bottleneck takes the step, pooling rounds up, and an image is BGR minus
its mean, not divided by anything. Torchvision's weights are of another ResNet: they have the same names and shapes and do not fit.

Source: the re-implementation that the authors of AdaptSegNet (Tsai et al.) published. Deviations: batch normalization is trained,
where that code, with one image per step, froze scales and shifts; all four convolutions are summed at both levels, where its
multi-level network stops after two by mistake; scores are enlarged with `align_corners=False`; biases of the score layers start at
zero.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from segda.models.base import ModelConfig, Segmenter
from segda.models.blocks import enlarge_scores
from segda.models.official_weights import OfficialNames, OfficialWeightsConfig, load_official_weights
from segda.models.trunks.base import IMAGENET, Normalization, Renormalize
from segda.types import SegmentationOutput

_CAFFE = Normalization(mean=(122.67891434, 116.66876762, 104.00698793), std=(1.0, 1.0, 1.0))
_DILATIONS = (6, 12, 18, 24)

_TRUNK_PARTS = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
_NAMES = OfficialNames(
    own={f"{prefix}{part}": f"backbone.{part}" for part in _TRUNK_PARTS for prefix in ("", "Scale.")},
    optional=("classifier",),
    classifiers=(),
    # The classifier of images, and scores of other classes: of which level these are depends on the file.
    foreign=("fc.", "Scale.fc.", "layer5.", "layer6.", "Scale.layer5."),
)


class DeepLabV2Config(OfficialWeightsConfig):
    """Settings of `DeepLabV2`."""

    name: Literal["deeplab_v2", "deeplab_v2_multi"] = "deeplab_v2"
    weights_file: Path | None = Field(
        None,
        description="local copy of DeepLab_resnet_pretrained_init-f81d91e8.pth (ImageNet, from Caffe), to which the code of "
        "github.com/wasidennis/AdaptSegNet links, or of weights that were trained with it; only the trunk is read",
    )


class Bottleneck(nn.Module):
    """1x1 to fewer channels, 3x3, 1x1 to four times as many, and a shortcut; the first convolution takes the step."""

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1, dilation: int = 1) -> None:
        """Build the block.

        Args:
            in_channels: channels of the input.
            channels: channels of the 3x3 convolution; the output has four times as many.
            stride: step of the first convolution.
            dilation: distance of the taps of the 3x3 convolution.
        """
        super().__init__()
        out_channels = 4 * channels
        self.conv1 = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = (
            nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))
            if in_channels != out_channels
            else nn.Identity()
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, 4 * channels, ceil(h / stride), ceil(w / stride)]."""
        x = self.bn1(self.conv1(features)).relu()
        x = self.bn2(self.conv2(x)).relu()
        result: Tensor = (self.bn3(self.conv3(x)) + self.downsample(features)).relu()
        return result


class Backbone(nn.Module):
    """Stem and four stages."""

    def __init__(self) -> None:
        """Build the layers."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
        self.layer1 = _stage(64, 64, 3)
        self.layer2 = _stage(256, 128, 4, stride=2)
        self.layer3 = _stage(512, 256, 23, dilation=2)
        self.layer4 = _stage(1024, 512, 3, dilation=4)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map float [B, 3, H, W] to the features of the last two stages, float [B, 1024, h, w] and [B, 2048, h, w]."""
        x = self.maxpool(self.bn1(self.conv1(image)).relu())
        third = self.layer3(self.layer2(self.layer1(x)))
        return third, self.layer4(third)


def _stage(in_channels: int, channels: int, depth: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    first = Bottleneck(in_channels, channels, stride=stride, dilation=dilation)
    return nn.Sequential(first, *[Bottleneck(4 * channels, channels, dilation=dilation) for _ in range(depth - 1)])


class DilatedScores(nn.Module):
    """Class scores that see four neighbourhoods: the sum of 3x3 convolutions of different dilation."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        """Build the layers with small random weights.

        Args:
            in_channels: channels of the input.
            num_classes: channels of the result.
        """
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(in_channels, num_classes, 3, padding=distance, dilation=distance) for distance in _DILATIONS
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, num_classes, h, w]."""
        first, *others = (conv(features) for conv in self.convs)
        result: Tensor = sum(others, start=first)
        return result


class DeepLabV2(Segmenter):
    """The network with one level of scores.

    With 19 classes it has 43,901,068 parameters and needs 374.7 G multiply-accumulates at 512 x 1024.
    """

    Config: ClassVar[type[ModelConfig]] = DeepLabV2Config
    trunk_module: ClassVar[str | None] = "backbone"

    def __init__(self, config: Any, *, num_classes: int) -> None:
        """Build the network; see `Segmenter.__init__`."""
        super().__init__(config, num_classes=num_classes)
        self.trunk_input = Renormalize(IMAGENET, _CAFFE)
        self.backbone = Backbone()
        self.classifier = DilatedScores(2048, num_classes)
        self.auxiliary_head: DilatedScores | None = None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        _start_small(self.classifier)

    def load_initial_weights(self) -> None:
        """Load the official weights of the trunk that the configuration names; see `load_official_weights`."""
        names = _NAMES._replace(optional=(*_NAMES.optional, *self.training_only))
        load_official_weights(self, self.config, names)

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        """Segment images; see `Segmenter.forward`.

        Args:
            image: normalized, float [B, 3, H, W].
            auxiliary: whether to compute the auxiliary output, if the network has one.

        Returns:
            Logits float [B, num_classes, H, W]; no auxiliary output, or that of `deeplab_v2_multi`, of the same shape, from the
            third stage; features float [B, 2048, h, w] at about 1/8 of the image's size.
        """
        third, features = self.backbone(self.trunk_input(image).flip(1))
        sizes = [(image.shape[2], image.shape[3])]
        logits = enlarge_scores(self.classifier(features), sizes=sizes)
        # What is shipped has no such attribute at all, and does not ask.
        if not (self.training if auxiliary is None else auxiliary) or self.auxiliary_head is None:
            return SegmentationOutput(logits, (), features)
        return SegmentationOutput(logits, (enlarge_scores(self.auxiliary_head(third), sizes=sizes),), features)


class DeepLabV2Multi(DeepLabV2):
    """The network with a second level of scores in training, with which it has 44,601,560 parameters."""

    num_auxiliary: ClassVar[int] = 1
    training_only: ClassVar[tuple[str, ...]] = ("auxiliary_head",)

    def __init__(self, config: Any, *, num_classes: int) -> None:
        """Build the network; see `Segmenter.__init__`."""
        super().__init__(config, num_classes=num_classes)
        self.auxiliary_head = DilatedScores(1024, num_classes)
        _start_small(self.auxiliary_head)


def _start_small(scores: DilatedScores) -> None:
    for conv in scores.convs:
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        nn.init.normal_(conv.weight, std=0.01)
        nn.init.zeros_(conv.bias)
