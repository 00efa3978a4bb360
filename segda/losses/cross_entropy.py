"""Cross-entropy over the pixels that have a label."""

import torch
import torch.nn.functional as F
from torch import Tensor

from segda.distributed import global_sum
from segda.types import IGNORE_INDEX


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Return the mean cross-entropy over the pixels that are not void, in nats; over those of all ranks, see `segda.distributed`.

    Args:
        logits: class scores, float [B, C, H, W].
        label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.

    Returns:
        Scalar float32 >= 0. Zero, with a graph behind it, when every pixel is void: PyTorch's own mean would be NaN.
    """
    with torch.autocast(logits.device.type, enabled=False):
        total = F.cross_entropy(logits.float(), label, ignore_index=IGNORE_INDEX, reduction="sum")
        return global_sum(total) / global_sum((label != IGNORE_INDEX).sum()).clamp(min=1)
