"""The contract of discriminators, and how the factors of their kernels start."""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from segda.errors import ConfigError

KERNEL = 4


class Discriminator(nn.Module, ABC):
    """Layers with LeakyReLU(0.2) between them; subclasses say what a layer is, and how many there are.

    Attributes:
        has_rank: whether the kernels are factorized at a rank that the caller chooses; the others do not read it.
        hidden: channels between the layers, of which there is one more.
        stride: of the layers together, and the smallest side of an input.
    """

    has_rank: ClassVar[bool] = False
    hidden: ClassVar[tuple[int, ...]] = (64, 128, 256, 512)
    stride: ClassVar[int] = 32

    def __init__(self, num_classes: int, *, rank: float = 0.5, outputs: int = 1, dropout: float = 0.0) -> None:
        """Stack the layers.

        Args:
            num_classes: channels of the input.
            rank: parameters of a layer as a fraction of the dense layer's, in (0, 1].
            outputs: channels of the output.
            dropout: probability that an element of what comes out of an activation is zero in training, in [0, 1). It is drawn from
                PyTorch's own generator, as in networks that have dropout: a resumed run goes on with the same draws, but parts of a
                batch do not have those of the whole.

        Raises:
            ConfigError: fewer than two classes, a rank outside of (0, 1], or a probability outside of [0, 1).
        """
        super().__init__()
        if self.has_rank and not 0 < rank <= 1:
            raise ConfigError(f"a discriminator's rank is a fraction of the dense parameters in (0, 1], got {rank}")
        if num_classes < 2:
            raise ConfigError(f"a discriminator of segmentations needs at least 2 classes, got {num_classes}")
        if not 0 <= dropout < 1:
            raise ConfigError(f"a discriminator's dropout is a probability in [0, 1), got {dropout}")
        parts: list[nn.Module] = []
        for in_channels, out_channels in pairwise((num_classes, *self.hidden)):
            activation: nn.Module = nn.LeakyReLU(0.2, inplace=True)
            if dropout:
                activation = nn.Sequential(
                    activation, nn.Dropout(dropout)
                )  # one entry, so that layers keep their numbers
            parts += [self.layer(in_channels, out_channels, rank=rank), activation]
        self.layers = nn.Sequential(*parts, self.last_layer(self.hidden[-1], outputs, rank=rank))

    @abstractmethod
    def layer(self, in_channels: int, out_channels: int, *, rank: float) -> nn.Module:
        """Build one layer, of kernel 4, stride 2 and padding 1 if `stride` and `hidden` are as here.

        Args:
            in_channels: channels of its input.
            out_channels: channels of its output.
            rank: share of the dense parameters to keep; read by those with `has_rank`.
        """

    def last_layer(self, in_channels: int, out_channels: int, *, rank: float) -> nn.Module:
        """Build the layer that says the domain; like the others, unless a subclass says otherwise."""
        return self.layer(in_channels, out_channels, rank=rank)

    def forward(self, maps: Tensor) -> Tensor:
        """Judge segmentations.

        Args:
            maps: one map per class, such as its probabilities, float [B, num_classes, H, W], H and W at least `stride`.

        Returns:
            Domain logits float [B, outputs, H // stride, W // stride]; what they say is in `segda.losses.adversarial`.

        Raises:
            ConfigError: an input smaller than the stride.
        """
        height, width = maps.shape[-2:]
        if min(height, width) < self.stride:
            raise ConfigError(
                f"a discriminator of stride {self.stride} needs at least {self.stride} x {self.stride} pixels, got "
                f"{height} x {width}; give it the maps at the size of the image"
            )
        logits: Tensor = self.layers(maps)
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
