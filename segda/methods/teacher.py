"""An averaged teacher: a copy of a segmenter whose weights are a moving average of those under training.

The teacher is meant for evaluation mode, so its batch normalization uses running statistics, and these need a rule as much as the
weights do. Averaging the parameters alone, the commonest error, leaves them at their initial values: the teacher then normalizes
by statistics that fit none of its weights. Here they are averaged like the weights, and integers (how many batches were seen) are
copied.

A method that holds a teacher keeps it in evaluation mode, because `nn.Module.train` reaches all submodules:

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.teacher.eval()
        return self
"""

import copy

import torch
from torch import Tensor, nn

from segda.losses import Loss, mean
from segda.types import IGNORE_INDEX, PseudoLabel, UnlabeledBatch


def make_teacher(segmenter: nn.Module) -> nn.Module:
    """Return a frozen copy of a segmenter, in evaluation mode.

    Args:
        segmenter: stays as it is.

    Returns:
        A module of the same class whose parameters have `requires_grad` off, so that they belong to no parameter group.
    """
    return copy.deepcopy(segmenter).requires_grad_(False).eval()


@torch.no_grad()
def copy_weights(teacher: nn.Module, segmenter: nn.Module) -> None:
    """Make a teacher equal to the segmenter, statistics of batch normalization included.

    Args:
        teacher: of `make_teacher`; changed in place.
        segmenter: stays as it is.
    """
    for kept, new in zip(_tensors(teacher), _tensors(segmenter), strict=True):
        kept.copy_(new)


@torch.no_grad()
def move_teacher(teacher: nn.Module, segmenter: nn.Module, *, moves: Tensor, alpha: float) -> None:
    """Move a teacher towards the segmenter.

    teacher = alpha_t * teacher + (1 - alpha_t) * segmenter with alpha_t = min(1 - 1 / (t + 1), alpha), for parameters and for
    floating-point buffers alike; other buffers are copied. The first move is therefore a copy, and the next ones are the plain mean
    of all segmenters so far until alpha is reached: a teacher does not remember the random weights that training began with.

    Source: Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv:1703.01780; the warm-up as in their
    code and that of DACS.

    Args:
        teacher: of `make_teacher`; changed in place.
        segmenter: after an update of its weights.
        moves: t, how often the teacher was moved before; integer scalar on the device of the weights, so that no step waits for
            the host. Counting is the caller's.
        alpha: share of the teacher that stays, in [0, 1).
    """
    share = (1 / (moves.double() + 1)).clamp(min=1 - alpha)  # 1 - alpha_t
    for kept, new in zip(_tensors(teacher), _tensors(segmenter), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, share.to(kept.dtype))
        else:
            kept.copy_(new)


@torch.no_grad()
def label_with(teacher: nn.Module, target: UnlabeledBatch) -> PseudoLabel:
    """Return what a teacher says of target images.

    Args:
        teacher: in evaluation mode.
        target: images float [B, 3, H, W].

    Returns:
        The most probable classes, `IGNORE_INDEX` where an image was padded, and their probabilities as weights, float32 [B, H, W].
    """
    confidence, label = teacher(target.image, auxiliary=False).logits.float().softmax(1).max(1)
    return PseudoLabel(label if target.valid is None else label.masked_fill(~target.valid, IGNORE_INDEX), confidence)


def confident_share(pseudo_label: PseudoLabel, tau: float) -> Loss:
    """Return the share of labelled pixels whose probability is at least tau: of a batch, however it is cut; zero without any.

    Args:
        pseudo_label: of `label_with`.
        tau: probability.
    """
    assert pseudo_label.weight is not None
    labeled = pseudo_label.label != IGNORE_INDEX
    return mean((labeled & (pseudo_label.weight >= tau)).sum(), labeled.sum())


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
