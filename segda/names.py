"""Find the name that was meant."""

import difflib
from collections.abc import Iterable


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
