"""Several trained networks as one: the mean of their probabilities."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from segda.models import Segmenter
from segda.types import SegmentationOutput


class Ensemble(Segmenter):
    """Networks that segment together, in evaluation only.

    probs = 1/M * sum_m softmax(logits_m), in float32 whatever the members compute in. The logits are log(probs), whose softmax is
    probs again, so that an ensemble goes wherever a network goes. Averaging the logits would be another thing, a geometric mean, in
    which a member that excludes a class has a veto.

    Source: the multi-band transfer of Yang and Soatto, FDA: Fourier Domain Adaptation for Semantic Segmentation, CVPR 2020,
    arXiv:2004.05498, section 3.2.
    """

    def __init__(self, members: Sequence[Segmenter]) -> None:
        """Put networks together.

        Args:
            members: one or more, of the same classes; in evaluation mode from now on.
        """
        super().__init__(members[0].config, num_classes=members[0].num_classes)
        self.members = nn.ModuleList(members).eval()

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        """Segment images; see `Segmenter.forward`. The features are those of the first member."""
        outputs: list[SegmentationOutput] = [member(image, auxiliary=False) for member in self.members]
        probs = cast(Tensor, sum(output.logits.float().softmax(1) for output in outputs)) / len(outputs)
        # A class that all members exclude gets the smallest probability of float32 and not a logit of minus infinity, which would
        # be NaN once it is interpolated.
        logits = probs.clamp(min=torch.finfo(probs.dtype).tiny).log()
        return SegmentationOutput(logits, (), outputs[0].features)
