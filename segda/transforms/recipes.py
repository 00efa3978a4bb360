"""Augmentation recipes as data: a name, what it is for, and its steps in order.

This file knows no image library, so listing the recipes is cheap; `segda.transforms.augmentation` builds them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segda.catalog import Catalog, instance_of


@dataclass(frozen=True)
class Step:
    """One random operation.

    Attributes:
        text: what it does, for people.
        transform: name of a class of `segda.transforms.operations` or else of albumentations, or the dotted name of another one.
        arguments: keyword arguments of that class.
        pads: whether it may leave pixels that show nothing of the image; labels are void there.
    """

    text: str
    transform: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    pads: bool = False


@dataclass(frozen=True)
class Recipe:
    """A sequence of random operations on an image and its label.

    Attributes:
        purpose: one line on what it is for or where it comes from.
        steps: the operations in order.
    """

    purpose: str
    steps: tuple[Step, ...] = ()

    @property
    def pads(self) -> bool:
        """Whether some pixels may show nothing of the image."""
        return any(step.pads for step in self.steps)

    def description(self) -> str:
        """Return the purpose and every step with its numbers on one line."""
        return f"{self.purpose}: {', '.join(step.text for step in self.steps) or 'nothing'}"


def _blur(low: float, high: float) -> Step:
    # Kernel size 0 lets the kernel follow sigma, 3.5 sigma to each side: images get the blur that is named. A sigma of exactly 0
    # would divide by zero; below 0.28 px the kernel is one pixel wide, so the raised lower end changes no image.
    arguments = {"sigma_limit": (max(low, 1e-3), high), "blur_limit": 0}
    return Step(f"Gaussian blur sigma [{low:g}, {high:g}] px", "GaussianBlur", arguments)


_FLIP = Step("horizontal flip p=0.5", "HorizontalFlip", {"p": 0.5})
_PIXEL = (
    Step("linear contrast [0.75, 1.5]", "LinearContrast", {"alpha": (0.75, 1.5)}),
    Step(
        "Gaussian noise of standard deviation [0, 0.05*255], per channel p=0.5",
        "AddGaussianNoise",
        {"std": (0.0, 0.05 * 255), "per_channel": 0.5},
    ),
    Step("brightness x [0.8, 1.2], per channel p=0.5", "Multiply", {"factor": (0.8, 1.2), "per_channel": 0.5}),
)
_COLOR = Step(
    "color jitter of brightness, contrast and saturation x [0.75, 1.25], hue +-0.05 turns, p=0.8",
    "ColorJitter",
    {
        "brightness": (0.75, 1.25),
        "contrast": (0.75, 1.25),
        "saturation": (0.75, 1.25),
        "hue": (-0.05, 0.05),
        "p": 0.8,
    },
)
_D4 = Step("the eight symmetries of the square (four where height and width differ)", "D4")
_SCALE_CROP = Step(
    "scale by one of 0.5, 1, 1.25, 1.5, 1.75, 2, then crop, padded with the mean color and void",
    "ScaleCrop",
    {"scales": (0.5, 1.0, 1.25, 1.5, 1.75, 2.0)},
    pads=True,
)

# aug1 to aug5 are the rows of table III of the BiSeNet adaptation report (`none` is its base row), numbers as printed.
# It names imgaug's operations; theirs is the meaning here: contrast, noise and brightness are applied to every image,
# and the 0.5 behind the ranges is the probability of drawing once per channel instead of once per image. Blur alone differs: here
# sigma is what images get. imgaug cuts its kernel off at about 1.65 sigma, so that what it calls a blur of 1, 1.5, 2 and 3 px has a
# standard deviation of 0.96, 1.20, 1.65 and 2.22 px: whoever wants the report's images needs a recipe with these.
RECIPES: Catalog[Recipe] = Catalog(
    "augmentation recipe",
    group="segda.recipes",
    built_in={
        "none": Recipe("no augmentation, the report's base row"),
        "aug1": Recipe("report's row 1", (_FLIP,)),
        "aug2": Recipe("report's row 2", (_FLIP, _blur(0, 3))),
        "aug3": Recipe("report's row 3, its best", (_FLIP, _blur(1, 2))),
        "aug4": Recipe("report's row 4, photometric only", (_blur(0, 3), *_PIXEL)),
        "aug5": Recipe("report's row 5", (_FLIP, _blur(1, 2), *_PIXEL)),
        "nadir": Recipe("views from above, where no direction is up", (_D4,)),
        "color": Recipe("light and camera of other domains", (_COLOR,)),
        "nadir_color": Recipe("views from above under other light", (_D4, _COLOR)),
        "scale_crop": Recipe("objects at other distances", (_SCALE_CROP, _FLIP)),
        "scale_crop_color": Recipe("objects at other distances under other light", (_SCALE_CROP, _FLIP, _COLOR)),
        "aug3_scale_crop": Recipe("report's best row on rescaled images", (_SCALE_CROP, _FLIP, _blur(1, 2))),
    },
    check=instance_of(Recipe),
)
