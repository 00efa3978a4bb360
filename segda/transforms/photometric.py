"""Color jitter and blur of normalized images on their device: for methods that augment what they have put together themselves.

Recipes (`segda.transforms.recipes`) act on files before a batch exists; this acts inside of a training step. It moves no pixel, so
labels and weights stay as they are. Draws are made on the CPU, so nothing here waits for a GPU.

Colors are changed on RGB values in [0, 1], in this order: brightness, contrast, saturation, hue. Values are clamped after each. The
weights of gray are those of ITU-R BT.601.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segda.types import IMAGE_MEAN, IMAGE_STD

SMALLEST_SIGMA = 0.15  # pixels
_GRAY = (0.299, 0.587, 0.114)
_KERNEL_REACH = 3.5  # standard deviations to each side


class Jitter(NamedTuple):
    """A change of colors.

    Attributes:
        brightness: factor on all values, >= 0.
        contrast: factor on the distance to the image's mean gray, >= 0.
        saturation: factor on the distance to the pixel's own gray, >= 0; 0: no colors.
        hue: how far hues turn, in turns; red becomes green at 1/3.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float

    @classmethod
    def draw(cls, strength: float, generator: torch.Generator) -> "Jitter":
        """Draw the three factors from U(1 - strength, 1 + strength) and the turn from U(-strength, strength).

        Args:
            strength: in [0, 0.5].
            generator: on the CPU.
        """
        brightness, contrast, saturation, hue = (strength * (2 * _uniform(generator) - 1) for _ in cls._fields)
        return cls(1 + brightness, 1 + contrast, 1 + saturation, hue)


def augment_strongly(
    images: Tensor,
    *,
    jitter: float,
    jitter_probability: float,
    largest_sigma: float,
    blur_probability: float,
    generator: Callable[[int, str], torch.Generator],
) -> Tensor:
    """Jitter the colors of some images and blur some, each image by its own draws.

    Args:
        images: normalized, float [B, 3, H, W]; H and W larger than 3.5 times `largest_sigma`, rounded up.
        jitter: strength, see `Jitter.draw`.
        jitter_probability: share of the images whose colors are changed.
        largest_sigma: of the blur, pixels; drawn from U(`SMALLEST_SIGMA`, `largest_sigma`).
        blur_probability: share of the images that are blurred.
        generator: (number of the image, purpose) -> generator on the CPU, as `Draws.generator`.

    Returns:
        float [B, 3, H, W] in the memory format of the input; images without a change keep every bit.
    """
    result = images.clone()
    for number, image in enumerate(torch.split(result, 1)):
        own = generator(number, "jitter")
        if _uniform(own) < jitter_probability:
            image.copy_(jitter_colors(image, Jitter.draw(jitter, own)))
        own = generator(number, "blur")
        if _uniform(own) < blur_probability:
            image.copy_(blur(image, SMALLEST_SIGMA + _uniform(own) * (largest_sigma - SMALLEST_SIGMA)))
    return result


def _uniform(generator: torch.Generator) -> float:
    return torch.rand((), generator=generator, dtype=torch.float64).item()


def jitter_colors(images: Tensor, jitter: Jitter) -> Tensor:
    """Change the colors of images, all of them alike.

    Args:
        images: normalized, float [B, 3, H, W].
        jitter: how.

    Returns:
        float [B, 3, H, W]; every color is one that an 8-bit image could have, up to rounding.
    """
    planes = [
        (plane * (std / 255) + mean / 255)
        for plane, mean, std in zip(images.unbind(1), IMAGE_MEAN, IMAGE_STD, strict=True)
    ]
    planes = [(plane * jitter.brightness).clamp(0, 1) for plane in planes]
    planes = _blended(planes, _gray(planes).mean((1, 2), keepdim=True), jitter.contrast)
    planes = _blended(planes, _gray(planes), jitter.saturation)
    planes = _turned(planes, jitter.hue)
    return torch.stack(
        [(plane - mean / 255) / (std / 255) for plane, mean, std in zip(planes, IMAGE_MEAN, IMAGE_STD, strict=True)], 1
    )


def _gray(planes: list[Tensor]) -> Tensor:
    red, green, blue = planes
    return _GRAY[0] * red + _GRAY[1] * green + _GRAY[2] * blue


def _blended(planes: list[Tensor], center: Tensor, factor: float) -> list[Tensor]:
    offset = (1 - factor) * center
    return [(factor * plane + offset).clamp(0, 1) for plane in planes]


def _turned(planes: list[Tensor], turn: float) -> list[Tensor]:
    """Turn hues in the hexcone model (HSV), which keeps the largest and the smallest of a pixel's three values.

    With the hue h in sixths of a turn, a channel's value is max - chroma * clamp(min(k, 4 - k), 0, 1), where k = (h + n) mod 6 and
    n = 5, 3, 1 for red, green, blue.
    """
    red, green, blue = planes
    largest = torch.maximum(torch.maximum(red, green), blue)
    chroma = largest - torch.minimum(torch.minimum(red, green), blue)
    scale = 1 / chroma.clamp(min=1e-12)  # a gray pixel has any hue and chroma 0
    hue = torch.where(
        largest == red,
        (green - blue) * scale,
        torch.where(largest == green, (blue - red) * scale + 2, (red - green) * scale + 4),
    )
    turned = []
    for number in (5, 3, 1):
        position = (hue + (number + 6 * turn)).remainder(6)
        turned.append(largest - chroma * torch.minimum(position, 4 - position).clamp(0, 1))
    return turned


def blur(images: Tensor, sigma: float) -> Tensor:
    """Convolve images with a Gaussian; borders are reflected.

    Args:
        images: float [B, C, H, W]; H and W larger than the kernel's reach of 3.5 sigma, rounded up.
        sigma: standard deviation in pixels, > 0.

    Returns:
        float [B, C, H, W].
    """
    reach = math.ceil(_KERNEL_REACH * sigma)
    # Computed where it is needed: a list of numbers would have to be copied there, and the host would wait for that.
    kernel = (
        (torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype) / sigma).square().mul(-0.5).exp()
    )
    kernel = kernel / kernel.sum()
    channels = images.shape[1]
    with torch.autocast(images.device.type, enabled=False):
        padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
        rows = F.conv2d(padded, kernel.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)
        return F.conv2d(rows, kernel.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)
