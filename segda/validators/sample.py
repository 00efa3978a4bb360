"""The pixels that validators look at: few enough to keep, and the same for every network."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segda.types import IGNORE_INDEX, SegmentationOutput

_SEED = 20210823


class PixelSample:
    """What a segmenter says of fixed pixels of a split, gathered batch by batch.

    Evenly spaced images, and of each as many pixels, drawn without replacement by a fixed seed. The same images at the same size
    give the same pixels, whatever the network, batch size or device.

    Attributes:
        num_images: of the split.
        max_images: most that are looked at.
        pixels: of each, or all that it has.
    """

    def __init__(self, num_images: int, *, max_images: int, pixels: int) -> None:
        """Begin a pass over a split.

        Args:
            num_images: images of the split, at least one.
            max_images: most to look at.
            pixels: of each.
        """
        self.num_images = num_images
        self.max_images = max_images
        self.pixels = pixels
        self._wanted = set(np.linspace(0, num_images - 1, min(num_images, max_images)).round().astype(int).tolist())
        self._seen = 0
        self._probs: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._features: list[Tensor] = []

    def add(self, output: SegmentationOutput, label: Tensor | None = None) -> None:
        """Take the next images in.

        Args:
            output: what a segmenter returned; logits float [B, C, H, W], on any device.
            label: train ids, any integer type [B, H, W], 255 is void; None where there are none.
        """
        logits = output.logits
        picked = [index for index in range(len(logits)) if self._seen + index in self._wanted]
        if picked:
            batch, _, height, width = len(picked), *logits.shape[1:]
            chosen = np.stack([self._places(self._seen + index, height * width) for index in picked])
            places = torch.from_numpy(chosen).to(logits.device)
            images = torch.tensor(picked, device=logits.device)[:, None].expand(batch, places.shape[1])
            scores = logits[images, :, places // width, places % width]  # [B, P, C]
            self._probs.append(torch.softmax(scores.float(), dim=-1).cpu())
            self._features.append(output.features[picked].float().mean(dim=(2, 3)).cpu())
            if label is None:
                self._labels.append(torch.full(chosen.shape, IGNORE_INDEX, dtype=torch.uint8))
            else:
                self._labels.append(label.flatten(start_dim=1).cpu()[picked].gather(1, places.cpu()).to(torch.uint8))
        self._seen += len(logits)

    def _places(self, image: int, size: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.random.default_rng((_SEED, image)).choice(size, min(size, self.pixels), replace=False)

    def identity(self, *, fingerprint: str, size: tuple[int, int], kept: int, classes: Sequence[str]) -> str:
        """Return what decides which pixels these are, and what can be said of them: 32 hexadecimal digits.

        Args:
            fingerprint: of the split's files.
            size: height and width of its images.
            kept: pixels of each image that are kept, the first ones.
            classes: names of the train ids.
        """
        parts = [_SEED, self.num_images, self.max_images, self.pixels, fingerprint, list(size), kept, list(classes)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    @property
    def probs(self) -> Tensor:
        """Class probabilities, float32 [N, P, C] on the CPU.

        Raises:
            ValueError: no image was added.
        """
        if not self._probs:
            raise ValueError("a sample of pixels needs at least one image, got none")
        return torch.cat(self._probs)

    @property
    def labels(self) -> Tensor:
        """Train ids, uint8 [N, P] on the CPU; 255 is void."""
        return torch.cat(self._labels)

    @property
    def features(self) -> Tensor:
        """Features averaged over each image, float32 [N, F] on the CPU."""
        return torch.cat(self._features)
