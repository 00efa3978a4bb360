"""What is measured: a network as it would be shipped, on a device, at a precision."""

from typing import Literal

import torch
from torch import Tensor, nn

from segda.device import DTYPES
from segda.models.logits_only import inference_segmenter

Precision = Literal["fp32", "bf16", "fp16"]


def deploy(module: nn.Module, *, device: torch.device, precision: Precision) -> nn.Module:
    """Copy a module as it would be shipped.

    Args:
        module: left as it is.
        device: where the copy lies.
        precision: type that weights are converted to ahead of time; activations follow.

    Returns:
        A copy in evaluation mode without training-only parts, in channels_last memory format.
    """
    shipped = inference_segmenter(module).to(device=device, dtype=DTYPES[precision])
    # nn.Module.to has no overload for the memory format alone in PyTorch's type stubs.
    return shipped.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def example_input(input_shape: tuple[int, int, int, int], *, device: torch.device, precision: Precision) -> Tensor:
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
