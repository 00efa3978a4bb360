"""The contract of supervised losses: a formula of sums over the pixels of a batch, with settings of its own."""

import inspect
from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from segda.losses.additive import Loss
from segda.losses.class_weights import CLASS_WEIGHTINGS, ClassWeighting
from segda.settings import Settings
from segda.tunable import Choice, Range


class LossConfig(Settings):
    """Settings of the supervised loss; each loss extends them and gives `name` its own default."""

    name: str
    auxiliary_weight: Annotated[float, Range(0.1, 1.0)] = Field(
        1.0, ge=0, description="weight alpha of the auxiliary heads (seed report, eq. 4); 0: they are not trained"
    )
    boundary_weight: Annotated[float, Range(0.1, 10.0, log=True)] = Field(
        1.0,
        ge=0,
        description="factor on what a network that learns where classes meet (stdc, pidnet_s) adds by its paper; others have "
        "no such output; 0: it is not trained",
    )
    class_weights: Annotated[ClassWeighting, Choice(*CLASS_WEIGHTINGS)] = Field(
        "none",
        description="how much more pixels of rare classes count, by their share of the source's training labels; of the target's "
        "for a method that is trained on those",
    )


class SupervisedLoss(ABC):
    """How far logits are from a label.

    Attributes:
        Config: its settings.
    """

    Config: ClassVar[type[LossConfig]]

    @staticmethod
    @abstractmethod
    def loss(
        logits: Tensor, label: Tensor, *, weight: Tensor | None, class_weight: Tensor | None, settings: Any
    ) -> Loss:
        """Return the loss of one output.

        Args:
            logits: class scores, float [B, C, H, W].
            label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.
            weight: of each pixel, such as the confidence of a pseudo-label: float [B, H, W] or of a shape that is broadcast to it.
                None: all pixels weigh the same.
            class_weight: of each class, float [C] on the logits' device; a mean divides by the sum of these weights. None: all
                classes weigh the same.
            settings: an instance of `Config`.

        Returns:
            Sums and a formula; zero, finite and with a graph where every pixel is void.
        """


class FunctionConfig(LossConfig):
    """Settings of a loss that is a plain function (logits, label, weight of each pixel or None) -> `Loss`."""

    class_weights: Literal["none"] = Field(
        "none",
        description="a plain function knows no weights of classes; a subclass of segda.losses.SupervisedLoss does",
    )


def supervised_loss(found: Any) -> type[SupervisedLoss]:
    """Return a guest as a class of losses: it is one, or a plain function (logits, label, weight) -> `Loss`.

    Raises:
        TypeError: it is neither; says what it is.
    """
    if isinstance(found, type):
        if not issubclass(found, SupervisedLoss):
            raise TypeError(
                f"must be a function or a subclass of segda.losses.SupervisedLoss, is the class {found.__name__}"
            )
        if inspect.isabstract(found) or not issubclass(getattr(found, "Config", object), LossConfig):
            raise TypeError("must define loss and Config, a subclass of segda.losses.LossConfig")
        return found
    if not callable(found):
        raise TypeError(f"must be a function or a subclass of segda.losses.SupervisedLoss, is a {type(found).__name__}")

    class Function(SupervisedLoss):
        Config: ClassVar[type[LossConfig]] = FunctionConfig

        @staticmethod
        def loss(
            logits: Tensor, label: Tensor, *, weight: Tensor | None, class_weight: Tensor | None, settings: Any
        ) -> Loss:
            result: Loss = found(logits, label, weight)
            return result

    return Function
