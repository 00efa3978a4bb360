"""FCN-8s on VGG-16 (Long et al., CVPR 2015): a classifier of images run as a convolution. Not real-time; a baseline of old.

The classifier's fully connected layers look at 7 x 7 positions at 1/32; slid over the map they score every position. Scores of two
finer scales are added while these are enlarged, twice, twice and eight times. So that the 7 x 7 window, which has no padding, fits
into small images too, the first convolution pads 100 pixels; the crops put right what all layers together shift.

Source: the authors' Caffe network as adaptation papers use it (LSE, FDA), factors 0.01 and 0.0001 on the skipped features included.
Deviations: there enlarging is a transposed convolution with a frozen kernel from every class to every class, of which only the
bilinear ones on the diagonal are not zero; here each class has its own, and there are no 103,968 frozen numbers. Weights come from
torchvision, whose images are normalized as all here, not from Caffe.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from segda.models.base import ModelConfig, Segmenter
from segda.models.blocks import no_autocast
from segda.models.official_weights import OfficialNames, OfficialWeightsConfig, load_official_weights
from segda.types import SegmentationOutput

# Channels of the convolutions of each scale, 1/1 to 1/16.
_SCALES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_FIRST_PADDING = 100
_WINDOW = 7
_WIDTH = 4096
# Scores of the skipped features start with next to no say.
_FACTORS = {"fourth": 0.01, "third": 0.0001}
_CROPS = {"fourth": 5, "third": 9, "image": 31}

_NAMES = OfficialNames(
    own={"features": "backbone.features", "classifier.0": "backbone.fc6", "classifier.3": "backbone.fc7"},
    optional=("classifier", "score_fourth", "score_third"),
    classifiers=(),
    foreign=("classifier.6.",),
)


class FCN8sConfig(OfficialWeightsConfig):
    """Settings of `FCN8s`."""

    name: Literal["fcn8s"] = "fcn8s"
    weights_file: Path | None = Field(
        None,
        description="local copy of torchvision's vgg16-397923af.pth (ImageNet), https://download.pytorch.org/models/vgg16-397923af.pth",
    )


class VGG16(nn.Module):
    """The trunk: thirteen convolutions, and two fully connected layers that are slid over what they see."""

    # The weights of the two linear layers are reshaped and used as they are, with as many channels as the last convolution gives.
    fixed_width = ("features.28", "dropout")

    def __init__(self) -> None:
        """Build the layers; their names are those of the published weights."""
        super().__init__()
        layers: list[nn.Module] = []
        self._ends: list[int] = []
        width = 3
        for scale in _SCALES:
            for channels in scale:
                padding = 1 if layers else _FIRST_PADDING
                layers += [nn.Conv2d(width, channels, 3, padding=padding), nn.ReLU(inplace=True)]
                width = channels
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            self._ends.append(len(layers))
        self.features = nn.Sequential(*layers)
        self.fc6 = nn.Linear(width * _WINDOW**2, _WIDTH)
        self.fc7 = nn.Linear(_WIDTH, _WIDTH)
        self.dropout = nn.Dropout2d(0.5)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map float [B, 3, H, W] to features at 1/8, 1/16 and 1/32, padding included, with 256, 512 and 4096 channels."""
        _, _, third, fourth, _ = self._ends
        eighth = self.features[:third](image)
        sixteenth = self.features[third:fourth](eighth)
        x = self.features[fourth:](sixteenth)
        for layer, side in ((self.fc6, _WINDOW), (self.fc7, 1)):
            window = layer.weight.reshape(_WIDTH, -1, side, side)
            x = self.dropout(functional.conv2d(x, window, layer.bias).relu())
        return eighth, sixteenth, x


class FCN8s(Segmenter):
    """The network.

    With 19 classes it has 134,353,017 parameters and needs 334 G multiply-accumulates at 512 x 1024.
    """

    Config: ClassVar[type[ModelConfig]] = FCN8sConfig
    trunk_module: ClassVar[str | None] = "backbone"

    def __init__(self, config: Any, *, num_classes: int) -> None:
        """Build the network; see `Segmenter.__init__`."""
        super().__init__(config, num_classes=num_classes)
        self.backbone = VGG16()
        self.classifier = nn.Conv2d(_WIDTH, num_classes, 1)
        self.score_fourth = nn.Conv2d(512, num_classes, 1)
        self.score_third = nn.Conv2d(256, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        for layer in (self.classifier, self.score_fourth, self.score_third):
            nn.init.normal_(layer.weight, std=0.01)

    def load_initial_weights(self) -> None:
        """Load the official weights of the trunk that the configuration names; see `load_official_weights`."""
        load_official_weights(self, self.config, _NAMES)

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        """Segment images; see `Segmenter.forward`.

        Args:
            image: normalized, float [B, 3, H, W].
            auxiliary: of no effect, there are no auxiliary outputs.

        Returns:
            Logits float [B, num_classes, H, W]; features float [B, 4096, h, w] at 1/32 of the image's size and its padding.
        """
        eighth, sixteenth, features = self.backbone(image)
        fourth = self.score_fourth(_FACTORS["fourth"] * sixteenth)
        third = self.score_third(_FACTORS["third"] * eighth)
        scores = enlarge_bilinearly(self.classifier(features), factor=2)
        scores = scores + _crop(fourth, offset=_CROPS["fourth"], like=scores)
        scores = enlarge_bilinearly(scores, factor=2)
        scores = scores + _crop(third, offset=_CROPS["third"], like=scores)
        logits = _crop(enlarge_bilinearly(scores, factor=8), offset=_CROPS["image"], like=image)
        return SegmentationOutput(logits.contiguous(), (), features)


def enlarge_bilinearly(scores: Tensor, *, factor: int) -> Tensor:
    """Enlarge maps by a transposed convolution whose kernel is a tent, in at least single precision.

    Inside, the result is bilinear interpolation; scores beyond the border count as zero.

    Args:
        scores: float [B, C, h, w].
        factor: even.

    Returns:
        float32 (or float64, if the scores are) [B, C, (h + 1) * factor, (w + 1) * factor].
    """
    scores = scores.float() if scores.dtype.itemsize < 4 else scores
    position = torch.arange(2 * factor, device=scores.device, dtype=scores.dtype)
    tent = 1 - (position - factor + 0.5).abs() / factor
    channels = scores.shape[1]
    kernel = (tent[:, None] * tent).expand(channels, 1, -1, -1)
    with no_autocast(scores.device):
        return functional.conv_transpose2d(scores, kernel, stride=factor, groups=channels)


def _crop(maps: Tensor, *, offset: int, like: Tensor) -> Tensor:
    """Cut out of float [B, C, h, w] as many rows and columns as another one has, from an offset on."""
    return maps[:, :, offset : offset + like.shape[2], offset : offset + like.shape[3]]
