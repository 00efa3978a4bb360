"""How far predictions are from those of another network: a loss without a label."""

import torch
from torch import Tensor

from segda.losses.additive import Loss, mean


def distillation(logits: Tensor, teacher_logits: Tensor, *, temperature: float, where: Tensor | None = None) -> Loss:
    """Return the mean over pixels of T^2 * sum_c q_c (ln q_c - ln p_c), q = softmax(teacher / T), p = softmax(logits / T).

    The divergence of the student's probabilities from the teacher's, both softened. Its gradient falls with 1 / T^2, and the factor
    keeps it as large as that of a cross-entropy, so that a change of temperature is not one of the weight as well.

    Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, arXiv:1503.02531. There it is the cross-entropy
    with q, which differs by a constant; this is 0 where both agree.

    Args:
        logits: of the student, float [B, C, H, W].
        teacher_logits: the same shape, without a graph.
        temperature: T, > 0.
        where: which pixels count, bool [B, H, W]; None: all.

    Returns:
        A mean >= 0, in nats; zero, with a graph behind it, where no pixel counts.
    """
    with torch.autocast(logits.device.type, enabled=False):
        wanted = (teacher_logits.float() / temperature).log_softmax(dim=1)
        found = (logits.float() / temperature).log_softmax(dim=1)
        pixels = temperature**2 * (wanted.exp() * (wanted - found)).sum(dim=1)
    if where is None:
        return mean(pixels.sum(), pixels.numel())
    return mean((pixels * where).sum(), where.sum())
