"""How a network learns what the layers of a teacher compute, beside or instead of what the teacher predicts."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from segda.losses import Loss
from segda.types import SegmentationOutput


class Seen(NamedTuple):
    """What a network under training computed of a batch of images, with a graph.

    Attributes:
        output: what it returned.
        inner: what its submodules returned that are `watched`, in that order.
    """

    output: SegmentationOutput
    inner: tuple[Tensor, ...] = ()


class FeatureAlignment(nn.Module, ABC):
    """Compares features of a network under training with those of a frozen teacher.

    For that it may have layers of its own, e.g. convolutions from one number of channels to the other. They are trained, saved and
    resumed beside the network, at the learning rate of its heads, and are no part of it: whoever evaluates, counts, slims or ships
    the network does not know of them. A network names its alignment in `Segmenter.feature_alignment`.

    Attributes:
        watched: names of the network's submodules whose outputs are compared; each returns one tensor.
    """

    watched: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def __init__(self, student: Any, teacher: Any) -> None:
        """Build the layers; both networks are looked at and not kept.

        Args:
            student: the network under training.
            teacher: a segmenter that knows the same classes.

        Raises:
            ConfigError: features of such a teacher cannot be compared with the network's; one line.
        """
        super().__init__()

    @abstractmethod
    def forward(
        self, teacher: Any, image: Tensor, seen: Seen, *, temperature: float, where: Tensor | None = None
    ) -> Loss:
        """Return how far the features are apart.

        Args:
            teacher: frozen, in evaluation mode.
            image: normalized, float [B, 3, H, W].
            seen: what the network computed of it.
            temperature: what is compared as probabilities is divided by it before, > 0.
            where: which pixels count, bool [B, H, W]; None: all.
        """
