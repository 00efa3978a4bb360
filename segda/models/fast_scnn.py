"""Fast-SCNN (Poudel et al., BMVC 2019): two resolutions share their first layers. Small and without a trunk, trained from scratch.

Source: arXiv:1902.04502, with the heads of the widely used PyTorch re-implementation: one auxiliary head, on the shared features at
1/8, whose loss has the weight 0.4 there (`loss.auxiliary_weight`). `width` scales all layers as the multiplier of MobileNetV2 does,
whose blocks these are; the paper has no such networks. Deviations: every up-sampling goes to an explicit size with
`align_corners=False`, and the first convolution is padded, so that every size from 32 x 32 works; the pyramid's pooling is written
as two matrix products, see `pool_to_bins`.
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from segda.models.base import ModelConfig, Segmenter
from segda.models.blocks import ConvBNReLU, enlarge_scores, in_full_precision, initialize_kaiming, no_autocast, resize
from segda.models.width import Width, scaled
from segda.types import SegmentationOutput

_BINS = (1, 2, 3, 6)


class FastSCNNConfig(ModelConfig):
    """Settings of `FastSCNN`."""

    unnamed_defaults: ClassVar[frozenset[str]] = frozenset({"width"})

    name: Literal["fast_scnn"] = "fast_scnn"
    width: Width = Field(1.0, description="factor on the channels of every layer, rounded to multiples of 8")


class SeparableConv(nn.Sequential):
    """Depthwise 3x3 and pointwise 1x1 convolution, each with batch normalization and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        """Build the layers.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            stride: step of the depthwise convolution.
        """
        super().__init__(
            ConvBNReLU(in_channels, in_channels, stride=stride, groups=in_channels),
            ConvBNReLU(in_channels, out_channels, kernel_size=1),
        )


class InvertedResidual(nn.Module):
    """1x1 to six times as many channels, depthwise 3x3, 1x1 without ReLU, and a shortcut where sizes agree."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        """Build the block.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            stride: step of the depthwise convolution.
        """
        super().__init__()
        width = 6 * in_channels
        self.layers = nn.Sequential(
            ConvBNReLU(in_channels, width, kernel_size=1),
            ConvBNReLU(width, width, stride=stride, groups=width),
            nn.Conv2d(width, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self._adds_input = stride == 1 and in_channels == out_channels

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, out_channels, ceil(h / stride), ceil(w / stride)]."""
        result: Tensor = self.layers(features)
        return result + features if self._adds_input else result


class PyramidPooling(nn.Module):
    """Averages over 1, 2, 3 and 6 bins per side, each with a 1x1 convolution, beside the features themselves (PSPNet)."""

    def __init__(self, channels: int) -> None:
        """Build the layers.

        Args:
            channels: channels in and out, a multiple of 4.
        """
        super().__init__()
        self.branches = nn.ModuleList(ConvBNReLU(channels, channels // len(_BINS), kernel_size=1) for _ in _BINS)
        self.project = ConvBNReLU(2 * channels, channels, kernel_size=1)

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, channels, h, w] to another one."""
        size = (features.shape[2], features.shape[3])
        levels = [
            resize(in_full_precision(branch, pool_to_bins(features, bins=bins)).to(features.dtype), size=size)
            for branch, bins in zip(self.branches, _BINS, strict=True)
        ]
        result: Tensor = self.project(torch.cat([features, *levels], dim=1))
        return result


def pool_to_bins(features: Tensor, *, bins: int) -> Tensor:
    """Average maps over a grid of bins; what `adaptive_avg_pool2d` does.

    Bin i of n over h rows holds the rows from floor(i h / n) to ceil((i + 1) h / n), so bins may overlap and there may be more of
    them than rows. Written as sums over rows and columns, since exporters to ONNX take the bins of an adaptive pooling for those
    of the example image, without a word, and are wrong at every other size.

    Args:
        features: float [B, C, h, w].
        bins: bins per side, n.

    Returns:
        float32 (or float64, if the features are) [B, C, n, n].
    """
    features = features.float() if features.dtype.itemsize < 4 else features
    rows, columns = (_bins(length, bins, like=features) for length in features.shape[-2:])
    with no_autocast(features.device):
        # Every map with matrices of its own: to spread them would ask whether a map has a single row, which programs for many sizes
        # must not depend on.
        maps = features.flatten(0, 1)
        by_rows = rows.expand(maps.shape[0], -1, -1).bmm(maps)
        return by_rows.bmm(columns.T.expand(maps.shape[0], -1, -1)).view(*features.shape[:2], bins, bins)


def _bins(length: int, bins: int, *, like: Tensor) -> Tensor:
    """Return the matrix [bins, length] whose rows average over their bins."""
    index = torch.arange(bins, device=like.device)[:, None]
    position = torch.arange(length, device=like.device)
    inside = (position >= index * length // bins) & (position < ((index + 1) * length + bins - 1) // bins)
    members = inside.to(like.dtype)
    return members / members.sum(dim=1, keepdim=True)


class FeatureFusion(nn.Module):
    """Joins coarse and fine features: the coarse ones are enlarged and smoothed, both come to the same channels and are added."""

    def __init__(self, coarse_channels: int, fine_channels: int, channels: int) -> None:
        """Build the layers.

        Args:
            coarse_channels: channels of the coarse features.
            fine_channels: channels of the fine features.
            channels: channels of the result.
        """
        super().__init__()
        self.smooth = ConvBNReLU(coarse_channels, channels, groups=coarse_channels)
        self.coarse = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))
        self.fine = nn.Sequential(nn.Conv2d(fine_channels, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Map float [B, coarse_channels, h, w] and [B, fine_channels, H, W] to float [B, channels, H, W]."""
        enlarged = resize(coarse, size=(fine.shape[2], fine.shape[3]))
        joined: Tensor = self.coarse(self.smooth(enlarged)) + self.fine(fine)
        return joined.relu()


class FastSCNN(Segmenter):
    """The network.

    With 19 classes it has 1,157,174 parameters in training and 1,138,051 in use (without the auxiliary head), and needs 7.1 G
    multiply-accumulates at 1024 x 2048.
    """

    Config: ClassVar[type[ModelConfig]] = FastSCNNConfig
    num_auxiliary: ClassVar[int] = 1
    training_only: ClassVar[tuple[str, ...]] = ("auxiliary_head",)

    def __init__(self, config: Any, *, num_classes: int) -> None:
        """Build the network with Kaiming initialization; see `Segmenter.__init__`."""
        super().__init__(config, num_classes=num_classes)
        half, quarter, fine, middle, wide = (scaled(channels, config.width) for channels in (32, 48, 64, 96, 128))
        self.shared = nn.Sequential(
            ConvBNReLU(3, half, stride=2),
            SeparableConv(half, quarter, stride=2),
            SeparableConv(quarter, fine, stride=2),
        )
        blocks, in_channels = [], fine
        for channels, stride in ((fine, 2), (middle, 2), (wide, 1)):
            blocks += [InvertedResidual(in_channels, channels, stride=stride)]
            blocks += [InvertedResidual(channels, channels) for _ in range(2)]
            in_channels = channels
        self.coarse = nn.Sequential(*blocks, PyramidPooling(wide))
        self.fusion = FeatureFusion(wide, fine, wide)
        self.refine = nn.Sequential(SeparableConv(wide, wide), SeparableConv(wide, wide))
        self.classifier = nn.Sequential(nn.Dropout(0.1), nn.Conv2d(wide, num_classes, 1))
        self.auxiliary_head = nn.Sequential(ConvBNReLU(fine, half), nn.Dropout(0.1), nn.Conv2d(half, num_classes, 1))
        initialize_kaiming(self)

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        """Segment images; see `Segmenter.forward`.

        Args:
            image: normalized, float [B, 3, H, W]; B at least 2 in training mode.
            auxiliary: whether to compute the auxiliary output.

        Returns:
            Logits float [B, num_classes, H, W]; one auxiliary output of the same shape, from the shared features at 1/8, or none;
            features float [B, 128 * width, ceil(H / 8), ceil(W / 8)].

        Raises:
            ConfigError: one image in training mode.
        """
        self.refuse_one_image(image)
        size = (image.shape[2], image.shape[3])
        fine = self.shared(image)
        features = self.refine(self.fusion(self.coarse(fine), fine))
        logits = enlarge_scores(self.classifier(features), sizes=[size])
        if not (self.training if auxiliary is None else auxiliary):
            return SegmentationOutput(logits, (), features)
        return SegmentationOutput(logits, (enlarge_scores(self.auxiliary_head(fine), sizes=[size]),), features)
