"""The same images as several networks see them: where these disagree, how sure each is, and which images are worst."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from segda.datasets.cache import DecodedSplit
from segda.prediction import predict_logits
from segda.trained import TrainedNetwork
from segda.types import Pixels


@dataclass(frozen=True, eq=False)
class SeenImage:
    """One image as several networks see it.

    Attributes:
        name: of the sample.
        image: RGB, uint8 [H, W, 3].
        label: train ids, uint8 [H, W], 255 is void; None if it was decoded without.
        predictions: train ids, uint8 [K, H, W], one map per network.
        confidences: probability of the predicted class in 255ths, uint8 [K, H, W].
    """

    name: str
    image: Pixels
    label: Pixels | None
    predictions: Pixels
    confidences: Pixels

    @cached_property
    def disagreement(self) -> npt.NDArray[np.float32]:
        """Share of the networks that are not of the majority, float32 [H, W]: 0 where all agree, below 1.

        Example:
            >>> maps = np.array([[[0, 1]], [[0, 1]], [[0, 2]], [[0, 3]]], dtype=np.uint8)
            >>> SeenImage("a", np.zeros((1, 2, 3), np.uint8), None, maps, maps).disagreement.tolist()
            [[0.0, 0.5]]
        """
        votes = [(self.predictions == prediction).sum(axis=0) for prediction in self.predictions]
        share: npt.NDArray[np.float32] = 1 - np.max(votes, axis=0).astype(np.float32) / np.float32(
            len(self.predictions)
        )
        return share

    @cached_property
    def mean_disagreement(self) -> float:
        """Mean of `disagreement` over the image's pixels."""
        return float(self.disagreement.mean())

    @cached_property
    def mean_confidences(self) -> tuple[float, ...]:
        """Mean probability of the predicted class of each network, in [0, 1]."""
        return tuple((self.confidences.reshape(len(self.confidences), -1).mean(axis=1) / 255).tolist())


def seen_by(networks: Sequence[Callable[[], TrainedNetwork]], split: DecodedSplit) -> list[SeenImage]:
    """Run networks over images, one network at a time in memory.

    Args:
        networks: each opens one network of the same classes. It sees images at the size that it was trained at.
        split: decoded images.

    Returns:
        The images in the order of the split.

    Raises:
        SegdaError: a network cannot be opened, or an image does not fit on its device.
    """
    shape = (len(networks), *split.images.shape[:3])
    predictions, confidences = np.empty(shape, dtype=np.uint8), np.empty(shape, dtype=np.uint8)
    for place, opened in enumerate(networks):
        network = opened()
        size = (network.config.data.height, network.config.data.width)
        for index in range(len(split)):
            logits = predict_logits(
                network.segmenter,
                split.images[index : index + 1],
                size=size,
                device=network.device,
                dtype=network.dtype,
            )
            highest = logits.softmax(dim=1).max(dim=1)
            predictions[place, index] = highest.indices[0].cpu().numpy()
            confidences[place, index] = (255 * highest.values[0]).round().cpu().numpy()
    labels = split.labels
    return [
        SeenImage(
            name,
            split.images[index],
            None if labels is None else labels[index],
            predictions[:, index],
            confidences[:, index],
        )
        for index, name in enumerate(split.names)
    ]


def worst_first(images: Sequence[SeenImage]) -> list[SeenImage]:
    """Return images by what needs no label: where networks disagree most; of equals, where the first one is least sure."""
    return sorted(images, key=lambda seen: (-seen.mean_disagreement, seen.mean_confidences[0], seen.name))
