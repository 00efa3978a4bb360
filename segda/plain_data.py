"""What a configuration is made of, from a file as from Python: mappings, lists, text, numbers, `true`, `false` and `null`.

All of it is bounded. A file of ten lines whose aliases name each other stands for a billion values, and a mapping may hold itself:
such things are refused where they come in, so that nothing behind has to expect them.
"""

import re
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from segda.config_problems import LocatedError, Location, Problem, shortened
from segda.errors import ConfigError

MOST_VALUES = 20_000  # of one configuration, aliases followed
DEEPEST = 30  # mappings and lists within each other
LONGEST_TEXT = 10_000  # characters
LONGEST_KEY = 300
MOST_DIGITS = (
    100  # of a number as it is written; what has more is no setting, and Python refuses to write out thousands
)
# Control characters but tab and line breaks, and halves of characters: neither paths nor databases take them.
_UNUSABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class Budget:
    """Counts the values of one configuration while they are read."""

    def __init__(self) -> None:
        """Begin at none."""
        self._left = MOST_VALUES

    def spend(self, depth: int) -> None:
        """Count one value.

        Args:
            depth: how many mappings and lists it lies in.

        Raises:
            ValueError: it is one too many, or lies too deep.
        """
        if depth > DEEPEST:
            raise ValueError(f"values lie in each other more than {DEEPEST} deep; does one contain itself?")
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"more than {MOST_VALUES:,} values; a configuration has some dozens")


def check_text(text: str) -> str:
    """Return a text that can be used.

    Raises:
        ValueError: it is too long, or has characters that are none for people.
    """
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"a text must have at most {LONGEST_TEXT:,} characters, got {len(text):,}")
    found = _UNUSABLE.search(text)
    if found is not None:
        raise ValueError(f"a text must have no control characters, got {found[0]!a}; remove it")
    return text


def check_key(key: Any) -> str:
    """Return a key that can be used; messages and tables show it.

    Raises:
        ValueError: it is no text of one line.
    """
    if not isinstance(key, str):
        raise ValueError(f"a key must be text, got one of class {type(key).__name__}")
    if len(key) > LONGEST_KEY or not key.isprintable():
        raise ValueError(f"a key must be one line of at most {LONGEST_KEY} characters, got {shortened(repr(key))}")
    return str(key)


def plain_copy(value: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Return a copy of a configuration that comes from Python, made of nothing else than what a file can hold.

    Args:
        value: mappings, lists and tuples, paths, and anything that is a text or a number.
        where: what it is, put before the message.

    Raises:
        ConfigError: a part of it is something else, or there is no end to it; one line.

    Example:
        >>> plain_copy({"root": Path("data"), "sizes": (1, 2)}, where="configuration")
        {'root': 'data', 'sizes': [1, 2]}
    """
    try:
        copied: dict[str, Any] = _copied(value, (), Budget())
    except LocatedError as error:
        raise ConfigError(f"{where}: {Problem(error.location, error.text)}") from error
    return copied


def _copied(value: Any, location: Location, budget: Budget) -> Any:
    try:
        budget.spend(len(location))
        if isinstance(value, Mapping):
            keys = [check_key(key) for key in value]
        elif not isinstance(value, list | tuple):
            return _scalar(value)
    except ValueError as error:
        raise LocatedError(location, str(error)) from error
    if isinstance(value, Mapping):
        items = zip(keys, value.values(), strict=True)
        return {key: _copied(item, (*location, key), budget) for key, item in items}
    return [_copied(item, (*location, index), budget) for index, item in enumerate(value)]


def _scalar(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str | Path):
        return check_text(str(value))
    if isinstance(value, Integral):
        if abs(int(value)) >= 10**MOST_DIGITS:
            raise ValueError(f"a number must have at most {MOST_DIGITS} digits")
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise ValueError(
        f"must be plain data (mappings, lists, text, numbers, true, false, null), got an object of class {type(value).__name__}"
    )
