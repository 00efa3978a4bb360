"""What other programs call the parts of a search range, and what a sweep file calls them."""

from collections.abc import Mapping
from typing import Any

from segda.config_problems import shortened

_OURS: Mapping[str, str] = {
    **dict.fromkeys(("min", "minimum", "lower", "lower_bound", "from"), "low"),
    **dict.fromkeys(("max", "maximum", "upper", "upper_bound", "to"), "high"),
    **dict.fromkeys(
        ("values", "value", "options", "choice", "categories", "categorical", "enum", "list", "grid"), "choices"
    ),
    **dict.fromkeys(("q", "quantum", "step_size"), "step"),
    **dict.fromkeys(("log_scale", "logarithmic", "loguniform", "log_uniform"), "log: true"),
    **dict.fromkeys(("condition", "conditions", "if", "parent"), "when"),
}
# A kind of range is said by which keys it has.
_KINDS = ("type", "distribution", "kind", "scale", "dtype")
_OF_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("int", "integer", "int_uniform", "randint"), "int: true"),
    **dict.fromkeys(("log", "loguniform", "log_uniform", "log_uniform_values", "log_float"), "log: true"),
    **dict.fromkeys(("choice", "choices", "categorical", "list", "grid", "bool", "str", "string"), "choices"),
}


def other_words(item: Mapping[str, Any]) -> str | None:
    """Return what a range should say in place of words that it does not know but that others use, or None if it has none.

    Args:
        item: how a parameter varies, as it came.

    Example:
        >>> other_words({"min": 1, "max": 2, "type": "float"})
        '`low` in place of min, `high` in place of max, nothing in place of type: float'
        >>> other_words({"low": 1, "high": 2})
    """
    found = []
    for word, value in item.items():
        if word in _KINDS:
            ours = _OF_KINDS.get(str(value).lower())
            found.append(f"{f'`{ours}`' if ours else 'nothing'} in place of {word}: {shortened(str(value))}")
        elif word in _OURS:
            found.append(f"`{_OURS[word]}` in place of {word}")
    return ", ".join(found) or None
