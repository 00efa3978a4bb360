"""ClassMix: what a source image shows of some of its classes is pasted onto a target image.

Source: Olsson et al., ClassMix: Segmentation-Based Data Augmentation for Semi-Supervised Learning, WACV 2021, arXiv:2007.07936;
between domains: Tranheden et al., DACS, WACV 2021, arXiv:2007.08702. Deviation: void is never a class. The authors' code counts its
id like any other, draws it, and pastes pixels without a label over pixels that have a pseudo-label.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from segda.types import IGNORE_INDEX


def draw_pasted(label: Tensor, *, num_classes: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Draw half of the classes of each label and return where they are.

    Of n classes that an image shows, ceil(n / 2) are drawn, all equally likely; no pixel of a label that is all void.

    Args:
        label: of the source, train ids int64 [B, H, W]; `IGNORE_INDEX` is void and never drawn.
        num_classes: number of train ids, C.
        generators: of each image, on the CPU; B of them.

    Returns:
        bool [B, H, W] on the label's device: the pixels to paste.
    """
    draws = torch.stack([torch.rand(num_classes, generator=generator) for generator in generators])
    # Void becomes one more class, which is left out below. All this stays on the device: a list of the classes that an image shows
    # would make the host wait for it.
    index = torch.where(label == IGNORE_INDEX, num_classes, label).flatten(1)
    shown = torch.zeros(len(label), num_classes + 1, dtype=torch.bool, device=label.device).scatter_(1, index, True)
    shown = shown[:, :num_classes]
    # Absent classes come last in the order, so the first ceil(n / 2) are all present.
    rank = draws.to(label.device, non_blocking=True).masked_fill(~shown, 2.0).argsort(1).argsort(1)
    drawn = rank < (shown.sum(1, keepdim=True) + 1) // 2
    with_void = torch.cat([drawn, drawn.new_zeros(len(drawn), 1)], dim=1)
    return with_void.gather(1, index).view_as(label)


def paste(pasted: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Return the target with some pixels of the source on it: of images, labels or weights, with the same mask for all.

    Args:
        pasted: where the source is taken from, bool [B, H, W].
        source: [B, H, W], or [B, K, H, W] such as images.
        target: of the same shape and type.

    Returns:
        The same shape and type.
    """
    return torch.where(pasted if source.ndim == pasted.ndim else pasted.unsqueeze(1), source, target)
