"""Values that `--set` puts over a configuration."""

from collections.abc import Sequence
from typing import Any

from segda.config_file import parse_value
from segda.config_problems import shortened
from segda.errors import ConfigError


def changes_of(assignments: Sequence[str]) -> dict[str, Any]:
    """Return dotted keys and their values, in the order in which they are to be applied.

    Args:
        assignments: `dotted.key=value`, the value in YAML; of a key that comes twice, the last one counts.

    Raises:
        ConfigError: one of them is none.

    Example:
        >>> changes_of(["steps=20", "model={name: bisenet_v1}"])
        {'steps': 20, 'model': {'name': 'bisenet_v1'}}
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not (key and separator):
            raise ConfigError(f"--set expects KEY=VALUE, e.g. optimizer.lr=0.01, got {shortened(assignment)!r}")
        try:
            value = parse_value(text)
        except ConfigError as error:
            raise ConfigError(
                f"--set {shortened(assignment)}: {error}; text with special characters needs quotes"
            ) from error
        changes.pop(key, None)
        changes[key] = value
    return changes
