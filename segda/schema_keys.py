"""The keys of a configuration file, read from its JSON schema; imports nothing that takes time."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from segda.errors import ConfigError
from segda.names import nearest_ends, one_of

# That come with this package: what `segda schema` prints where no other package offers anything.
SCHEMAS = Path(__file__).parent / "schemas"
TRAINING_SCHEMA = SCHEMAS / "training.json"
_ANY = "*"  # stands for a name that a file gives


@cache
def shipped_keys(schema: Path) -> Mapping[str, list[Mapping[str, Any]]]:
    """Return the keys that a schema file knows; see `keys_of`.

    Args:
        schema: the file.
    """
    return keys_of(shipped_schema(schema))


@cache
def shipped_schema(schema: Path) -> Mapping[str, Any]:
    """Return what a schema file says.

    Args:
        schema: the file.
    """
    found: dict[str, Any] = json.loads(schema.read_text(encoding="utf-8"))
    return found


def keys_of(schema: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Return dotted key -> what a schema says of its value, once per place that says something else; groups are keys as well.

    Args:
        schema: of a file that is a mapping; `*` in a key stands for names that the file gives.

    Example:
        >>> value = {"type": "integer"}
        >>> list(keys_of({"properties": {"budget": {"properties": {"trials": value}}, "name": {}}}))
        ['budget', 'budget.trials', 'name']
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for key, said in _below(schema, schema, ""):
        places = found.setdefault(key, [])
        if said not in places:
            places.append(said)
    return found


def _below(said: Mapping[str, Any], schema: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    said = resolved(said, schema)
    for name, value in said.get("properties", {}).items():
        yield f"{prefix}{name}", value
        yield from _below(value, schema, f"{prefix}{name}.")
    if isinstance(said.get("additionalProperties"), Mapping):
        yield f"{prefix}{_ANY}", said["additionalProperties"]
        yield from _below(said["additionalProperties"], schema, f"{prefix}{_ANY}.")
    cases = [*said.get("anyOf", ()), *(part["then"] for part in said.get("allOf", ()) if "then" in part)]
    for case in [*cases, *([said["else"]] if "else" in said else [])]:
        yield from _below(case, schema, prefix)


def resolved(said: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a reference inside a schema stands for, with what stands beside the reference; else what came.

    Args:
        said: a part of the schema.
        schema: the whole.
    """
    while "$ref" in said:
        found: Any = schema
        for step in said["$ref"].removeprefix("#/").split("/"):
            found = found[step.replace("~1", "/").replace("~0", "~")]
        said = {**found, **{key: value for key, value in said.items() if key != "$ref"}}
    return said


def whole_key(key: str, known: Mapping[str, Any]) -> str:
    """Return the key that is meant: what came, or the one key that ends so.

    Args:
        key: dotted; its last parts are enough where no other key ends so. What begins as a known key is returned as it is: what is
            wrong with it, those know who read the whole file.
        known: dotted keys, see `keys_of`.

    Raises:
        ConfigError: no key, or several, end so.

    Example:
        >>> known = {"budget": {}, "budget.trials": {}, "base.steps": {}}
        >>> whole_key("trials", known), whole_key("budget.hours", known)
        ('budget.trials', 'budget.hours')
    """
    if key.partition(".")[0] in known:
        return key
    named = sorted((name for name in known if _ANY not in name.split(".")), key=lambda name: name.count("."))
    ends = [name for name in named if name.endswith(f".{key}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ConfigError(f"key {key!r} may be {one_of(ends)}; write the one that is meant")
    firsts = ", ".join(name for name in named if "." not in name)
    raise ConfigError(f"unknown key {key!r}{nearest_ends(key, named) or f'; known: {firsts}'}")
