"""Domain discriminators: which domain does this segmentation come from?

Every one maps class probabilities float [B, C, H, W], or other maps of as many channels, to domain logits
float [B, 1, H // stride, W // stride] (each halving rounds down) through layers with LeakyReLU(0.2) between them;
`multi_class_light` has C logits in the place of one. They differ in how many layers there are and in how the layers' kernels are
factorized, and so in parameters and multiply-accumulates. Counts below are for 19 classes, 512 x 1024; `sees` is the side in
pixels of the neighborhood that one output judges.

| name | kernels | stride | sees | parameters | G MACs |
| --- | --- | --- | --- | --- | --- |
| fcd | dense (Tsai et al., CVPR 2018) | 32 | 94 | 2,781,121 | 15.44 |
| tfd | Tucker, at rank 0.5 / 0.1 | 32 | 94 | 1,389,603 / 278,846 | 8.54 / 1.87 |
| cp | canonical polyadic, at rank 0.5 / 0.1 | 32 | 94 | 1,391,090 / 279,162 | 14.95 / 2.99 |
| dwd | depthwise, then pointwise | 32 | 94 | 191,364 | 1.07 |
| multi_class_light | as dwd, one layer less | 16 | 46 | 55,446 | 0.81 |
| light_light | as dwd, two layers less | 8 | 22 | 13,316 | 0.52 |
| pixel | dense, without strides | 1 | 5 | 84,993 | 44.5 |
"""

from typing import Any

from segda.catalog import Catalog, subclass_of
from segda.discriminators.base import Discriminator
from segda.discriminators.cp import CP
from segda.discriminators.dwd import DWD
from segda.discriminators.fcd import FCD
from segda.discriminators.light_light import LightLight
from segda.discriminators.multi_class_light import MultiClassLight
from segda.discriminators.pixel import Pixel
from segda.discriminators.tfd import TFD

DISCRIMINATORS: Catalog[type[Discriminator]] = Catalog(
    "discriminator",
    group="segda.discriminators",
    built_in={
        "fcd": FCD,
        "tfd": TFD,
        "dwd": DWD,
        "cp": CP,
        "multi_class_light": MultiClassLight,
        "light_light": LightLight,
        "pixel": Pixel,
    },
    check=subclass_of(Discriminator),
)


def build_discriminator(name: str, *, num_classes: int, rank: float = 0.5, dropout: float = 0.0) -> Discriminator:
    """Build a discriminator with random weights.

    Args:
        name: key of `DISCRIMINATORS`.
        num_classes: channels of the input.
        rank: fraction of the dense parameters, in (0, 1]; only read by those with `has_rank`.
        dropout: probability that an element of what comes out of an activation is zero in training, in [0, 1).

    Returns:
        A module that maps class maps float [B, num_classes, H, W] to domain logits; see `Discriminator.forward`.

    Raises:
        ConfigError: unknown name, fewer than two classes, a rank outside of (0, 1] or a probability outside of [0, 1).
    """
    kind = DISCRIMINATORS[name]
    # A guest may have a constructor of its own that takes no more than it needs.
    options: dict[str, Any] = ({"rank": rank} if kind.has_rank else {}) | ({"dropout": dropout} if dropout else {})
    return kind(num_classes, **options)


__all__ = [
    "CP",
    "DISCRIMINATORS",
    "DWD",
    "FCD",
    "TFD",
    "Discriminator",
    "LightLight",
    "MultiClassLight",
    "Pixel",
    "build_discriminator",
]
