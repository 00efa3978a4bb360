"""Losses on logits, and the supervised loss over a network's main and auxiliary outputs."""

from collections.abc import Callable

from torch import Tensor

from segda.catalog import Catalog, function
from segda.errors import ConfigError
from segda.losses.cross_entropy import cross_entropy
from segda.losses.dice import dice, dice_published
from segda.types import SegmentationOutput

LOSSES: Catalog[Callable[[Tensor, Tensor], Tensor]] = Catalog(
    "loss",
    group="segda.losses",
    built_in={
        "cross_entropy": cross_entropy,
        "dice": dice,
        "dice_published": dice_published,
    },
    check=function,
)


class SegmentationLoss:
    """Supervised loss: main output plus `auxiliary_weight` times the sum over auxiliary outputs.

    Source: eq. 4 of the BiSeNet adaptation report, L = l(main) + alpha * sum_i l(auxiliary_i), alpha = 1 there.

    Attributes:
        name: key of `LOSSES`.
        auxiliary_weight: alpha; zero skips the auxiliary outputs.
        share: factor on the next loss, a scalar tensor, where a batch arrives in pieces whose losses are averaged: the labelled
            pixels of the piece over the mean of all pieces. A mean over pixels is then the batch's own; Dice is weighted like it.
    """

    share: Tensor | None = None

    def __init__(self, name: str, *, auxiliary_weight: float = 1.0) -> None:
        """Choose the loss.

        Args:
            name: key of `LOSSES`.
            auxiliary_weight: alpha >= 0.

        Raises:
            ConfigError: the name is unknown or the weight negative.
        """
        self._loss = LOSSES[name]
        if not auxiliary_weight >= 0:
            raise ConfigError(
                f"auxiliary_weight must be >= 0, got {auxiliary_weight}; use 0 to train the main output only"
            )
        self.name = name
        self.auxiliary_weight = auxiliary_weight

    def __call__(self, output: SegmentationOutput, label: Tensor) -> Tensor:
        """Return the loss of one batch.

        Args:
            output: a segmenter's output; logits float [B, C, H, W] each.
            label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.

        Returns:
            Scalar float32.
        """
        total = self._loss(output.logits, label)
        if self.auxiliary_weight > 0:
            for logits in output.auxiliary:
                total = total + self.auxiliary_weight * self._loss(logits, label)
        return total if self.share is None else self.share * total
