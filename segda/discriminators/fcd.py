"""FCD: dense kernels."""

from torch import nn

from segda.discriminators.base import KERNEL, Discriminator


class FCD(Discriminator):
    """Fully-convolutional discriminator of AdaptSegNet (Tsai et al., CVPR 2018), with dense kernels."""

    def layer(self, in_channels: int, out_channels: int, *, rank: float) -> nn.Module:
        """Build one layer; see `Discriminator.layer`."""
        return nn.Conv2d(in_channels, out_channels, KERNEL, 2, padding=1)
