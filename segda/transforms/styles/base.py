"""The contract of style steps: a source image gets the look of a target image, without learning and without labels."""

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from segda.settings import Settings
from segda.tunable import Range
from segda.types import Pixels


class StyleConfig(Settings):
    """Settings of a style step; each step extends them and gives `name` its own default."""

    name: str


class TransferConfig(StyleConfig):
    """Settings of a style step that changes images."""

    probability: Annotated[float, Range(0.25, 1.0)] = Field(
        1.0, gt=0, le=1, description="share of the source images that are changed; the others keep their own look"
    )


class Style(ABC):
    """A way of giving an image the look of another one. No pixel moves, so labels stay as they are.

    The result depends on the settings, the two images and the draws alone. Instances are sent to loader processes.

    Attributes:
        Config: its settings, a subclass of `TransferConfig`.
        config: an instance of it.
    """

    Config: ClassVar[type[StyleConfig]]

    def __init__(self, config: Any) -> None:
        """Keep the settings.

        Args:
            config: an instance of `Config`.
        """
        self.config = config

    @abstractmethod
    def __call__(self, source: Pixels, target: Pixels, *, rng: np.random.Generator) -> Pixels:
        """Return the source image with the look of the target image; neither is written to.

        Args:
            source: RGB, uint8 [H, W, 3].
            target: its partner, of the same size.
            rng: where random draws come from.

        Returns:
            uint8 [H, W, 3].
        """


class NoStyle(Style):
    """Leaves source images as they are."""

    class Config(StyleConfig):
        """Settings of `NoStyle`; it has none of its own."""

        name: str = "none"

    def __call__(self, source: Pixels, target: Pixels, *, rng: np.random.Generator) -> Pixels:
        """Return the source image."""
        return source
