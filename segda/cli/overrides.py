"""Values that `--set` puts over a configuration."""

from collections.abc import Sequence
from typing import Any

import yaml

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
            raise ConfigError(f"--set expects KEY=VALUE, e.g. optimizer.lr=0.01, got {assignment!r}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {assignment}: the value is not valid YAML; put quotes around it") from error
        changes.pop(key, None)
        changes[key] = value
    return changes
