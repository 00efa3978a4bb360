"""DWD: depthwise-separable kernels."""

from torch import nn

from segda.depthwise import Conv2d
from segda.discriminators.base import KERNEL, Discriminator, closing, keeping_variance


class DWD(Discriminator):
    """Each layer is a strided depthwise convolution and a pointwise one, both with bias."""

    def layer(self, in_channels: int, out_channels: int, *, rank: float) -> nn.Module:
        """Build one layer; see `Discriminator.layer`."""
        return nn.Sequential(
            keeping_variance(Conv2d(in_channels, in_channels, KERNEL, 2, padding=1, groups=in_channels)),
            closing(nn.Conv2d(in_channels, out_channels, 1), dense_fan_in=in_channels * KERNEL**2),
        )
