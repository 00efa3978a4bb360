"""Domain discriminators: which domain does this segmentation come from?

Every one maps class probabilities float [B, C, H, W] to domain logits float [B, 1, H // 32, W // 32] (each halving
rounds down) through five layers of kernel 4, stride 2, padding 1 with LeakyReLU(0.2) between them. They differ in how
the layers' kernels are factorized, and so in parameters and multiply-accumulates. Counts below are for 19 classes,
512 x 1024.

| name | kernel | parameters | G MACs |
| --- | --- | --- | --- |
| fcd | dense (Tsai et al., CVPR 2018) | 2,781,121 | 15.44 |
| tfd | Tucker, at rank 0.5 / 0.1 | 1,389,603 / 278,846 | 8.54 / 1.87 |
| cp | canonical polyadic, at rank 0.5 / 0.1 | 1,391,090 / 279,162 | 14.95 / 2.99 |
| dwd | depthwise, then pointwise | 191,364 | 1.07 |
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from segda.catalog import Catalog, subclass_of
from segda.errors import ConfigError

_KERNEL = 4
_WIDTHS = (64, 128, 256, 512, 1)
_SMALLEST_SIDE = 2 ** len(_WIDTHS)


class Discriminator(nn.Module):
    """Five strided layers with LeakyReLU between them; subclasses say what a layer is.

    Attributes:
        has_rank: whether the kernels are factorized at a rank that the caller chooses.
    """

    has_rank: ClassVar[bool] = False

    def __init__(self, num_classes: int, *, layer: Callable[[int, int], nn.Module]) -> None:
        """Stack the layers.

        Args:
            num_classes: channels of the input.
            layer: builds one layer from its numbers of input and output channels.

        Raises:
            ConfigError: fewer than two classes.
        """
        super().__init__()
        if num_classes < 2:
            raise ConfigError(f"a discriminator of segmentations needs at least 2 classes, got {num_classes}")
        channels = (num_classes, *_WIDTHS)
        parts: list[nn.Module] = []
        for in_channels, out_channels in pairwise(channels):
            parts += [layer(in_channels, out_channels), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*parts[:-1])

    def forward(self, probs: Tensor) -> Tensor:
        """Judge segmentations.

        Args:
            probs: softmax over classes, float [B, num_classes, H, W], H and W at least 32.

        Returns:
            Domain logits float [B, 1, H // 32, W // 32].

        Raises:
            ConfigError: an input too small for five halvings.
        """
        height, width = probs.shape[-2:]
        if min(height, width) < _SMALLEST_SIDE:
            raise ConfigError(
                f"a discriminator halves its input five times and needs at least {_SMALLEST_SIDE} x {_SMALLEST_SIDE} "
                f"pixels, got {height} x {width}; give it the probabilities at the size of the image"
            )
        logits: Tensor = self.layers(probs)
        return logits


class FCD(Discriminator):
    """Fully-convolutional discriminator of AdaptSegNet (Tsai et al., CVPR 2018), with dense kernels."""

    def __init__(self, num_classes: int) -> None:
        """Build it.

        Args:
            num_classes: channels of the input.
        """
        super().__init__(num_classes, layer=_dense)


class TFD(Discriminator):
    """Each kernel is a Tucker decomposition over channels: 1x1 to fewer channels, strided core, 1x1 to the output's.

    The two channel ranks of a layer keep the proportion of its channels. The kernel's positions are not decomposed:
    their factors are absorbed in the core, which makes each layer 32 parameters smaller than a decomposition that
    keeps them. The three convolutions really run, one after the other; nothing rebuilds the dense kernel.
    """

    has_rank: ClassVar[bool] = True

    def __init__(self, num_classes: int, *, rank: float = 0.5) -> None:
        """Build it.

        Args:
            num_classes: channels of the input.
            rank: parameters of a layer as a fraction of the dense layer's, in (0, 1].

        Raises:
            ConfigError: a rank outside of (0, 1].
        """
        _check_rank(rank)
        super().__init__(num_classes, layer=lambda i, o: _tucker(i, o, ranks=tucker_ranks(i, o, fraction=rank)))


class CP(Discriminator):
    """Each kernel is a sum of rank-one terms (canonical polyadic): 1x1, depthwise 4x1, depthwise 1x4, 1x1.

    Unlike `DWD`, every depthwise kernel is an outer product of a column and a row. The terms' weights are absorbed in
    the last factor, one parameter per term less than a decomposition that keeps them.
    """

    has_rank: ClassVar[bool] = True

    def __init__(self, num_classes: int, *, rank: float = 0.5) -> None:
        """Build it.

        Args:
            num_classes: channels of the input.
            rank: parameters of a layer as a fraction of the dense layer's, in (0, 1].

        Raises:
            ConfigError: a rank outside of (0, 1].
        """
        _check_rank(rank)
        super().__init__(num_classes, layer=lambda i, o: _canonical(i, o, terms=cp_rank(i, o, fraction=rank)))


class DWD(Discriminator):
    """Each layer is a strided depthwise convolution and a pointwise one, both with bias."""

    def __init__(self, num_classes: int) -> None:
        """Build it.

        Args:
            num_classes: channels of the input.
        """
        super().__init__(num_classes, layer=_depthwise_separable)


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
    positions = _KERNEL**2
    dense = in_channels * out_channels * positions
    linear = in_channels**2 + out_channels**2
    constant = 2 * positions - fraction * dense
    share = (math.sqrt(max(linear**2 - 4 * dense * constant, 0)) - linear) / (2 * dense)

    def rank(channels: int) -> int:
        return min(max(round(share * channels), 1), channels)

    return rank(in_channels), rank(out_channels)


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
    dense = in_channels * out_channels * _KERNEL**2
    return max(round(fraction * dense / (in_channels + out_channels + 2 * _KERNEL)), 1)


def _dense(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Conv2d(in_channels, out_channels, _KERNEL, 2, padding=1)


# A dense layer of PyTorch starts with weights of variance 1 / (3 fan_in). The product of the factors below has the same
# variance: every factor but the last keeps the variance of what it sums (1 / its own fan_in), the last one has 1 / (3
# fan_in). With each factor at its usual start the reconstructed kernels would be several times too small, and after
# five layers the output would hardly depend on the input.


def _tucker(in_channels: int, out_channels: int, *, ranks: tuple[int, int]) -> nn.Module:
    in_rank, out_rank = ranks
    return nn.Sequential(
        _keeping_variance(nn.Conv2d(in_channels, in_rank, 1, bias=False)),
        _keeping_variance(nn.Conv2d(in_rank, out_rank, _KERNEL, 2, padding=1, bias=False)),
        _closing(nn.Conv2d(out_rank, out_channels, 1), dense_fan_in=in_channels * _KERNEL**2),
    )


def _canonical(in_channels: int, out_channels: int, *, terms: int) -> nn.Module:
    return nn.Sequential(
        _keeping_variance(nn.Conv2d(in_channels, terms, 1, bias=False)),
        _keeping_variance(nn.Conv2d(terms, terms, (_KERNEL, 1), (2, 1), padding=(1, 0), groups=terms, bias=False)),
        _keeping_variance(nn.Conv2d(terms, terms, (1, _KERNEL), (1, 2), padding=(0, 1), groups=terms, bias=False)),
        _closing(nn.Conv2d(terms, out_channels, 1), dense_fan_in=in_channels * _KERNEL**2),
    )


def _depthwise_separable(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        _keeping_variance(nn.Conv2d(in_channels, in_channels, _KERNEL, 2, padding=1, groups=in_channels)),
        _closing(nn.Conv2d(in_channels, out_channels, 1), dense_fan_in=in_channels * _KERNEL**2),
    )


def _keeping_variance(conv: nn.Conv2d) -> nn.Conv2d:
    with torch.no_grad():
        conv.weight.normal_(std=conv.weight[0].numel() ** -0.5)
        if conv.bias is not None:
            conv.bias.zero_()
    return conv


def _closing(conv: nn.Conv2d, *, dense_fan_in: int) -> nn.Conv2d:
    """Start the last factor of a layer; its bias starts as the dense layer's does."""
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.normal_(std=(3 * conv.weight[0].numel()) ** -0.5)
        bound = dense_fan_in**-0.5
        conv.bias.uniform_(-bound, bound)
    return conv


def _check_rank(rank: float) -> None:
    if not 0 < rank <= 1:
        raise ConfigError(f"a discriminator's rank is a fraction of the dense parameters in (0, 1], got {rank}")


DISCRIMINATORS: Catalog[type[Discriminator]] = Catalog(
    "discriminator",
    group="segda.discriminators",
    built_in={"fcd": FCD, "tfd": TFD, "dwd": DWD, "cp": CP},
    check=subclass_of(Discriminator),
)


def build_discriminator(name: str, *, num_classes: int, rank: float = 0.5) -> Discriminator:
    """Build a discriminator with random weights.

    Args:
        name: key of `DISCRIMINATORS`.
        num_classes: channels of the input.
        rank: fraction of the dense parameters, in (0, 1]; only read by those with `has_rank`.

    Returns:
        A module that maps probabilities float [B, num_classes, H, W] to domain logits float [B, 1, H // 32, W // 32].

    Raises:
        ConfigError: unknown name, fewer than two classes or a rank outside of (0, 1].
    """
    kind: Callable[..., Discriminator] = DISCRIMINATORS[name]
    return kind(num_classes, rank=rank) if DISCRIMINATORS[name].has_rank else kind(num_classes)
