"""Plain data as JSON; NaN and infinities survive the round trip."""

import json
import math
from collections.abc import Mapping
from typing import Any

_NON_FINITE = "$float"  # JSON has no NaN and no infinity, and PostgreSQL refuses Python's spelling of them


def encoded(value: Any) -> Any:
    """Return plain data as JSON can hold it."""
    if isinstance(value, float) and not math.isfinite(value):
        return {_NON_FINITE: repr(value)}
    if isinstance(value, Mapping):
        return {str(key): encoded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encoded(item) for item in value]
    return value


def read(text: str) -> Any:
    """Return the plain data of which `encoded` made a JSON text."""
    return json.loads(text, object_hook=_decoded)


def _decoded(found: dict[str, Any]) -> Any:
    return float(found[_NON_FINITE]) if len(found) == 1 and _NON_FINITE in found else found
