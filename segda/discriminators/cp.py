"""CP: kernels as sums of rank-one terms."""

from typing import ClassVar

from torch import nn

from segda.depthwise import Conv2d
from segda.discriminators.base import KERNEL, Discriminator, closing, keeping_variance


class CP(Discriminator):
    """Each kernel is a sum of rank-one terms (canonical polyadic): 1x1, depthwise 4x1, depthwise 1x4, 1x1.

    Unlike `DWD`, every depthwise kernel is an outer product of a column and a row. The terms' weights are absorbed in
    the last factor, one parameter per term less than a decomposition that keeps them.
    """

    has_rank: ClassVar[bool] = True

    def layer(self, in_channels: int, out_channels: int, *, rank: float) -> nn.Module:
        """Build one layer; see `Discriminator.layer`."""
        terms = cp_rank(in_channels, out_channels, fraction=rank)
        return nn.Sequential(
            keeping_variance(nn.Conv2d(in_channels, terms, 1, bias=False)),
            keeping_variance(Conv2d(terms, terms, (KERNEL, 1), (2, 1), padding=(1, 0), groups=terms, bias=False)),
            keeping_variance(Conv2d(terms, terms, (1, KERNEL), (1, 2), padding=(0, 1), groups=terms, bias=False)),
            closing(nn.Conv2d(terms, out_channels, 1), dense_fan_in=in_channels * KERNEL**2),
        )


def cp_rank(in_channels: int, out_channels: int, *, fraction: float) -> int:
    """Find the number of rank-one terms that leave a fraction of a dense kernel's parameters.

    Args:
        in_channels: channels of the layer's input.
        out_channels: channels of its output.
        fraction: share of the dense kernel's parameters, in (0, 1].

    Returns:
        fraction in out k^2 / (in + out + 2 k), rounded to the nearest integer, at least 1.

    Example:
        >>> cp_rank(64, 128, fraction=0.5)
        328
    """
    dense = in_channels * out_channels * KERNEL**2
    return max(round(fraction * dense / (in_channels + out_channels + 2 * KERNEL)), 1)
