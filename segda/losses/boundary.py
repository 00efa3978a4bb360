"""Losses of networks that learn where classes meet; the boundaries come from the labels.

A labelled pixel is on a boundary if the pixels near it have two classes, and on none if all of them have its own. Where some are
void and the others have its own class, nobody knows, and it is left out as void pixels themselves are: where void begins, or an
image that was padded ends, is no boundary.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from segda.losses.additive import Loss, mean
from segda.types import IGNORE_INDEX, Boundary

# Coefficients of PIDNet's published training.
_BALANCED_WEIGHT = 20.0
_PROBABLE = 0.8


def boundary_loss(
    boundary: Boundary, logits: Tensor, label: Tensor, weight: Tensor | None, *, rule: Callable[[Tensor, Tensor], Loss]
) -> Loss:
    """Return what a network with a boundary output learns by beside its class scores.

    - `detail`: `detail_loss` of the boundary.
    - `balanced`: 20 * `balanced_loss` of the boundary + the loss of the class scores once more, over those pixels alone that the
      network itself takes for boundary with a probability above 0.8.

    Args:
        boundary: scores and rule.
        logits: class scores of the main output, float [B, C, H, W].
        label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.
        weight: of each pixel, float [B, H, W] or of a shape that is broadcast to it; None: all pixels weigh the same.
        rule: the loss of class scores, (logits, label) -> `Loss`.
    """
    if boundary.rule == "detail":
        return detail_loss(boundary.logits, label, weight)
    probable = boundary.logits.detach().squeeze(1).float().sigmoid() > _PROBABLE
    of_boundary = _BALANCED_WEIGHT * balanced_loss(boundary.logits, label, weight)
    return of_boundary + rule(logits, label.masked_fill(~probable, IGNORE_INDEX))


def detail_loss(scores: Tensor, label: Tensor, weight: Tensor | None = None) -> Loss:
    """Return binary cross-entropy plus one minus the Dice coefficient of each image, against `detail_target`.

    D = (2 * sum(p * g) + 1) / (sum(p) + sum(g) + 1) over the pixels of an image that are known.

    Source: Fan et al., Rethinking BiSeNet for Real-time Semantic Segmentation, CVPR 2021, section 3.3, with the published
    implementation's mean over images.

    Args:
        scores: float [B, 1, H, W].
        label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.
        weight: of each pixel, float [B, H, W] or of a shape that is broadcast to it: a factor on its cross-entropy that is no part
            of the count, and on its part in the sums of Dice.

    Returns:
        A loss >= 0; zero, with a graph behind it, where nothing is known.
    """
    target, known = detail_target(label)
    with torch.autocast(scores.device.type, enabled=False):
        counted, entropy = _weighed(scores, target, known, weight)
        cross_entropy = mean(entropy.sum(), known.sum())
        probs = scores.squeeze(1).float().sigmoid() * counted
        overlap = (probs * target).sum((1, 2))
        score = (2 * overlap + 1) / (probs.sum((1, 2)) + (target * counted).sum((1, 2)) + 1)
        # An image of which nothing is known has the score 1.
        return cross_entropy + mean((1 - score).sum(), known.any(2).any(1).sum())


def balanced_loss(scores: Tensor, label: Tensor, weight: Tensor | None = None) -> Loss:
    """Return binary cross-entropy in which boundary and the rest weigh alike: pixels of each by the other's share.

    L = (n_rest * sum over boundary + n_boundary * sum over the rest) / (n_boundary + n_rest)^2

    The boundary is a band of four pixels, two on either side of where labels change. Source: Xu et al., PIDNet, CVPR 2023, eq. 5.
    The published implementation finds edges with Canny's detector on the map of train ids, one pixel wide, and widens them to four;
    it zeroes a margin of the image, where its edges would be artefacts, and takes the borders of void for edges.

    Args:
        scores: float [B, 1, H, W].
        label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.
        weight: factor on each pixel's cross-entropy, float [B, H, W] or of a shape that is broadcast to it; no part of the count.

    Returns:
        A loss >= 0; zero, with a graph behind it, where there is no boundary, or nothing else.
    """
    target, known = boundary_of(label, reach=2)
    with torch.autocast(scores.device.type, enabled=False):
        _, entropy = _weighed(scores, target, known, weight)
        sums = [(entropy * target).sum(), (entropy * ~target).sum(), target.sum(), (known & ~target).sum()]
    return Loss(torch.stack([value.double() for value in sums]), _balance)


def _balance(sums: Tensor) -> Tensor:
    on_boundary, elsewhere, boundary, rest = sums
    count = boundary + rest
    balanced: Tensor = (rest * on_boundary + boundary * elsewhere) / torch.where(count > 0, count, 1.0).square()
    return balanced


def _weighed(scores: Tensor, target: Tensor, known: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return how much each pixel counts, and its cross-entropy times that: float [B, H, W], 0 where nothing is known."""
    counted = known.float() if weight is None else known * weight
    entropy = F.binary_cross_entropy_with_logits(scores.squeeze(1).float(), target.float(), reduction="none")
    return counted, entropy * counted


@torch.no_grad()
def boundary_of(label: Tensor, *, reach: int) -> tuple[Tensor, Tensor]:
    """Find where classes meet.

    Args:
        label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.
        reach: how far a pixel sees in each of eight directions, in pixels: boundaries are bands twice as wide.

    Returns:
        Which pixels have two classes within reach, and of which pixels it is known whether they have: bool [B, H, W] both. The
        first are among the second, void pixels among neither.
    """
    labeled = label != IGNORE_INDEX
    ids = label.float()
    channels = torch.stack(
        [ids.masked_fill(~labeled, -torch.inf), (-ids).masked_fill(~labeled, -torch.inf), (~labeled).float()], dim=1
    )
    highest, negated_lowest, void = F.max_pool2d(channels, 2 * reach + 1, stride=1, padding=reach).unbind(1)
    boundary = labeled & (highest > -negated_lowest)
    return boundary, boundary | (labeled & (void == 0))


@torch.no_grad()
def detail_target(label: Tensor) -> tuple[Tensor, Tensor]:
    """Return STDC's guidance of detail: the boundary at full resolution, joined with that at half resolution.

    The published implementation takes a Laplacian of the train ids with strides 1, 2 and 4, gives what is positive at each the
    weights 0.6, 0.3 and 0.1, and keeps what has more than 0.1: so the third stride decides nothing. Deviations: there only the side
    with the larger train id counts as boundary, which depends on how classes are numbered, and so do the borders of the image,
    beyond which are zeros, and of void, which is 255. Here both sides count, as in a Laplacian of each class's mask, and borders
    do not.

    Args:
        label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.

    Returns:
        As `boundary_of`.
    """
    fine, is_known = boundary_of(label, reach=1)
    coarse, coarse_is_known = (_from_every_second(maps) for maps in (fine, is_known))
    target = (label != IGNORE_INDEX) & (fine | coarse)
    return target, target | (is_known & coarse_is_known)


def _from_every_second(maps: Tensor) -> Tensor:
    """Give each block of two by two pixels the value of its upper left one."""
    height, width = maps.shape[1:]
    return maps[:, ::2, ::2].repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :height, :width]
