"""Build a recipe and apply it as a pure function of image, label and seed."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segda.errors import ConfigError
from segda.transforms.recipes import RECIPES, Recipe


class Augmentation:
    """A recipe for one output size.

    The result depends on the recipe, the image, the label and the seed alone: not on the process, the thread, or what
    was augmented before. An instance may be shared by threads and be pickled.

    Attributes:
        name: key of `RECIPES`.
        height: of the output, pixels.
        width: of the output, pixels.
    """

    def __init__(self, name: str, *, height: int, width: int) -> None:
        """Choose recipe and size.

        Args:
            name: key of `RECIPES`.
            height: of the output, pixels.
            width: of the output, pixels.

        Raises:
            ConfigError: the name is unknown or the size not positive.
        """
        RECIPES[name]  # raises what is wrong with the name
        if height < 1 or width < 1:
            raise ConfigError(f"augmentation needs a height and width of at least one pixel, got {height}x{width}")
        self.name = name
        self.height = height
        self.width = width
        # Transforms keep their random state in themselves, so each thread has its own.
        self._of_thread = threading.local()

    @property
    def recipe(self) -> Recipe:
        """The recipe's steps."""
        return RECIPES[self.name]

    def __reduce__(self) -> tuple[Callable[..., "Augmentation"], tuple[str, int, int]]:
        return _rebuild, (self.name, self.height, self.width)

    def __call__(
        self, image: NDArray[np.uint8], label: NDArray[np.uint8] | None, *, seed: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Augment one image and its label alike.

        A larger input is cropped at random. The inputs are never written to.

        Args:
            image: RGB, uint8 [H, W, 3].
            label: train ids, uint8 [H, W], 255 is void; or [H, W, 2] with what goes along as a second channel, which is 0 outside
                of the input; or None.
            seed: any integer >= 0; equal seeds give equal draws.

        Returns:
            (image uint8 [height, width, 3], label uint8 [height, width], [height, width, 2] or None), new arrays in C order.

        Raises:
            ConfigError: the input is smaller than the output, or image and label differ in size.
        """
        height, width = image.shape[:2]
        if height < self.height or width < self.width:
            raise ConfigError(
                f"augmentation to {self.height}x{self.width} (height x width) got a smaller image of {height}x{width}; "
                "make the crop smaller or decode images larger"
            )
        if label is not None and label.shape[:2] != (height, width):
            raise ConfigError(f"a label must have its image's size {height}x{width}, got {label.shape}")
        transforms = self._transforms(cropping=(height, width) != (self.height, self.width))
        # Compose.set_random_seed would give every transform the same seed: two flips would then always agree.
        seeds = np.random.SeedSequence(seed).generate_state(len(transforms), np.uint64) if transforms else ()
        data: dict[str, Any] = {"image": np.asarray(image)}
        if label is not None:
            data["mask"] = np.asarray(label)
        for transform, own_seed in zip(transforms, seeds, strict=True):
            transform.set_random_seed(int(own_seed))
            data = transform(**data)
        # No transform may hand out a view of the input: it may be a read-only memory map or be augmented again.
        result = _owned(data["image"], image)
        return result, None if label is None else _owned(data["mask"], label)

    def _transforms(self, *, cropping: bool) -> list[Any]:
        name = "cropping" if cropping else "whole"
        transforms: list[Any] | None = getattr(self._of_thread, name, None)
        if transforms is None:
            # Imported on first use: it takes more than a second, and naming recipes does not need it.
            from segda.transforms.operations import build_transforms

            transforms = build_transforms(self.recipe, height=self.height, width=self.width, cropping=cropping)
            setattr(self._of_thread, name, transforms)
        return transforms


def _owned(result: NDArray[np.uint8], original: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the result as a C-ordered array that shares no memory with the original."""
    contiguous = np.ascontiguousarray(result)
    return contiguous.copy() if np.may_share_memory(contiguous, original) else contiguous


def _rebuild(name: str, height: int, width: int) -> Augmentation:
    return Augmentation(name, height=height, width=width)


def build_recipe(name: str, *, height: int, width: int) -> Augmentation:
    """Return a recipe ready to be applied.

    Args:
        name: key of `RECIPES`.
        height: of the output, pixels.
        width: of the output, pixels.

    Returns:
        The augmentation; its output is exactly height x width.

    Raises:
        ConfigError: the name is unknown or the size not positive.
    """
    return Augmentation(name, height=height, width=width)
