"""An artefact in the place of a network, for whatever asks networks: prediction, evaluation, rasters."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from segda.datasets.loaders import denormalize
from segda.deployment.artefact import Artefact
from segda.files import sha256_of
from segda.models import Segmenter
from segda.types import SegmentationOutput


class ArtefactSegmenter(Segmenter):
    """A network that knows classes alone: its probability is one for the class that the artefact says, and zero for all others.

    What is resized then is a vote of the pixels around. Scores of class maps are exactly those of the artefact.

    Attributes:
        artefact: what is asked.
    """

    def __init__(self, artefact: Artefact, config: Any) -> None:
        """Keep the artefact.

        Args:
            artefact: what is asked.
            config: settings of the network that it was made of.
        """
        super().__init__(config, num_classes=len(artefact.record.classes))
        self.artefact = artefact
        self._digest = sha256_of(artefact.path)
        self.eval()

    def extra_repr(self) -> str:
        """Return which file is asked: it has no weights of its own by which two could be told apart."""
        return f"sha256={self._digest}"

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        """Segment images; see `Segmenter.forward`. There are no features but the probabilities themselves.

        Raises:
            ConfigError: the artefact takes images of another size.
        """
        # Images are bytes before they are normalized, and rounding finds these again.
        pixels = denormalize(image.float()).round().clamp(0, 255).to(torch.uint8)
        accepts = self.artefact.runtime.accepts
        maps = torch.cat([self.artefact(batch) for batch in accepts.batches(list(pixels))])[: len(pixels)]
        probs = functional.one_hot(maps.to(image.device).long(), self.num_classes).permute(0, 3, 1, 2).float()
        return SegmentationOutput(probs, (), probs)
