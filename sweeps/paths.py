"""Dotted paths into nested plain data."""

from collections.abc import Iterator, Mapping
from typing import Any

from segda.tunable import Scalar


def value_at(config: Mapping[str, Any], path: str, default: Any = None) -> Any:
    """Return the value at a dotted path of nested plain data.

    Example:
        >>> value_at({"method": {"name": "source_only"}}, "method.name")
        'source_only'
    """
    current: Any = config
    for key in path.split("."):
        if not isinstance(current, Mapping) or key not in current:
            return default
        current = current[key]
    return current


def with_values(config: Mapping[str, Any], values: Mapping[str, Scalar]) -> dict[str, Any]:
    """Return a copy of nested plain data with values set at dotted paths.

    Example:
        >>> with_values({"optimizer": {"name": "sgd"}}, {"optimizer.lr": 0.1})
        {'optimizer': {'name': 'sgd', 'lr': 0.1}}
    """
    result = _copy(config)
    for path, value in values.items():
        *parents, last = path.split(".")
        current = result
        for key in parents:
            below = current.get(key)
            current[key] = below if isinstance(below, dict) else {}
            current = current[key]
        current[last] = value
    return result


def _copy(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(item) if isinstance(item, Mapping) else item for key, item in value.items()}


def leaves(plain: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) of everything in nested plain data that is no mapping itself; an empty mapping counts as a value.

    Example:
        >>> list(leaves({"optimizer": {"name": "sgd", "lr": 0.1}, "references": {}}))
        [('optimizer.name', 'sgd'), ('optimizer.lr', 0.1), ('references', {})]
    """
    for name, value in plain.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
