"""JSON documents that programs read: versioned, of plain data alone, and without passwords.

Each has a key `schema`, a name and a version, e.g. `sweeps.status/1`. Keys may be added to a version; one that is renamed, removed
or given another meaning raises it.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Set
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from segda.masking import masked_plain


def document(schema: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return content as a document.

    Args:
        schema: name and version, e.g. `sweeps.status/1`.
        content: mappings, lists and single values; dataclasses count as mappings, enumerations as their values, paths as text.

    Returns:
        What JSON can hold: NaN and infinities are None, and passwords, tokens and keys are hidden.

    Example:
        >>> document("example/1", {"miou": float("nan"), "uri": "http://me:secret@host"})
        {'schema': 'example/1', 'miou': None, 'uri': 'http://***@host'}
    """
    found: dict[str, Any] = masked_plain(_plain(content))
    return {"schema": schema, **found}


def as_json(found: Mapping[str, Any]) -> str:
    """Return a document as the text that a program prints.

    Args:
        found: see `document`.

    Raises:
        ValueError: it has a number that JSON does not have.
    """
    return json.dumps(found, indent=2, allow_nan=False)


def utc(seconds: float | None) -> str | None:
    """Return a time as ISO 8601 in UTC, to the millisecond.

    Args:
        seconds: since 1970; None: it is not known, or has not come.

    Example:
        >>> utc(0.25), utc(None)
        ('1970-01-01T00:00:00.250Z', None)
    """
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    match value:
        case Enum():
            return _plain(value.value)
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case Set():
            return sorted(_plain(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    assert isinstance(value, Path), f"a document has no place for {value!r}"
    return str(value)
