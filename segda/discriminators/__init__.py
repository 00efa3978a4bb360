"""Domain discriminators: which domain does this segmentation come from?

Every one maps class probabilities float [B, C, H, W] to domain logits float [B, 1, H // 32, W // 32] (each halving
rounds down) through five layers of kernel 4, stride 2, padding 1 with LeakyReLU(0.2) between them. They differ in how
the layers' kernels are factorized, and so in parameters and multiply-accumulates. Counts below are for 19 classes,
512 x 1024.

| name | kernel | parameters | G MACs |
| --- | --- | --- | --- |
| fcd | dense (Tsai et al., CVPR 2018) | 2,781,121 | 15.44 |
| tfd | Tucker, at rank 0.5 / 0.1 | 1,389,603 / 278,846 | 8.54 / 1.87 |
| cp | canonical polyadic, at rank 0.5 / 0.1 | 1,391,090 / 279,162 | 14.95 / 2.99 |
| dwd | depthwise, then pointwise | 191,364 | 1.07 |
"""

from segda.catalog import Catalog, subclass_of
from segda.discriminators.base import Discriminator
from segda.discriminators.cp import CP
from segda.discriminators.dwd import DWD
from segda.discriminators.fcd import FCD
from segda.discriminators.tfd import TFD

DISCRIMINATORS: Catalog[type[Discriminator]] = Catalog(
    "discriminator",
    group="segda.discriminators",
    built_in={
        "fcd": FCD,
        "tfd": TFD,
        "dwd": DWD,
        "cp": CP,
    },
    check=subclass_of(Discriminator),
)


def build_discriminator(name: str, *, num_classes: int, rank: float = 0.5) -> Discriminator:
    """Build a discriminator with random weights.

    Args:
        name: key of `DISCRIMINATORS`.
        num_classes: channels of the input.
        rank: fraction of the dense parameters, in (0, 1]; only read by those with `has_rank`.

    Returns:
        A module that maps probabilities float [B, num_classes, H, W] to domain logits float [B, 1, H // 32, W // 32].

    Raises:
        ConfigError: unknown name, fewer than two classes or a rank outside of (0, 1].
    """
    kind = DISCRIMINATORS[name]
    return kind(num_classes, rank=rank) if kind.has_rank else kind(num_classes)


__all__ = ["CP", "DISCRIMINATORS", "DWD", "FCD", "TFD", "Discriminator", "build_discriminator"]
