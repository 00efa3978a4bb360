"""Pixel: a judgement of every pixel."""

from typing import ClassVar

from torch import nn

from segda.discriminators.base import Discriminator


class Pixel(Discriminator):
    """Two dense layers of kernel 3 and a pointwise one, without strides: one domain logit per pixel.

    Few parameters and most multiply-accumulates of all, because nothing makes the maps smaller.

    Source: the pixel-wise discriminator of PixDA (Tavera et al., WACV 2022), as in the authors' code.
    """

    hidden: ClassVar[tuple[int, ...]] = (64, 128)
    stride: ClassVar[int] = 1

    def layer(self, in_channels: int, out_channels: int, *, rank: float) -> nn.Module:
        """Build one layer; see `Discriminator.layer`."""
        return nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def last_layer(self, in_channels: int, out_channels: int, *, rank: float) -> nn.Module:
        """Build the pointwise layer; see `Discriminator.layer`."""
        return nn.Conv2d(in_channels, out_channels, 1)
