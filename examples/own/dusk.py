"""An augmentation recipe of one's own: daylight images that look as if the sun had set."""

import albumentations
import numpy as np
from numpy.typing import NDArray

from segda.transforms import Recipe, Step


class Lamps(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """Light a few round spots, as street lamps do.

    A transform of one's own extends albumentations', and draws from `self.py_random` or `self.random_generator` alone.
    """

    def __init__(self, most: int = 4, p: float = 0.5) -> None:
        """Say how many.

        Args:
            most: largest number of spots, at least 1.
            p: probability that there are any.
        """
        super().__init__(p=p)
        self.most = most

    def apply(self, img: NDArray[np.uint8], **_: object) -> NDArray[np.uint8]:
        """Add light to an image uint8 [H, W, 3]."""
        height, width = img.shape[:2]
        rows, columns = np.mgrid[:height, :width]
        light = np.zeros((height, width), np.float32)
        for _spot in range(self.py_random.randint(1, self.most)):
            row, column = self.py_random.uniform(0, height), self.py_random.uniform(0, width)
            radius = self.py_random.uniform(0.05, 0.15) * min(height, width)
            light += np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * radius**2))
        color = np.array([90, 80, 40], np.float32)
        lit: NDArray[np.uint8] = np.clip(img + light[..., None] * color, 0, 255).astype(np.uint8)
        return lit


DUSK = Recipe(
    "the light of dusk",
    (
        Step("horizontal flip p=0.5", "HorizontalFlip", {"p": 0.5}),
        Step("gamma x [1, 2]", "RandomGamma", {"gamma_limit": (100, 200)}),
        Step(
            "less red, more blue",
            "RGBShift",
            {"r_shift_limit": (-30, 0), "g_shift_limit": (-10, 0), "b_shift_limit": (0, 20)},
        ),
        Step("up to four lamps p=0.5", "dusk:Lamps", {"most": 4, "p": 0.5}),
    ),
)
