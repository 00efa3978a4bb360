"""Random draws of a training step that are the same however the step is computed, and after every restart.

The draws of an image depend on the run's seed, the step, the image's number in the batch and what they are for, and on nothing
that was drawn before. So they need no place in a checkpoint, and neither micro-batches nor processes change them: each draws for
the images that it has.
"""

import hashlib
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Draws:
    """Random generators for the images of a batch, or of a part of it.

    Attributes:
        seed: of the run.
        step: number of updates made.
        first: number in the whole batch of the first image here.

    Example:
        >>> draws = Draws(seed=0, step=7)
        >>> draws.generator(3, "mix").initial_seed() == draws.part(2).generator(1, "mix").initial_seed()
        True
    """

    seed: int
    step: int
    first: int = 0

    def generator(self, image: int, purpose: str) -> torch.Generator:
        """Return a new generator on the CPU; asked again in the same way, it begins again.

        Args:
            image: number of the image in this batch, from 0.
            purpose: what is drawn, e.g. `mix`; draws for different purposes are independent.
        """
        text = f"{self.seed}:{self.step}:{self.first + image}:{purpose}"
        digest = hashlib.blake2b(text.encode(), digest_size=7).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big"))

    def part(self, first: int) -> "Draws":
        """Return the draws of a part of this batch that begins with its image number `first`."""
        return replace(self, first=self.first + first)
