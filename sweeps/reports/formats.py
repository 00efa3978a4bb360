"""How single values look to people: figures in the units that they read, and what a missing one is."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sweeps.labels import duration, listed

MISSING = "–"


@dataclass(frozen=True)
class Format:
    """How the values of a column are shown; what is missing is None and a dash everywhere.

    Attributes:
        show: text of a value.
        look: what a page makes of the text: `number`, `trial` (its number, with marks), `text` (long, may be broken), `name` (may
            not), `code` or `state`.
        order: what rows are sorted by in a page, where that is not the text.
    """

    show: Callable[[Any], str]
    look: str = "number"
    order: Callable[[Any], Any] = lambda value: value

    @property
    def is_number(self) -> bool:
        """Whether values stand at the right."""
        return self.look in ("number", "trial")


def percent(value: float | None) -> str:
    """Return a share in per cent with one digit, or a dash.

    Example:
        >>> percent(0.6312), percent(None)
        ('63.1', '–')
    """
    return MISSING if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def scaled(value: float | None, factor: float = 1.0) -> str:
    """Return a figure times a factor with three significant digits, or a dash.

    Example:
        >>> scaled(12_345_678, 1e-6), scaled(1234.5)
        ('12.3', '1234')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    number = value * factor
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    Example:
        >>> count(1, "trial"), count(2, "trial")
        ('1 trial', '2 trials')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def date(seconds: float) -> str:
    """Return a time, given in seconds since 1970, in UTC to the minute."""
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")


def words(name: str) -> str:
    """Return a name without underscores."""
    return name.replace("_", " ")


def in_units(factor: float) -> Format:
    """Return the format of figures that are told in other units than they are kept in.

    Args:
        factor: the figure in the units that people read, of one.
    """
    return Format(lambda value: scaled(value, factor))


def _joined(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values)) or MISSING


TEXT = Format(str, "")
PROSE = Format(str, "text")
NAME = Format(str, "name")
CODE = Format(str, "code")
STATE = Format(str, "state")
WORDS = Format(words, "")
YES = Format(lambda value: "yes" if value else "no", "")
WHOLE = Format(str)
TRIAL = Format(str, "trial")
TRIALS = Format(listed, "text")
LISTED = Format(_joined, "")
PERCENT = Format(percent)
FIGURE = in_units(1.0)
HUNDREDTHS = Format(lambda value: f"{value:.2f}")
BETWEEN = Format(lambda ends: f"{ends[0]:.2f} to {ends[1]:.2f}", order=lambda ends: ends[0])
PERCENTS = Format(lambda ends: f"{percent(ends[0])} to {percent(ends[1])}", order=lambda ends: ends[0])
DURATION = Format(duration)
DATE = Format(date, "name")
SIZE = Format(lambda size: f"{size[0]} x {size[1]}", "name")  # height and width
