"""Operations that albumentations lacks or defines otherwise, and the building of a recipe's steps."""

from fractions import Fraction
from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from segda.errors import GuestError
from segda.guests import is_dotted, load
from segda.resizing import Span, majority
from segda.transforms.pixels import look_up
from segda.transforms.recipes import Recipe, Step
from segda.types import IMAGE_MEAN

_Image = NDArray[np.uint8]


class LinearContrast(A.ImageOnlyTransform):  # type: ignore[misc] # albumentations' classes are untyped
    """Stretch or squeeze the values around 127: v -> 127 + alpha * (v - 127), as imgaug does."""

    def __init__(self, alpha: tuple[float, float]) -> None:
        """Keep the range of alpha."""
        super().__init__(p=1.0)
        self.alpha = alpha

    def get_params(self) -> dict[str, Any]:
        """Draw one alpha for the image."""
        return {"alpha": self.py_random.uniform(*self.alpha)}

    def apply(self, img: _Image, alpha: float, **params: Any) -> _Image:
        """Look every value of uint8 [H, W, 3] up."""
        return look_up(img, 127 + alpha * (np.arange(256) - 127))


class Multiply(A.ImageOnlyTransform):  # type: ignore[misc] # albumentations' classes are untyped
    """Multiply all values by a random factor, per image or per channel, as imgaug does."""

    def __init__(self, factor: tuple[float, float], per_channel: float) -> None:
        """Keep the range of the factor and the probability of one factor per channel."""
        super().__init__(p=1.0)
        self.factor = factor
        self.per_channel = per_channel

    def get_params(self) -> dict[str, Any]:
        """Draw one factor, or three."""
        count = 3 if self.py_random.random() < self.per_channel else 1
        return {"factors": [self.py_random.uniform(*self.factor) for _ in range(count)]}

    def apply(self, img: _Image, factors: list[float], **params: Any) -> _Image:
        """Look every value of uint8 [H, W, 3] up in its channel's table."""
        values = np.arange(256)[:, None] * np.broadcast_to(factors, 3)
        return look_up(img, values)


class AddGaussianNoise(A.ImageOnlyTransform):  # type: ignore[misc] # albumentations' classes are untyped
    """Add Gaussian noise of random strength, one draw per pixel or per pixel and channel, as imgaug does."""

    def __init__(self, std: tuple[float, float], per_channel: float) -> None:
        """Keep the range of the standard deviation, gray levels, and the probability of noise that differs by channel."""
        super().__init__(p=1.0)
        self.std = std
        self.per_channel = per_channel

    def get_params(self) -> dict[str, Any]:
        """Draw the strength, whether channels differ, and the noise's own seed."""
        return {
            "std": self.py_random.uniform(*self.std),
            "channels": 3 if self.py_random.random() < self.per_channel else 1,
            "noise_seed": self.py_random.getrandbits(64),
        }

    def apply(self, img: _Image, std: float, channels: int, noise_seed: int, **params: Any) -> _Image:
        """Add to uint8 [H, W, 3], rounding and saturating."""
        generator = np.random.Generator(np.random.SFC64(noise_seed))
        noise = generator.standard_normal((*img.shape[:2], channels), dtype=np.float32)
        noise *= np.float32(std)
        if channels == 1:
            noise = cv2.merge([noise[..., 0]] * 3)
        return np.asarray(cv2.add(img, noise, dtype=cv2.CV_8U))


class ScaleCrop(A.DualTransform):  # type: ignore[misc] # albumentations' classes are untyped
    """Scale by one of several factors and cut or pad to the output size, in one resampling.

    What lies outside of the input gets the ImageNet mean color, which is zero after normalization, and a void label.
    """

    def __init__(self, scales: tuple[float, ...], height: int, width: int) -> None:
        """Keep the factors and the output size in pixels."""
        super().__init__(p=1.0)
        self.scales = scales
        self.height = height
        self.width = width

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the factor and the window's place: inside of the scaled image, or around it where that is smaller."""
        scale = self.py_random.choice(self.scales)
        # Rounded down, so that every pixel of the scaled image lies wholly on the input.
        rows, columns = (int(size * scale) for size in params["shape"][:2])
        top, left = (
            self.py_random.randint(min(0, excess), max(0, excess))
            for excess in (rows - self.height, columns - self.width)
        )
        # Where nothing is padded, bilinear sampling half a pixel beyond the edge must not mix the fill in.
        border = cv2.BORDER_CONSTANT if rows < self.height or columns < self.width else cv2.BORDER_REPLICATE
        return {"scale": scale, "top": top, "left": left, "border": border}

    def _warp(self, img: _Image, *, params: dict[str, Any], fill: Any) -> _Image:
        scale, top, left = params["scale"], params["top"], params["left"]
        # Pixel centers lie at half-integers: output (x + .5) is input (x + left + .5) / scale.
        shift = 0.5 / scale - 0.5
        matrix = np.array([[1 / scale, 0, left / scale + shift], [0, 1 / scale, top / scale + shift]])
        warped = cv2.warpAffine(
            img,
            matrix,
            (self.width, self.height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=params["border"],
            borderValue=fill,
        )
        return np.asarray(warped)

    def apply(self, img: _Image, **params: Any) -> _Image:
        """Warp uint8 [H, W, 3] bilinearly."""
        return self._warp(img, params=params, fill=tuple(round(value) for value in IMAGE_MEAN))

    def apply_to_mask(self, mask: _Image, **params: Any) -> _Image:
        """Give train ids uint8 [H, W] by area majority; a second channel is warped like an image and 0 outside of the input."""
        if mask.ndim == 3:
            ids = self.apply_to_mask(mask[..., 0], **params)
            return np.stack([ids, self._warp(mask[..., 1], params=params, fill=0)], axis=-1)
        step = 1 / Fraction(params["scale"]).limit_denominator(1000)
        return majority(mask, Span(self.height, step, params["top"]), Span(self.width, step, params["left"]))


_OWN = {own.__name__: own for own in (LinearContrast, Multiply, AddGaussianNoise, ScaleCrop)}


def build_transforms(recipe: Recipe, *, height: int, width: int, cropping: bool) -> list[A.BasicTransform]:
    """Return a recipe's transforms.

    Args:
        recipe: the steps.
        height: of the output, pixels.
        width: of the output, pixels.
        cropping: whether inputs are larger than the output.

    Returns:
        Transforms in order; a random crop comes first where the recipe has none of its own.

    Raises:
        GuestError: a transform cannot be imported or made.
    """
    transforms: list[A.BasicTransform] = []
    if cropping and all(step.transform != "ScaleCrop" for step in recipe.steps):
        transforms.append(A.RandomCrop(height=height, width=width, p=1.0))
    for step in recipe.steps:
        arguments = dict(step.arguments)
        if step.transform == "ScaleCrop":
            arguments |= {"height": height, "width": width}
        if step.transform == "D4" and height != width:
            # Quarter turns would swap the sides. Both flips, drawn independently, also give the half turn.
            transforms += [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]
        elif step.transform in _OWN:
            transforms.append(_OWN[step.transform](**arguments))
        else:
            transforms.append(_made(step, {"p": 1.0} | arguments))
    return transforms


def _made(step: Step, arguments: dict[str, Any]) -> A.BasicTransform:
    """Make a transform of albumentations or of a guest."""
    shown = f"transform {step.transform!r} of an augmentation recipe"
    name = step.transform if is_dotted(step.transform) else f"albumentations:{step.transform}"
    kind = load(name, shown=shown)
    if not (isinstance(kind, type) and issubclass(kind, A.BasicTransform)):
        raise GuestError(f"{shown} must be a subclass of albumentations.BasicTransform, is {kind!r}")
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise GuestError(f"{shown} does not take its arguments {arguments}: {' '.join(str(error).split())}") from error
