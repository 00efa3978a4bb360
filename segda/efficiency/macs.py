"""Number of multiply-accumulates."""

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from segda.models.logits_only import inference_segmenter
from segda.types import SegmentationOutput

with warnings.catch_warnings():
    # fvcore compiles a loss with torch.jit.script when imported; newer PyTorch warns about that.
    warnings.simplefilter("ignore", DeprecationWarning)
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import get_shape


class _SingleOutput(nn.Module):
    """Tracing wants tensors; a segmenter returns a tuple."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: Tensor) -> Tensor:
        output = self.module(image)
        return output.logits if isinstance(output, SegmentationOutput) else output


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    """Count fused attention as the two matrix products that it is made of."""
    shapes: list[list[int]] = [get_shape(tensor) for tensor in inputs[:3]]
    query, key, value = shapes
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def count_macs(module: nn.Module, *, input_shape: tuple[int, int, int, int]) -> int:
    """Count the multiply-accumulates of one evaluation forward pass with fvcore.

    One multiply-add is one (papers that say "FLOPs" often mean this number, sometimes twice it). fvcore counts
    convolutions, matrix products, attention, normalizations, bilinear interpolation (4 per output value) and adaptive
    pooling. Element-wise operations, activations, means and max pooling count nothing; in a convolutional network they
    are below 2 %. The auxiliary heads are not run in evaluation mode and so not counted.

    Args:
        module: left as it is; anything that maps one image tensor to a tensor or to `SegmentationOutput`.
        input_shape: (B, C, H, W). The forward pass really runs once, on the CPU in single precision.

    Returns:
        Multiply-accumulates of the whole batch.
    """
    shipped = _SingleOutput(inference_segmenter(module).to(device="cpu", dtype=torch.float32)).eval()
    with warnings.catch_warnings(), torch.no_grad():
        # Tracing freezes Python branches on shapes, which is what a count at one shape wants.
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(shipped, torch.zeros(input_shape))
        analysis.set_op_handle("aten::scaled_dot_product_attention", _attention)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        return int(analysis.total())
