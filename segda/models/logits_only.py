"""The deployment view of a network: what is profiled, exported and shipped."""

import copy
from typing import cast

from torch import Tensor, nn

from segda.types import SegmentationOutput


def training_only_names(segmenter: nn.Module) -> tuple[str, ...]:
    """Return the names of the submodules that the network declares to need for training alone.

    Args:
        segmenter: any module; one without a `training_only` attribute declares nothing.

    Returns:
        Names of direct submodules.
    """
    return tuple(getattr(segmenter, "training_only", ()))


def inference_segmenter(segmenter: nn.Module) -> nn.Module:
    """Copy a network without the parts that only training needs.

    Args:
        segmenter: left as it is.

    Returns:
        A copy in evaluation mode that lacks the parameters of `training_only` parts; it still returns
        `SegmentationOutput`.
    """
    view = copy.deepcopy(segmenter).eval()
    for name in training_only_names(view):
        delattr(view, name)
    return view


class LogitsOnly(nn.Module):
    """A network that maps an image to one tensor, as exporters and profilers want it."""

    def __init__(self, segmenter: nn.Module) -> None:
        """Copy the network without its auxiliary heads.

        Args:
            segmenter: returns `SegmentationOutput`; left as it is.
        """
        super().__init__()
        self.segmenter = inference_segmenter(segmenter)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Segment images.

        Args:
            image: normalized, float [B, 3, H, W].

        Returns:
            Logits, float [B, num_classes, H, W].
        """
        return cast(SegmentationOutput, self.segmenter(image)).logits
