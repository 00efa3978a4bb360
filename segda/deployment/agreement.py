"""Whether what was shipped says the same of images as the network that it was made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segda.deployment.program import Accepts
from segda.deployment.runtime import Run
from segda.errors import ExportError

# Share of pixels with the same class that an artefact must reach, in the mean over images. Rounding in another order decides one
# pixel in some million; of a network with flat margins bfloat16 changed .3 % of the pixels, and int8 2 %.
USUAL_BAR = {"fp32": 0.9999, "fp16": 0.995, "int8": 0.97}


@dataclass(frozen=True)
class Agreement:
    """In how many pixels two class maps are the same, at one size of images.

    Attributes:
        mean: share of pixels in [0, 1], over all images.
        worst: share of the image where it is smallest.
        worst_image: which one that is.
        images: how many images were compared.
        size: their height and width in pixels.
    """

    mean: float
    worst: float
    worst_image: str
    images: int
    size: tuple[int, int]

    def __str__(self) -> str:
        height, width = self.size
        return (
            f"{self.mean:.4%} of the pixels of {self.images} images of {height}x{width} "
            f"(worst image: {self.worst_image}, {self.worst:.4%})"
        )


def compare(
    shipped: Run,
    network: Run,
    *,
    images: Sequence[Tensor],
    names: Sequence[str],
    accepts: Accepts,
    progress: Callable[[int], None] | None = None,
) -> Agreement:
    """Compare what two say of the same images.

    Args:
        shipped: the one.
        network: the other.
        images: of one size, uint8 [3, H, W] each.
        names: of the images.
        accepts: how many images the first takes at once.
        progress: called with the number of images that are done.

    Raises:
        ValueError: there is no image.
    """
    if not images:
        raise ValueError("agreement needs at least one image, got none")
    shares: list[float] = []
    for batch in accepts.batches(images):
        same = shipped(batch).cpu() == network(batch).cpu()
        shares += same.float().mean((1, 2), dtype=torch.float64).tolist()
        del shares[len(images) :]  # what a last batch was filled up with
        if progress is not None:
            progress(len(shares))
    worst = min(range(len(shares)), key=lambda index: shares[index])
    height, width = images[0].shape[1:]
    return Agreement(sum(shares) / len(shares), shares[worst], names[worst], len(shares), (height, width))


def require(agreement: Agreement, bar: float, *, of: str) -> None:
    """Refuse what says something else than its network.

    Args:
        agreement: what was seen.
        bar: share of pixels that must be the same, in the mean over images.
        of: what was compared, for the message.

    Raises:
        ExportError: says what was seen.
    """
    if not agreement.mean >= bar:
        raise ExportError(
            f"{of} says the same as the network in {agreement}, expected at least {bar:.4%}; nothing was written"
        )
