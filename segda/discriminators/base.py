"""The contract of discriminators, and how the factors of their kernels start."""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from segda.errors import ConfigError

KERNEL = 4
_WIDTHS = (64, 128, 256, 512, 1)
_SMALLEST_SIDE = 2 ** len(_WIDTHS)


class Discriminator(nn.Module, ABC):
    """Five strided layers with LeakyReLU between them; subclasses say what a layer is.

    Attributes:
        has_rank: whether the kernels are factorized at a rank that the caller chooses; the others do not read it.
    """

    has_rank: ClassVar[bool] = False

    def __init__(self, num_classes: int, *, rank: float = 0.5) -> None:
        """Stack the layers.

        Args:
            num_classes: channels of the input.
            rank: parameters of a layer as a fraction of the dense layer's, in (0, 1].

        Raises:
            ConfigError: fewer than two classes, or a rank outside of (0, 1].
        """
        super().__init__()
        if self.has_rank and not 0 < rank <= 1:
            raise ConfigError(f"a discriminator's rank is a fraction of the dense parameters in (0, 1], got {rank}")
        if num_classes < 2:
            raise ConfigError(f"a discriminator of segmentations needs at least 2 classes, got {num_classes}")
        channels = (num_classes, *_WIDTHS)
        parts: list[nn.Module] = []
        for in_channels, out_channels in pairwise(channels):
            parts += [self.layer(in_channels, out_channels, rank=rank), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*parts[:-1])

    @abstractmethod
    def layer(self, in_channels: int, out_channels: int, *, rank: float) -> nn.Module:
        """Build one layer of kernel 4, stride 2, padding 1.

        Args:
            in_channels: channels of its input.
            out_channels: channels of its output.
            rank: share of the dense parameters to keep; read by those with `has_rank`.
        """

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


# A dense layer of PyTorch starts with weights of variance 1 / (3 fan_in). The product of a layer's factors has the same
# variance: every factor but the last keeps the variance of what it sums (1 / its own fan_in), the last one has 1 / (3
# fan_in). With each factor at its usual start the reconstructed kernels would be several times too small, and after
# five layers the output would hardly depend on the input.


def keeping_variance(conv: nn.Conv2d) -> nn.Conv2d:
    """Start a factor that is not the last one of its layer, without bias; returns it."""
    with torch.no_grad():
        conv.weight.normal_(std=conv.weight[0].numel() ** -0.5)
        if conv.bias is not None:
            conv.bias.zero_()
    return conv


def closing(conv: nn.Conv2d, *, dense_fan_in: int) -> nn.Conv2d:
    """Start the last factor of a layer, its bias as the dense layer's; returns it.

    Args:
        conv: the factor, with a bias.
        dense_fan_in: numbers that one output of the dense layer sums.
    """
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.normal_(std=(3 * conv.weight[0].numel()) ** -0.5)
        bound = dense_fan_in**-0.5
        conv.bias.uniform_(-bound, bound)
    return conv
