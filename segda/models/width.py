"""Width multipliers: one number scales the channels of all layers, and with them the cost about by its square."""

from typing import Annotated

from pydantic import Field

from segda.tunable import Choice

_DIVISOR = 8

# The field of a configuration; a network's cost is measured for each value, so a sweep needs an end of them.
Width = Annotated[float, Choice(0.5, 0.75, 1.0), Field(ge=0.25, le=2.0)]


def scaled(channels: int, width: float) -> int:
    """Return as many channels as a layer has that is scaled: the nearest multiple of 8, but never less than nine tenths of it.

    That is the rule of MobileNet's code, which EfficientNet's follows, too: vector units want multiples of 8.

    Args:
        channels: of the layer at width 1, a multiple of 8.
        width: factor > 0.

    Example:
        >>> [scaled(channels, 0.5) for channels in (8, 16, 24, 40, 64)]
        [8, 8, 16, 24, 32]
    """
    wanted = channels * width
    nearest = max(_DIVISOR, int(wanted + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return nearest + _DIVISOR if nearest < 0.9 * wanted else nearest
