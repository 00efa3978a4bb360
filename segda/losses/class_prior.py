"""A guard of losses without labels: no class may vanish from the predictions on the target that the source shows."""

import torch
from torch import Tensor

from segda.losses.additive import Loss
from segda.types import IGNORE_INDEX


def class_prior(logits: Tensor, label: Tensor, where: Tensor | None = None, *, share: float) -> Loss:
    """Return what classes lack in predictions of a share of their frequency in labels.

    L = sum_c max(0, share * f_c - mean over pixels of p_c)

    f_c is the share of class c among the labelled pixels of the batch. Only what is missing counts: domains differ in how frequent
    classes are, and a class may be as frequent on the target as it likes as long as it leaves that much to the others.

    Source: Vu et al., ADVENT, CVPR 2019, arXiv:1811.12833, "incorporating class-ratio priors". There f_c is counted over the whole
    source and p_c averaged over one image, the batch of its trainings. Here both are of the batch, so that nothing has to be known
    beforehand and classes that few images show are not asked of every single one.

    Args:
        logits: class scores on target images, float [B, C, H, W].
        label: of source images, train ids int64 [B', H', W']; `IGNORE_INDEX` is void.
        where: which pixels of the target images count, bool [B, H, W]; None: all.
        share: mu, in [0, 1]: how much of its frequency each class is owed.

    Returns:
        A loss in [0, share]; zero, with a graph behind it, without a label or a pixel that counts.
    """
    num_classes = logits.shape[1]
    with torch.autocast(logits.device.type, enabled=False):
        probs = logits.float().softmax(dim=1)
        predicted = (probs if where is None else probs * where.unsqueeze(1)).sum(dim=(0, 2, 3)).double()
    # Void becomes one more class, which is left out: nothing here waits for the device.
    index = label.flatten().masked_fill(label.flatten() == IGNORE_INDEX, num_classes)
    counts = predicted.new_zeros(num_classes + 1).index_add(0, index, torch.ones_like(index, dtype=torch.float64))

    def lacking(sums: Tensor) -> Tensor:
        counts, predicted = sums.chunk(2)
        labels, pixels = counts.sum(), predicted.sum()
        owed = share * counts / torch.where(labels > 0, labels, 1.0)
        has = predicted / torch.where(pixels > 0, pixels, 1.0)
        return ((owed - has).clamp(min=0) * (pixels > 0)).sum()

    return Loss(torch.cat([counts[:num_classes], predicted]), lacking)
