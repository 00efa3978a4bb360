"""The contract that every trunk keeps."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from segda.types import IMAGE_MEAN, IMAGE_STD


class Pyramid(NamedTuple):
    """Features of a trunk at three scales.

    Attributes:
        eighth: float [B, C8, ceil(H / 8), ceil(W / 8)].
        sixteenth: float [B, C16, ceil(H / 16), ceil(W / 16)].
        thirty_second: float [B, C32, ceil(H / 32), ceil(W / 32)].
    """

    eighth: Tensor
    sixteenth: Tensor
    thirty_second: Tensor


class Normalization(NamedTuple):
    """What is subtracted from a pixel and what the difference is divided by, per channel of RGB in 0..255.

    Attributes:
        mean: subtracted.
        std: divided by.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalization(IMAGE_MEAN, IMAGE_STD)


class Renormalize(nn.Module):
    """Converts images from one normalization to another; zeros that are padded afterwards mean the new normalization's mean.

    Folding the factors into a first convolution is not the same: there, padding has been done already.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, source: Normalization, target: Normalization) -> None:
        """Compute the factors.

        Args:
            source: of the images that come.
            target: of those that are returned.
        """
        super().__init__()
        channels = zip(source.mean, source.std, target.mean, target.std, strict=True)
        factors = torch.tensor(
            [(std / new_std, (mean - new_mean) / new_std) for mean, std, new_mean, new_std in channels]
        )
        scale, shift = factors.T.reshape(2, 1, 3, 1, 1)
        # Not a part of what is saved: they follow from the network's settings.
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Map float [B, 3, H, W] to another one."""
        return image * self.scale + self.shift


class PublishedWeights(NamedTuple):
    """Where ImageNet weights of a trunk are published.

    Attributes:
        file: name of the file; the eight hexadecimal digits before its suffix are the head of its SHA-256.
        classifier: beginnings of the names of tensors in it that belong to the classifier, which a trunk does not have.
        package: installed Python package that holds it in its folder `models`; None: it is downloaded, unless `hub` is given.
        sha256: the whole digest, 64 hexadecimal digits; None: its head in the name must do.
        hub: repository on Hugging Face; the file is looked for in the local cache of it and never downloaded.
    """

    file: str
    classifier: tuple[str, ...]
    package: str | None = None
    sha256: str | None = None
    hub: str | None = None


class Trunk(nn.Module, ABC):
    """The part of a network that computes features and that ImageNet weights exist for.

    Its parameters have the names of the published file, so that the file of anybody who trained the same trunk fits.

    Attributes:
        channels: channels of the features at 1/8, 1/16 and 1/32.
        published: ImageNet weights; None: there are none.
        normalization: of the images that it wants; a network converts what it gets before the first padding, see `Renormalize`.
    """

    channels: tuple[int, int, int]
    published: PublishedWeights | None = None
    normalization: Normalization = IMAGENET

    @abstractmethod
    def forward(self, image: Tensor) -> Pyramid:
        """Compute the features.

        Args:
            image: normalized as `normalization` says, float [B, 3, H, W].

        Returns:
            Features at 1/8, 1/16 and 1/32 of the image's size, rounded up.
        """

    def converted(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return weights under the trunk's names and without a classifier; whether they fit is asked afterwards.

        Args:
            state: what the file of a trained network holds, name -> tensor.

        Raises:
            ValueError: it is none of this trunk; says why in one line.
        """
        classifier = () if self.published is None else self.published.classifier
        return {name: value for name, value in state.items() if not name.startswith(classifier)}
