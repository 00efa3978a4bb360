"""The way from a trunk's coarse features back to 1/8 that BiSeNet (Yu et al., ECCV 2018) and STDC (Fan et al., CVPR 2021) share.

What the whole image is like is added to the features at 1/32, these to those at 1/16. Sources: the paper's section 3.2, and the
public implementations CoinCheung/BiSeNet and MichaelFan01/STDC-Seg, which agree. Deviations: every up-sampling goes to an explicit
size, and pooled maps are convolved and normalized in single precision.
"""

from torch import Tensor, nn

from segda.models.blocks import ConvBNReLU, in_full_precision, pool, resize_nearest
from segda.models.trunks.base import Pyramid

# Channels of the context.
CONTEXT = 128


class AttentionRefinement(nn.Module):
    """3x3 convolution to fewer channels, which are weighed by what they are on average over the image."""

    def __init__(self, in_channels: int, channels: int) -> None:
        """Build the layers.

        Args:
            in_channels: channels of the input.
            channels: channels of the result.
        """
        super().__init__()
        self.project = ConvBNReLU(in_channels, channels)
        self.attention = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, channels, h, w]."""
        projected: Tensor = self.project(features)
        weights = in_full_precision(self.attention, pool(projected)).sigmoid()
        return projected * weights.to(projected.dtype)


class ContextPath(nn.Module):
    """From the whole image to 1/8, adding what each level of the trunk says."""

    def __init__(self, sixteenth: int, thirty_second: int) -> None:
        """Build the layers.

        Args:
            sixteenth: channels of the trunk's features at 1/16.
            thirty_second: channels of those at 1/32.
        """
        super().__init__()
        self.whole = ConvBNReLU(thirty_second, CONTEXT, kernel_size=1)
        self.refine_thirty_second = AttentionRefinement(thirty_second, CONTEXT)
        self.refine_sixteenth = AttentionRefinement(sixteenth, CONTEXT)
        self.to_sixteenth = ConvBNReLU(CONTEXT, CONTEXT)
        self.to_eighth = ConvBNReLU(CONTEXT, CONTEXT)

    def forward(self, pyramid: Pyramid) -> tuple[Tensor, Tensor]:
        """Return the context at 1/8 and at 1/16, float [B, 128, ...]."""
        fine, middle, deep = pyramid
        whole = in_full_precision(self.whole, pool(deep)).to(deep.dtype)
        context = self.refine_thirty_second(deep) + whole
        sixteenth = self.to_sixteenth(resize_nearest(context, size=(middle.shape[2], middle.shape[3])))
        context = self.refine_sixteenth(middle) + sixteenth
        return self.to_eighth(resize_nearest(context, size=(fine.shape[2], fine.shape[3]))), sixteenth
