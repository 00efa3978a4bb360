"""Losses on logits, and the supervised loss over a network's main and auxiliary outputs."""

from collections.abc import Callable

from torch import Tensor

from segda.catalog import Catalog, function
from segda.errors import ConfigError
from segda.losses.additive import Loss, mean, total
from segda.losses.cross_entropy import cross_entropy
from segda.losses.dice import dice, dice_published
from segda.types import SegmentationOutput

# (logits float [B, C, H, W], label int64 [B, H, W], weight of each pixel or None) -> loss.
SupervisedLoss = Callable[[Tensor, Tensor, Tensor | None], Loss]

__all__ = ["LOSSES", "Loss", "SegmentationLoss", "SupervisedLoss", "mean", "total"]

LOSSES: Catalog[SupervisedLoss] = Catalog(
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
    """

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

    def __call__(self, output: SegmentationOutput, label: Tensor, weight: Tensor | None = None) -> Loss:
        """Return the loss of one batch.

        Args:
            output: a segmenter's output; logits float [B, C, H, W] each.
            label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.
            weight: of each pixel, float [B, H, W] or of a shape that is broadcast to it; None: all pixels weigh the same.
        """
        loss = self._loss(output.logits, label, weight)
        if self.auxiliary_weight > 0:
            for logits in output.auxiliary:
                loss = loss + self.auxiliary_weight * self._loss(logits, label, weight)
        return loss
