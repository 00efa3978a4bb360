"""Dice losses: overlap of predicted probabilities and label."""

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from segda.losses.additive import Loss, mean
from segda.losses.base import LossConfig, SupervisedLoss
from segda.losses.cross_entropy import cross_entropy
from segda.losses.pixels import weight_of_label
from segda.tunable import Range
from segda.types import IGNORE_INDEX


def _void(label: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (weight of each pixel, 0 if void, [B, 1, H, W]; label with void set to class 0, int64 [B, 1, H, W]) for gathering."""
    valid = (label != IGNORE_INDEX).unsqueeze(1)
    index = label.unsqueeze(1).masked_fill(~valid, 0)
    return valid if weight is None else valid * weight.expand_as(label).unsqueeze(1), index


def dice(logits: Tensor, label: Tensor, weight: Tensor | None = None, *, class_weight: Tensor | None = None) -> Loss:
    """Return one minus the soft Dice coefficient, averaged over the classes that the label holds.

    D_c = 2 * sum(p_c * g_c) / (sum(p_c) + sum(g_c)) over all pixels of the batch that are not void; void pixels count
    neither in p nor in g. A class that no label pixel has is left out of the mean: it would add a constant, and a perfect
    prediction would not reach zero. Its probability is pushed down all the same: other classes lack what it takes.

    Args:
        logits: class scores, float [B, C, H, W].
        label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.
        weight: of each pixel in all sums, float [B, H, W] or of a shape that is broadcast to it.
        class_weight: of each class in the mean over classes, float [C]; None: the plain mean.

    Returns:
        A loss in [0, 1]: 0 for a perfect prediction and, with a graph behind it, when every pixel is void.
    """
    with torch.autocast(logits.device.type, enabled=False):
        valid, index = _void(label, weight)
        probs = logits.float().softmax(dim=1)
        at_label = (probs.gather(1, index) * valid).flatten()
        flat = index.flatten()
        # These sums grow one pixel at a time: in float32, past a million, 0.3 would be rounded to 0.25 before each addition.
        zeros = probs.new_zeros(probs.shape[1], dtype=torch.float64)
        overlap = zeros.index_add(0, flat, at_label.double())
        count = zeros.index_add(0, flat, valid.flatten().double())
        predicted = (probs * valid).sum(dim=(0, 2, 3)).double()

    def mean_over_classes(sums: Tensor) -> Tensor:
        overlap, count, predicted = sums.chunk(3)
        present = count > 0
        score = 2 * overlap / torch.where(present, predicted + count, 1.0)
        counted = present.double() if class_weight is None else present * class_weight.double()
        whole = counted.sum()
        return ((1 - score) * counted).sum() / torch.where(whole > 0, whole, 1.0)

    return Loss(torch.cat([overlap, count, predicted]), mean_over_classes)


def dice_published(
    logits: Tensor, label: Tensor, weight: Tensor | None = None, *, class_weight: Tensor | None = None
) -> Loss:
    """Return the Dice loss of the seed report's eq. 3 taken literally: 1 - 2 * sum(p * g) / sum(p + g).

    Its sums run over pixels and classes together. Probabilities and one-hot labels each sum to one per pixel, so the
    denominator is twice the number of pixels, and the loss is one minus the mean probability of the true class. It is
    linear in the probabilities and blind to classes: each weighs as much as it has pixels. Use `dice` for balance.

    Args:
        logits: class scores, float [B, C, H, W].
        label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void and left out of all sums.
        weight: of each pixel in all sums, float [B, H, W] or of a shape that is broadcast to it.
        class_weight: of each class's pixels in all sums, float [C]; None: all alike.

    Returns:
        A mean in [0, 1]: 1 - 1/C for a uniform prediction, 0 for a perfect one and when every pixel is void.
    """
    with torch.autocast(logits.device.type, enabled=False):
        if class_weight is not None:
            of_class = weight_of_label(label, class_weight)
            weight = of_class if weight is None else of_class * weight
        valid, index = _void(label, weight)
        probs = logits.float().softmax(dim=1)
        missing = (1 - probs.gather(1, index)) * valid
        return mean(missing.sum(), valid.sum())


class DiceConfig(LossConfig):
    """Settings of `Dice`; it has none of its own."""

    name: str = "dice"


class Dice(SupervisedLoss):
    """One minus the mean of the classes' soft Dice coefficients."""

    Config: ClassVar[type[LossConfig]] = DiceConfig

    @staticmethod
    def loss(
        logits: Tensor, label: Tensor, *, weight: Tensor | None, class_weight: Tensor | None, settings: Any
    ) -> Loss:
        """Return `dice`; see `SupervisedLoss.loss`."""
        return dice(logits, label, weight, class_weight=class_weight)


class PublishedDiceConfig(LossConfig):
    """Settings of `PublishedDice`; it has none of its own."""

    name: str = "dice_published"


class PublishedDice(SupervisedLoss):
    """One minus the mean probability of the labelled class."""

    Config: ClassVar[type[LossConfig]] = PublishedDiceConfig

    @staticmethod
    def loss(
        logits: Tensor, label: Tensor, *, weight: Tensor | None, class_weight: Tensor | None, settings: Any
    ) -> Loss:
        """Return `dice_published`; see `SupervisedLoss.loss`."""
        return dice_published(logits, label, weight, class_weight=class_weight)


class CrossEntropyDiceConfig(LossConfig):
    """Settings of `CrossEntropyDice`."""

    name: str = "cross_entropy_dice"
    lambda_dice: Annotated[float, Range(0.1, 10.0, log=True)] = Field(
        1.0, ge=0, description="weight of the Dice loss beside cross-entropy"
    )


class CrossEntropyDice(SupervisedLoss):
    """Cross-entropy + lambda_dice * Dice: the first has gradients where a class is missed altogether, the second is balanced."""

    Config: ClassVar[type[LossConfig]] = CrossEntropyDiceConfig

    @staticmethod
    def loss(
        logits: Tensor, label: Tensor, *, weight: Tensor | None, class_weight: Tensor | None, settings: Any
    ) -> Loss:
        """Return the sum of both; see `SupervisedLoss.loss`."""
        lambda_dice: float = settings.lambda_dice
        overlap = dice(logits, label, weight, class_weight=class_weight)
        return cross_entropy(logits, label, weight, class_weight=class_weight) + lambda_dice * overlap
