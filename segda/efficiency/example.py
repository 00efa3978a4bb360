"""The image that is measured with: the same at every call."""

import torch
from torch import Tensor

from segda.deployment.shipped import FloatPrecision
from segda.device import DTYPES


def example_input(input_shape: tuple[int, int, int, int], *, device: torch.device, precision: FloatPrecision) -> Tensor:
    """Draw a random input, the same at every call.

    Args:
        input_shape: (B, C, H, W).
        device: where it lies.
        precision: its type.

    Returns:
        Standard normal, float [B, C, H, W] in channels_last memory format.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(input_shape, generator=generator)
    return image.to(device=device, dtype=DTYPES[precision], memory_format=torch.channels_last)


def example_image(input_shape: tuple[int, int, int, int], *, device: torch.device) -> Tensor:
    """Draw random pixels, the same at every call.

    Args:
        input_shape: (B, 3, H, W).
        device: where they lie.

    Returns:
        uint8 [B, 3, H, W].
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, input_shape, dtype=torch.uint8, generator=generator).to(device)
