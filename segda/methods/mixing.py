"""ClassMix and CutMix: what a source image shows of some of its classes, or in a box, is pasted onto a target image.

Source of ClassMix: Olsson et al., ClassMix: Segmentation-Based Data Augmentation for Semi-Supervised Learning, WACV 2021,
arXiv:2007.07936; between domains: Tranheden et al., DACS, WACV 2021, arXiv:2007.08702. Deviation: void is never a class. The
authors' code counts its id like any other, draws it, and pastes pixels without a label over pixels that have a pseudo-label.

Source of CutMix: French et al., Semi-supervised semantic segmentation needs strong, varied perturbations, BMVC 2020,
arXiv:1906.01916, which pastes between unlabelled images; here the box comes from a source image, as the classes of DACS do.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from segda.types import IGNORE_INDEX

_BOX_SHARE = 0.5  # of the image's area


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


def draw_box(size: tuple[int, int], *, generators: Sequence[torch.Generator], device: torch.device) -> Tensor:
    """Draw a box for each image that covers half of it.

    Its height is H * 0.5 ** u with u ~ U(0, 1), so that the logarithm of the aspect ratio is uniform; its width is what makes its
    area half of the image's, up to half a column; its place is uniform inside of the image.

    Args:
        size: H and W.
        generators: of each image, on the CPU; B of them.
        device: of the result.

    Returns:
        bool [B, H, W]: the pixels to paste.
    """
    height, width = size
    rows, columns = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    boxes = []
    for generator in generators:
        exponent, down, right = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        tall = max(1, round(height * _BOX_SHARE**exponent))
        wide = max(1, min(width, round(_BOX_SHARE * height * width / tall)))
        top, left = int(down * (height - tall + 1)), int(right * (width - wide + 1))
        boxes.append((rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide))
    return torch.stack(boxes)


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
