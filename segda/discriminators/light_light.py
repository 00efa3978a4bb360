"""LightLight: three depthwise-separable layers."""

from typing import ClassVar

from segda.discriminators.dwd import DWD


class LightLight(DWD):
    """`DWD` of three layers, which judges neighborhoods of 22 pixels where that of five judges 94.

    Source: RTDA, arXiv:2110.11662, and the authors' code; their "Light" discriminator is `DWD`.
    """

    hidden: ClassVar[tuple[int, ...]] = (64, 128)
    stride: ClassVar[int] = 8
