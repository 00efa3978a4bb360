"""Find the name that was meant."""

import difflib
from collections.abc import Iterable, Sequence

_MOST_NAMED = 4  # keys that a message names


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint with the most similar known name, or nothing.

    Args:
        name: what came.
        known: what could have come.

    Returns:
        ` (did you mean 'x'?)` or an empty string.

    Example:
        >>> nearest("camvod", ["camvid", "loveda"])
        " (did you mean 'camvid'?)"
    """
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def nearest_ends(key: str, known: Iterable[str]) -> str:
    """Return a hint with the known dotted keys whose last part is most like that of a key, or nothing.

    Args:
        key: what came.
        known: what could have come.

    Example:
        >>> nearest_ends("space.lamda_adv", ["method.lambda_adv", "method.host.lambda_adv", "steps"])
        '; did you mean method.lambda_adv or method.host.lambda_adv?'
    """
    ends: dict[str, list[str]] = {}
    for name in sorted(known, key=lambda name: name.count(".")):
        ends.setdefault(name.rpartition(".")[2], []).append(name)
    close = difflib.get_close_matches(key.rpartition(".")[2], ends, n=1)
    return f"; did you mean {one_of(ends[close[0]])}?" if close else ""


def one_of(names: Sequence[str]) -> str:
    """Return names for a sentence; of many the first ones, and how many more there are.

    Example:
        >>> one_of(["a"]), one_of(["a", "b", "c"]), one_of(list("abcdefg"))
        ('a', 'a, b or c', 'a, b, c, d or 3 others')
    """
    more = len(names) - _MOST_NAMED
    *firsts, last = names if more <= 1 else [*names[:_MOST_NAMED], f"{more} others"]
    return f"{', '.join(firsts)} or {last}" if firsts else last
