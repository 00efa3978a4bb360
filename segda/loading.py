"""From a file or from plain data to the configuration of a run, with single values and places replaced."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from segda.config import DataAlone, DataConfig, DomainConfig, NetworkConfig, TrainConfig
from segda.config_file import configuration_path, read_document, validate
from segda.config_problems import shortened, validated
from segda.errors import ConfigError
from segda.files import expanded
from segda.guests import make_importable_beside
from segda.models import ModelConfig
from segda.names import nearest
from segda.plain_data import plain_copy

_Config = TypeVar("_Config", bound=BaseModel)
CONFIGS = Path(__file__).parent / "configs"  # that come with this package, and are found by name
_LONGEST_CHANGES = 300  # characters of changes that a message repeats


def load_config(
    source: Path | str | Mapping[str, Any],
    *,
    changes: Mapping[str, Any] | None = None,
    data_roots: Mapping[str, Path | str] | None = None,
) -> TrainConfig:
    """Read the configuration of a run.

    Args:
        source: YAML file, the name of one that comes with this package (`scenes`), or the same as plain data.
        changes: dotted key -> value, put over what the source says in their order; they may add what it lacks.
        data_roots: name of a data set -> its folder.

    Raises:
        ConfigError: one line that names the file and the line, or else the key; what was expected and what came.

    Example:
        >>> domains = {"source": {"dataset": "scenes", "domain": "urban"}, "target": {"dataset": "scenes", "domain": "rural"}}
        >>> plain = {"data": {**domains, "height": 64, "width": 64}, "method": {"name": "source_only"}, "steps": 100}
        >>> load_config(plain, changes={"optimizer.lr": 0.01}).optimizer.lr
        0.01
    """
    return with_roots(_loaded(source, TrainConfig, changes or {}), data_roots or {})


def load_data(
    source: Path | str | Mapping[str, Any],
    *,
    changes: Mapping[str, Any] | None = None,
    data_roots: Mapping[str, Path | str] | None = None,
) -> DataConfig:
    """Read which data a run uses, and nothing else of its configuration; not which external labels, as these may not be there yet.

    Args:
        source: as in `load_config`.
        changes: as in `load_config`.
        data_roots: as in `load_config`.

    Raises:
        ConfigError: as `load_config` does.
    """
    return _with_roots(_loaded(source, DataAlone, changes or {}).data, data_roots or {})


def _loaded(source: Path | str | Mapping[str, Any], kind: type[_Config], changes: Mapping[str, Any]) -> _Config:
    if isinstance(source, Mapping):
        return _changed(plain_copy(source, where="configuration"), changes, kind, where="configuration")
    path = configuration_path(source, shipped=CONFIGS)
    make_importable_beside(path)
    document = read_document(path)
    return _changed(document.data, changes, kind, where=str(path)) if changes else validate(document, kind)


def network_config(changes: Mapping[str, Any]) -> ModelConfig:
    """Return the settings of a network that no configuration describes.

    Args:
        changes: `model` and dotted keys below it -> value, in their order.

    Raises:
        ConfigError: they are no settings of a network.
    """
    return _changed({"model": {}}, changes, NetworkConfig, where="network").model


def with_roots(config: TrainConfig, data_roots: Mapping[str, Path | str]) -> TrainConfig:
    """Return a configuration with other folders of its data sets.

    Args:
        config: any configuration.
        data_roots: data set -> folder.

    Raises:
        ConfigError: if the configuration does not use one of the data sets.
    """
    return config.model_copy(update={"data": _with_roots(config.data, data_roots)})


def _with_roots(data: DataConfig, data_roots: Mapping[str, Path | str]) -> DataConfig:
    used = {data.source.dataset, data.target.dataset}
    for name in data_roots:
        if name not in used:
            raise ConfigError(
                f"a folder is given for data set {name!r}{nearest(name, used)}, but the configuration uses "
                f"{', '.join(sorted(used))}"
            )
    roots = {name: expanded(root) for name, root in data_roots.items()}

    def moved(domain: DomainConfig) -> DomainConfig:
        return domain.model_copy(update={"root": roots.get(domain.dataset, domain.root)})

    return data.model_copy(update={"source": moved(data.source), "target": moved(data.target)})


def put_changes(
    data: dict[str, Any],
    changes: Mapping[str, Any],
    *,
    where: str,
    steps: Callable[[str], list[str]] = lambda key: key.split("."),
) -> str:
    """Put values over nested plain data, in place and in their order; groups that it lacks are added.

    Args:
        data: what is changed.
        changes: key -> value.
        where: what the data are, for messages.
        steps: takes a key apart into the keys of the nested groups; by default at its dots.

    Returns:
        `where` with the changes named.

    Raises:
        ConfigError: a key leads through a value.
    """
    if changes:
        wanted = plain_copy(changes, where=f"{where} with changes")
        listed = ", ".join(f"{key}={_written(value)}" for key, value in wanted.items())
        where = f"{where} with {shortened(listed, longest=_LONGEST_CHANGES)}"
        for key, value in wanted.items():
            _put(data, steps(key), value, where=where)
    return where


def _changed(data: dict[str, Any], changes: Mapping[str, Any], kind: type[_Config], *, where: str) -> _Config:
    where = put_changes(data, changes, where=where)
    return validated(kind, data, where=where)


def _put(data: dict[str, Any], steps: list[str], value: Any, *, where: str) -> None:
    *groups, last = steps
    for depth, group in enumerate(groups, start=1):
        data = data.setdefault(group, {})
        if not isinstance(data, dict):
            raise ConfigError(f"{where}: {'.'.join(groups[:depth])} is a value, not a group of settings")
    data[last] = value


def _written(value: Any) -> str:
    """Write a value as a command line would have it."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False).removesuffix("...\n").strip()
