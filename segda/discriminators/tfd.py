"""TFD: kernels as Tucker decompositions over channels."""

import math
from typing import ClassVar

from torch import nn

from segda.discriminators.base import KERNEL, Discriminator, closing, keeping_variance


class TFD(Discriminator):
    """Each kernel is a Tucker decomposition over channels: 1x1 to fewer channels, strided core, 1x1 to the output's.

    The two channel ranks of a layer keep the proportion of its channels. The kernel's positions are not decomposed:
    their factors are absorbed in the core, which makes each layer 32 parameters smaller than a decomposition that
    keeps them. The three convolutions really run, one after the other; nothing rebuilds the dense kernel.
    """

    has_rank: ClassVar[bool] = True

    def layer(self, in_channels: int, out_channels: int, *, rank: float) -> nn.Module:
        """Build one layer; see `Discriminator.layer`."""
        in_rank, out_rank = tucker_ranks(in_channels, out_channels, fraction=rank)
        return nn.Sequential(
            keeping_variance(nn.Conv2d(in_channels, in_rank, 1, bias=False)),
            keeping_variance(nn.Conv2d(in_rank, out_rank, KERNEL, 2, padding=1, bias=False)),
            closing(nn.Conv2d(out_rank, out_channels, 1), dense_fan_in=in_channels * KERNEL**2),
        )


def tucker_ranks(in_channels: int, out_channels: int, *, fraction: float) -> tuple[int, int]:
    """Find the channel ranks that leave a fraction of a dense kernel's parameters.

    With both ranks the same share t of their channels, the positive root of
    in out k^2 t^2 + (in^2 + out^2) t + 2 k^2 = fraction in out k^2, each rank rounded to the nearest integer. The
    term 2 k^2 stands for the two factors over kernel positions of a complete decomposition.

    Args:
        in_channels: channels of the layer's input.
        out_channels: channels of its output.
        fraction: share of the dense kernel's parameters, in (0, 1].

    Returns:
        (rank of the input's channels, rank of the output's channels), each between 1 and the number of channels.

    Example:
        >>> tucker_ranks(64, 128, fraction=0.5)
        (41, 81)
    """
    positions = KERNEL**2
    dense = in_channels * out_channels * positions
    linear = in_channels**2 + out_channels**2
    constant = 2 * positions - fraction * dense
    share = (math.sqrt(max(linear**2 - 4 * dense * constant, 0)) - linear) / (2 * dense)

    def rank(channels: int) -> int:
        return min(max(round(share * channels), 1), channels)

    return rank(in_channels), rank(out_channels)
