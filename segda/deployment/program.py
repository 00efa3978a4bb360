"""From a network to a program of `torch.export`, which knows nothing of Python any more: what all files are made of."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from segda.config_problems import shortened
from segda.deployment.shipped import ShippedNetwork
from segda.device_errors import is_out_of_memory
from segda.errors import ConfigError, ExportError
from segda.types import SMALLEST_SIDE

if TYPE_CHECKING:
    from torch.export import ExportedProgram

INPUT, OUTPUT = "image", "classes"
AXES = {0: "batch", 2: "height", 3: "width"}


@dataclass(frozen=True)
class Accepts:
    """Which images something takes: uint8 [batch, 3, height, width].

    Attributes:
        batch: how many at once; None: any number.
        size: their height and width in pixels; None: any from 32 x 32.
    """

    batch: int | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Refuse what no network takes."""
        if self.batch is not None and self.batch < 1:
            raise ConfigError(f"expected a batch of at least 1 image, got {self.batch}")
        if self.size is not None and min(self.size) < SMALLEST_SIDE:
            height, width = self.size
            raise ConfigError(f"expected sides of {SMALLEST_SIDE} pixels or more, got {height}x{width}")

    def check(self, image: torch.Tensor) -> None:
        """Refuse images that are not taken.

        Args:
            image: what came.

        Raises:
            ConfigError: one line with what is expected and what came.
        """
        came = tuple(image.shape)
        fits = image.dtype == torch.uint8 and len(came) == 4 and came[0] >= 1 and came[1] == 3
        if fits:
            fits = (self.batch in (None, came[0])) and (
                min(came[2:]) >= SMALLEST_SIDE if self.size is None else came[2:] == self.size
            )
        if not fits:
            raise ConfigError(f"expected {self}, got {str(image.dtype).removeprefix('torch.')} {list(came)}")

    def batches(self, images: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Yield images as they are taken: as many at once as must be; where any number may be, the first alone and others by two.

        Args:
            images: uint8 [3, H, W] each, of one size.

        Yields:
            uint8 [B, 3, H, W]; the last one is filled up with the first images.
        """
        if self.batch is None and len(images):
            yield images[0][None]
        count = self.batch or 2
        for start in range(0 if self.batch else 1, len(images), count):
            yield torch.stack([images[index % len(images)] for index in range(start, start + count)])

    def __str__(self) -> str:
        batch = "B" if self.batch is None else str(self.batch)
        size = "H, W" if self.size is None else "{}, {}".format(*self.size)
        more = f" with sides of {SMALLEST_SIDE} pixels or more" if self.size is None else ""
        return f"images uint8 [{batch}, 3, {size}]{more}"


def capture(network: ShippedNetwork, accepts: Accepts, *, example: tuple[int, int] = (96, 160)) -> "ExportedProgram":
    """Follow a network through one image, and keep what it did as a program.

    Left alone, `torch.export` takes a map that has more than one pixel for the example's image to have more than one for all, and
    the program refuses others: those of DDRNet and PIDNet, whose pyramids go down to a 512th, refused images of up to 512 pixels.
    So it is told to be oblivious of sizes of one, as PyTorch's own exporter to ONNX does. Products with weights ask for such sizes
    too, unless the weights could be trained; so they could, meanwhile.

    Args:
        network: what to follow; left as it is in the end.
        accepts: which images the program is for.
        example: height and width of the image to follow, where they are not given by `accepts`.

    Returns:
        The program, of an `image` uint8 [B, 3, H, W].

    Raises:
        ExportError: the network decides by what it sees, or by sizes that are to be open; or what it does cannot be followed.
    """
    from torch.export import Dim, export  # takes half a second to import
    from torch.fx.experimental import _config as symbolic_shapes_config

    image = torch.zeros(accepts.batch or 2, 3, *(accepts.size or example), dtype=torch.uint8)
    image = image.to(network.offset.device)
    open_axes = ([0] if accepts.batch is None else []) + ([2, 3] if accepts.size is None else [])
    shapes = {INPUT: dict.fromkeys(open_axes, Dim.DYNAMIC)}
    network.requires_grad_(True)
    try:
        with (
            quiet(),
            torch.enable_grad(),
            symbolic_shapes_config.patch(backed_size_oblivious=True),  # type: ignore[attr-defined]
        ):
            return export(network, (image,), dynamic_shapes=shapes, strict=False)
    except ExportError:
        raise
    except Exception as error:  # a network may be code of somebody else, and those who follow it raise nearly anything
        if is_out_of_memory(error):
            raise
        raise ExportError(
            f"{type(network.segmenter).__name__} cannot be captured for {accepts}: {first_line(error)}; "
            + ("give a fixed size and batch" if open_axes else "it can be used as a checkpoint only")
        ) from error
    finally:
        network.requires_grad_(False)


def first_line(error: Exception) -> str:
    """Return what an error says, in one line that is not too long."""
    text = " ".join(str(error).split("\n\n")[0].split())
    return shortened(f"{type(error).__name__}: {text}" if text else type(error).__name__, longest=300)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what exporters say of themselves from users: what matters of it is checked afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # some of it comes from the root of all loggers
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
