"""What there is to judge a network by without a label of the target."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from segda.types import IGNORE_INDEX
from segda.validators.temperature import fitted_temperature, tempered


@dataclass(frozen=True, eq=False)
class Evidence:
    """Outputs of one network at fixed pixels of the target's training images and of the source's validation images.

    All of it is of the same weights, so whatever is fitted on the source is fitted anew for each checkpoint. Tensors are on the
    CPU.

    Attributes:
        target: class probabilities, float32 [N, P, C] for P pixels of each of N target images.
        source: class probabilities, float32 [M, Q, C] for Q pixels of each of M source images.
        source_labels: train ids of the same pixels, uint8 [M, Q], 255 is void.
        source_shares: share of each class in the labelled pixels of all source validation images, float64 [C]; they sum to 1.
        target_features: the segmenter's features averaged over each target image, float32 [N, F].
        source_features: the same of the source images, float32 [M, F].
    """

    target: Tensor
    source: Tensor
    source_labels: Tensor
    source_shares: Tensor
    target_features: Tensor
    source_features: Tensor

    @cached_property
    def labeled(self) -> tuple[Tensor, Tensor]:
        """The source pixels that are not void: probabilities, float64 [K, C], and train ids, int64 [K]."""
        known = self.source_labels != IGNORE_INDEX
        return self.source[known].double(), self.source_labels[known].long()

    @cached_property
    def temperature(self) -> float:
        """The temperature at which the network is as confident on the source as it is right there; NaN if there is none."""
        return fitted_temperature(*self.labeled)

    @property
    def pixels(self) -> Tensor:
        """Class probabilities of all target pixels, float64 [N P, C]."""
        return self.target.flatten(end_dim=-2).double()

    @cached_property
    def calibrated(self) -> Tensor:
        """Class probabilities of all target pixels at that temperature, float64 [N P, C]."""
        return tempered(self.pixels, self.temperature)

    @property
    def is_finite(self) -> bool:
        """Whether the network gives numbers on both domains, and the source has a label to compare with."""
        probs, labels = self.labeled
        return bool(self.target.isfinite().all() and probs.isfinite().all()) and len(labels) > 0
