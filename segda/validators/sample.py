"""The pixels that validators look at: few enough to keep, and the same for every network."""

import numpy as np
import torch
from torch import Tensor

MAX_IMAGES = 512
PIXELS_PER_IMAGE = 256
_SEED = 20210823


class PixelSample:
    """Class probabilities of fixed pixels of a split, gathered batch by batch.

    Evenly spaced images, up to 512, and 256 pixels of each, drawn without replacement by a fixed seed: at most 131,072 pixels, 10
    MB with 19 classes. The same images at the same size give the same pixels, whatever the network, batch size or device.
    """

    def __init__(self, num_images: int) -> None:
        """Begin a pass over a split.

        Args:
            num_images: images of the split, at least one.
        """
        self._wanted = set(np.linspace(0, num_images - 1, min(num_images, MAX_IMAGES)).round().astype(int).tolist())
        self._seen = 0
        self._probs: list[Tensor] = []

    def add(self, logits: Tensor) -> None:
        """Take the next images in.

        Args:
            logits: class scores before the softmax, float [B, C, H, W] on any device.
        """
        picked = [index for index in range(len(logits)) if self._seen + index in self._wanted]
        if picked:
            batch, _, height, width = len(picked), *logits.shape[1:]
            chosen = np.stack([self._pixels(self._seen + index, height * width) for index in picked])
            places = torch.from_numpy(chosen).to(logits.device)
            images = torch.tensor(picked, device=logits.device)[:, None].expand(batch, places.shape[1])
            scores = logits[images, :, places // width, places % width]  # [B, P, C]
            self._probs.append(torch.softmax(scores.float(), dim=-1).cpu())
        self._seen += len(logits)

    @staticmethod
    def _pixels(image: int, size: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.random.default_rng((_SEED, image)).choice(size, min(size, PIXELS_PER_IMAGE), replace=False)

    @property
    def probs(self) -> Tensor:
        """Class probabilities, float32 [N, P, C] on the CPU.

        Raises:
            ValueError: no image was added.
        """
        if not self._probs:
            raise ValueError("a sample of pixels needs at least one image, got none")
        return torch.cat(self._probs)
