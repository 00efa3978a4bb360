"""Parts that several networks share."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from segda.depthwise import Conv2d


class ConvBNReLU(nn.Sequential):
    """Convolution without bias, batch normalization, ReLU.

    The normalization's shift does what a bias of the convolution would do.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int = 3, stride: int = 1, groups: int = 1
    ) -> None:
        """Build the three layers; the padding keeps the size at stride 1.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            kernel_size: side of the square kernel, odd.
            stride: step of the kernel in pixels.
            groups: parts of the channels that do not see each other; as many as inputs: a depthwise convolution.
        """
        super().__init__(
            Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class BNReLUConv(nn.Sequential):
    """Batch normalization, ReLU, convolution: the order of networks that normalize what enters a layer."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int = 1, groups: int = 1, bias: bool = False
    ) -> None:
        """Build the three layers; the padding keeps the size.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            kernel_size: side of the square kernel, odd.
            groups: parts of the channels that do not see each other.
            bias: whether the convolution has one.
        """
        super().__init__(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups, bias=bias),
        )


def no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which operations compute in the types that they are given."""
    # The meta device, on which shapes are tried, knows no autocast.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def pool(features: Tensor) -> Tensor:
    """Average maps over all positions, in at least single precision: the result is for `in_full_precision`.

    Args:
        features: float [B, C, h, w].

    Returns:
        float32 (or float64, if the features are) [B, C, 1, 1].
    """
    precise = torch.float32 if features.dtype.itemsize < 4 else features.dtype
    return features.mean((2, 3), keepdim=True, dtype=precise)


def in_full_precision(module: nn.Module, pooled: Tensor) -> Tensor:
    """Run a module on pooled maps in the precision of its weights.

    Batch normalization of pooled maps sees few values per channel, two for two images, and divides their difference by itself: what
    rounding to bfloat16 has done to it becomes as large as the gradient. Maps of one pixel cost nothing in single precision.

    Args:
        module: e.g. a 1x1 convolution and a normalization.
        pooled: float [B, C, h, w] with few pixels.

    Returns:
        What the module returns, in the type of its weights: float32 in training.
    """
    weight = next(module.parameters())
    with no_autocast(pooled.device):
        result: Tensor = module(pooled.to(weight.dtype))
    return result


def resize(features: Tensor, *, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Resize maps bilinearly to an explicit size.

    Explicit sizes make every input size work; fixed factors only fit multiples of the network's stride.

    Args:
        features: float [B, C, h, w].
        size: height and width of the result.
        align_corners: whether the centers of corner pixels fall together, instead of the corners of the maps.

    Returns:
        Float [B, C, *size]; the argument itself if it has that size already.
    """
    # An exported program is for all sizes: it must not depend on whether two of the example's happen to be equal.
    if not torch.compiler.is_compiling() and features.shape[-2:] == size:
        return features
    return functional.interpolate(features, size=size, mode="bilinear", align_corners=align_corners)


def resize_nearest(features: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Repeat pixels up to an explicit size.

    Args:
        features: float [B, C, h, w].
        size: height and width of the result.

    Returns:
        Float [B, C, *size].
    """
    return functional.interpolate(features, size=size, mode="nearest")


def enlarge_scores(scores: Tensor, *, sizes: Sequence[tuple[int, int]], align_corners: bool = False) -> Tensor:
    """Resize class scores bilinearly from size to size, in at least single precision.

    Losses want that precision anyway, and converting few pixels is cheaper than many. In training on a CPU the whole chain is
    two small matrix products, one over rows and one over columns: the same sums as `resize`, but the gradient of PyTorch's
    interpolation runs over single pixels there and takes more than twice as long.

    Args:
        scores: float [B, C, h, w].
        sizes: heights and widths to go through; the last one is the result's.
        align_corners: see `resize`.

    Returns:
        float32 (or float64, if the scores are) [B, C, *sizes[-1]].
    """
    scores = scores.float() if scores.dtype.itemsize < 4 else scores
    trained = torch.is_grad_enabled() and scores.requires_grad
    # An exported or compiled program gets the plain operation; a matrix made while it is traced holds no numbers to keep.
    if scores.device.type != "cpu" or not trained or torch.compiler.is_compiling():
        for size in sizes:
            scores = resize(scores, size=size, align_corners=align_corners)
        return scores
    rows = _interpolation((scores.shape[2], *(height for height, _ in sizes)), scores.dtype, align_corners)
    columns = _interpolation((scores.shape[3], *(width for _, width in sizes)), scores.dtype, align_corners)
    with no_autocast(scores.device):
        return rows @ (scores.contiguous() @ columns.T)


@lru_cache(maxsize=64)
def _interpolation(lengths: tuple[int, ...], dtype: torch.dtype, align_corners: bool) -> Tensor:
    """Return the matrix [lengths[-1], lengths[0]] of linear interpolation through all lengths."""
    with torch.inference_mode(mode=False), torch.no_grad():
        matrix = torch.eye(lengths[0], dtype=torch.float64)
        for length in lengths[1:]:
            if len(matrix) != length:
                matrix = functional.interpolate(
                    matrix.T[None], size=length, mode="linear", align_corners=align_corners
                )[0].T
        return matrix.to(dtype).contiguous()


def initialize_kaiming(module: nn.Module, *, mode: Literal["fan_in", "fan_out"] = "fan_in") -> None:
    """Draw the weights of every convolution for ReLU (He et al., ICCV 2015) and zero its bias.

    Args:
        module: changed in place, with all that it contains; batch normalizations start as the identity.
        mode: whether the variance of what comes out or of the gradient is kept.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode=mode, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
