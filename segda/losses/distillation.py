"""How far predictions or features are from those of another network: losses without a label."""

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


def channel_divergence(
    features: Tensor, teacher_features: Tensor, *, temperature: float, where: Tensor | None = None
) -> Loss:
    """Return the mean over images and channels of T^2 * sum_x q_x (ln q_x - ln p_x), p and q softmaxes over positions.

    p = softmax(features / T), q = softmax(teacher_features / T), each over all positions x of one channel. So it is compared where
    a channel is large; what is added to a whole channel changes nothing.

    Source: Shu et al., Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021, arXiv:2011.13256.

    Args:
        features: of the student, float [B, C, h, w].
        teacher_features: the same shape, without a graph.
        temperature: T, > 0.
        where: which positions count, bool [B, h, w]; None: all. An image without any is left out of the mean.

    Returns:
        A mean >= 0, in nats; zero, with a graph behind it, where no position counts.
    """
    with torch.autocast(features.device.type, enabled=False):
        wanted, found = (_over_positions(maps, temperature, where) for maps in (teacher_features, features))
        channels = temperature**2 * (wanted.exp() * (wanted - found)).sum(dim=2)
    if where is None:
        return mean(channels.sum(), channels.numel())
    counted = where.flatten(1).any(1)
    return mean((channels * counted.unsqueeze(1)).sum(), counted.sum() * channels.shape[1])


def _over_positions(maps: Tensor, temperature: float, where: Tensor | None) -> Tensor:
    """Return the logarithms of the softmax over those positions that count, float32 [B, C, h * w]."""
    logits = maps.float().flatten(2) / temperature
    if where is not None:
        # Not infinite: where no position counts, all of them are alike and no difference of infinities arises.
        logits = logits.masked_fill(~where.flatten(1).unsqueeze(1), torch.finfo(logits.dtype).min / 2)
    return logits.log_softmax(dim=2)
