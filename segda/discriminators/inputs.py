"""What discriminators are shown of a segmentation: a map per class, in single precision, softmaxed once and at full size."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def probabilities(logits: Tensor) -> Tensor:
    """Return the softmax over classes, float [B, C, H, W] like the logits."""
    with torch.autocast(logits.device.type, enabled=False):
        return logits.float().softmax(dim=1)


def self_information(logits: Tensor, *, scaled: bool = False) -> Tensor:
    """Return how much each class adds to the entropy of each pixel.

    I_c = -p_c log2 p_c / log2 C

    Source: AdvEnt (Vu et al., CVPR 2019, arXiv:1811.12833). The sum over classes is the normalized entropy, in [0, 1]. A single I_c
    is at most 1 / (e ln C), at p_c = 1 / e: 0.125 for 19 classes, 0.189 for 7. So a discriminator sees numbers five to eight times
    smaller than probabilities. Their code adds 1e-30 to p_c; here the logarithm is that of the
    softmax itself, which is finite where p_c is rounded to zero, and so is its derivative.

    Args:
        logits: class scores at the image's size, float [B, C, H, W].
        scaled: multiply by e ln C, so that each I_c fills [0, 1].

    Returns:
        Float [B, C, H, W], >= 0.
    """
    with torch.autocast(logits.device.type, enabled=False):
        log_probs = F.log_softmax(logits.float(), dim=1)
        nats = -log_probs.exp() * log_probs
        return nats * (math.e if scaled else 1 / math.log(logits.shape[1]))
