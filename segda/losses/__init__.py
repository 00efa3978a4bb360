"""Losses on logits, and the supervised loss over a network's main and auxiliary outputs."""

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from segda.catalog import Catalog
from segda.config_problems import validated
from segda.losses.additive import Loss, mean, total
from segda.losses.base import LossConfig, SupervisedLoss, supervised_loss
from segda.losses.boundary import boundary_loss
from segda.losses.cross_entropy import CrossEntropy
from segda.losses.dice import CrossEntropyDice, Dice, PublishedDice
from segda.losses.focal import Focal
from segda.losses.ohem import Ohem
from segda.types import SegmentationOutput

__all__ = ["LOSSES", "USUAL_LOSS", "Loss", "LossConfig", "SegmentationLoss", "SupervisedLoss", "mean", "total"]

LOSSES: Catalog[type[SupervisedLoss]] = Catalog(
    "loss",
    group="segda.losses",
    built_in={
        "cross_entropy": CrossEntropy,
        "dice": Dice,
        "dice_published": PublishedDice,
        "cross_entropy_dice": CrossEntropyDice,
        "focal": Focal,
        "ohem": Ohem,
    },
    check=supervised_loss,
)

# What a configuration that names no loss means.
USUAL_LOSS = "cross_entropy"


class SegmentationLoss(nn.Module):
    """Supervised loss: main output plus `auxiliary_weight` times the sum over auxiliary outputs, plus that of a boundary.

    Source: eq. 4 of the BiSeNet adaptation report, L = l(main) + alpha * sum_i l(auxiliary_i), alpha = 1 there. Of a network that
    learns where classes meet, `boundary_weight` times `boundary_loss` is added.

    It is a module without parameters, so that the weights of classes go to the device with the method that holds it. They are no
    part of what is saved: whoever goes on with a training makes them again from the same labels.

    Attributes:
        settings: of the loss.
        auxiliary_weight: alpha; zero skips the auxiliary outputs.
        boundary_weight: of the boundary's loss; zero skips it.
        class_weight: of each class, float32 [C]; None: all alike.
    """

    class_weight: Tensor | None

    def __init__(self, name: str, *, class_weight: ArrayLike | None = None, **settings: Any) -> None:
        """Choose the loss.

        Args:
            name: key of `LOSSES`.
            class_weight: of each class, [C]; None: all alike.
            settings: of the loss's `Config`; what is left out has its default.

        Raises:
            ConfigError: the name is unknown or a setting does not fit.
        """
        super().__init__()
        self._rule = LOSSES[name]
        self.settings = validated(self._rule.Config, {"name": name, **settings}, where="loss")
        self.auxiliary_weight = self.settings.auxiliary_weight
        self.boundary_weight = self.settings.boundary_weight
        weights = None if class_weight is None else torch.tensor(class_weight, dtype=torch.float32)
        self.register_buffer("class_weight", weights, persistent=False)

    def forward(self, output: SegmentationOutput, label: Tensor, weight: Tensor | None = None) -> Loss:
        """Return the loss of one batch.

        Args:
            output: a segmenter's output; logits float [B, C, H, W] each.
            label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.
            weight: of each pixel, float [B, H, W] or of a shape that is broadcast to it; None: all pixels weigh the same.
        """

        def rule(logits: Tensor, label: Tensor) -> Loss:
            return self._rule.loss(logits, label, weight=weight, class_weight=self.class_weight, settings=self.settings)

        return self.over_outputs(output, label, weight, rule=rule)

    def over_outputs(
        self,
        output: SegmentationOutput,
        label: Tensor,
        weight: Tensor | None = None,
        *,
        rule: Callable[[Tensor, Tensor], Loss],
    ) -> Loss:
        """Return the loss of all outputs by a rule of one's own for class scores.

        Args:
            output: a segmenter's output; logits float [B, C, H, W] each.
            label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.
            weight: of each pixel in the boundary's loss, as in `forward`.
            rule: (logits, label) -> `Loss`.
        """
        loss = rule(output.logits, label)
        if self.auxiliary_weight > 0:
            for logits in output.auxiliary:
                loss = loss + self.auxiliary_weight * rule(logits, label)
        if output.boundary is not None and self.boundary_weight > 0:
            of_boundary = boundary_loss(output.boundary, output.logits, label, weight, rule=rule)
            loss = loss + self.boundary_weight * of_boundary
        return loss
