"""Read a training configuration and replace single values of it, as `--set` asks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from segda.config import NetworkConfig, TrainConfig
from segda.config_file import read_document, validate
from segda.config_problems import error_of
from segda.errors import ConfigError
from segda.guests import make_importable_beside
from segda.models import ModelConfig

_Config = TypeVar("_Config", bound=BaseModel)


def read_train_config(path: Path, assignments: Sequence[str] = ()) -> TrainConfig:
    """Read a configuration file.

    Args:
        path: YAML file.
        assignments: `dotted.key=value`, the value in YAML; applied in order to what the file says. They may add what the
            file lacks.

    Raises:
        ConfigError: if the file or an assignment is not valid.
    """
    make_importable_beside(path)
    document = read_document(path)
    if not assignments:
        return validate(document, TrainConfig)
    return _with(document.data, assignments, TrainConfig, where=f"{path} with ")


def read_network_config(assignments: Sequence[str]) -> ModelConfig:
    """Return the settings of a network that no configuration file describes.

    Args:
        assignments: `model.key=value`, the value in YAML; applied in order.

    Raises:
        ConfigError: if an assignment is not valid.
    """
    return _with({"model": {}}, assignments, NetworkConfig, where="").model


def _with(data: dict[str, Any], assignments: Sequence[str], kind: type[_Config], *, where: str) -> _Config:
    for assignment in assignments:
        _assign(data, assignment)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise error_of(error, kind, data, where=f"{where}--set {' --set '.join(assignments)}") from error


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
