"""Read a training configuration and replace single values of it, as `--set` asks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from segda.config import TrainConfig
from segda.config_file import read_document, validate
from segda.config_problems import error_of
from segda.errors import ConfigError


def read_train_config(path: Path, assignments: Sequence[str] = ()) -> TrainConfig:
    """Read a configuration file.

    Args:
        path: YAML file.
        assignments: `dotted.key=value`, the value in YAML; applied in order to what the file says. They may add what the
            file lacks.

    Raises:
        ConfigError: if the file or an assignment is not valid.
    """
    document = read_document(path)
    if not assignments:
        return validate(document, TrainConfig)
    for assignment in assignments:
        _assign(document.data, assignment)
    try:
        return TrainConfig.model_validate(document.data)
    except ValidationError as error:
        where = f"{path} with --set {' --set '.join(assignments)}"
        raise error_of(error, TrainConfig, document.data, where=where) from error


def _assign(data: dict[str, Any], assignment: str) -> None:
    key, separator, text = assignment.partition("=")
    if not (key and separator):
        raise ConfigError(f"--set expects KEY=VALUE, e.g. optimizer.lr=0.01, got {assignment!r}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {assignment}: the value is not valid YAML; put quotes around it") from error
    *groups, last = key.split(".")
    for depth, group in enumerate(groups, start=1):
        data = data.setdefault(group, {})
        if not isinstance(data, dict):
            raise ConfigError(f"--set {assignment}: {'.'.join(groups[:depth])} is a value, not a group of settings")
    data[last] = value
