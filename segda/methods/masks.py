"""Masks of squares, for methods that hide parts of images."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def draw_masks(
    size: tuple[int, int], *, side: int, ratio: float, generators: Sequence[torch.Generator], device: torch.device
) -> Tensor:
    """Draw which squares of a grid are masked, each by itself.

    Source: Hoyer et al., MIC, CVPR 2023, arXiv:2212.01322. Where the side does not divide the image's the grid is cut off at the
    right and at the bottom; the authors' code stretches it.

    Args:
        size: H and W.
        side: of the squares, pixels.
        ratio: probability that a square is masked, in [0, 1].
        generators: of each image, on the CPU; B of them.
        device: of the result.

    Returns:
        bool [B, H, W]: what is masked.
    """
    height, width = size
    rows, columns = math.ceil(height / side), math.ceil(width / side)
    drawn = torch.stack([torch.rand(rows, columns, generator=generator) < ratio for generator in generators])
    grid = drawn.to(device, non_blocking=True)
    return grid.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, :height, :width]
