"""The JSON schema of sweep files: that of their own keys, and in it that of training configurations, taken apart.

`base` may leave out what is searched, and may hold settings of several methods or networks, each heeded by those that have it. So
it has every key of a training configuration and requires none, and `search` and `references` name those keys by dotted path. Where
a file names a guest (`package.module:Attribute`), which no schema knows, keys beside that name may be any.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from segda.config import TrainConfig
from segda.schema import DIALECT, Schema, schema_of
from segda.schema_keys import keys_of
from sweeps.file.fields import FIXED_FIELDS, METHOD, VARIANTS, declared_range, known_paths, part_of
from sweeps.file.space import Searched
from sweeps.file.spec import SweepSpec

_GUEST = {"type": "string", "pattern": ":"}
# What may stand where a guest's own setting is varied.
_OPEN = f"^({'|'.join(part.replace('.', '[.]') for part in VARIANTS)})[.]"


def sweep_schema() -> Schema:
    """Return the JSON schema (draft 2020-12) of sweep files, with what installed packages offer."""
    schema = schema_of(SweepSpec, title="sweep file")
    parts, definitions = schema["properties"], schema["$defs"]
    keys = keys_of(schema_of(TrainConfig, title="training configuration"))
    del keys["seed"]  # of `seeds`
    groups = {path for path in keys if any(other.startswith(f"{path}.") for other in keys)}
    values = {path: {"$ref": f"#/$defs/{path}"} for path in keys if path not in groups}
    fields = known_paths({part: catalog.usable() for part, catalog in VARIANTS.items()})
    points = {path: values[path] for path in (METHOD, *fields) if path in values and not _is_fixed(path)}
    varied = {
        path: _varied(value, has_range=path.endswith(".name") or declared_range(fields[path]) is not None)
        for path, value in points.items()
    }
    any_point = {"patternProperties": {_OPEN: {}}, "additionalProperties": False, "type": "object"}
    definitions |= {path: _value(path, keys[path]) for path in values}
    definitions["Searched"] = {
        key: said for key, said in schema_of(Searched, title="range").items() if key != "$schema"
    }
    definitions["Point"] = {"properties": _ours(points), **any_point, "description": "dotted path -> value"}
    definitions["SamplerConfig"]["properties"]["first"]["items"] = {"$ref": "#/$defs/Point"}
    parts["references"]["additionalProperties"] = {"$ref": "#/$defs/Point"}
    parts["search"] |= {
        **any_point,
        "properties": _ours(varied),
        "patternProperties": {_OPEN: _varied({}, has_range=True)},
    }
    about = {path: keys[path][0].get("description", "") for path in groups}
    parts["base"] = _nested(_ours(values), about) | {"description": parts["base"]["description"]}
    known = {"propertyNames": {"enum": list(points)}}
    definitions["PointWithoutGuests"] = {"properties": points, **known}
    without_guests = {
        "base": _nested(values, {}, is_closed=True),
        "search": {"properties": varied, **known},
        "references": {"additionalProperties": {"$ref": "#/$defs/PointWithoutGuests"}},
        "sampler": {"properties": {"first": {"items": {"$ref": "#/$defs/PointWithoutGuests"}}}},
    }
    return {**schema, "$schema": DIALECT, "if": _names_a_guest(), "else": {"properties": without_guests}}


def _is_fixed(path: str) -> bool:
    return any(f"{path}.".startswith(f"{fixed}.") for fixed in FIXED_FIELDS)


def _ours(said: Mapping[str, Schema]) -> dict[str, Schema]:
    """Return what is said of the paths that mean the same whatever names a file has."""
    return {path: value for path, value in said.items() if path.endswith(".name") or part_of(path) is None}


def _nested(
    values: Mapping[str, Schema], about: Mapping[str, str], prefix: str = "", *, is_closed: bool = False
) -> Schema:
    """Return the schema of groups of values, each of which may be left out.

    Args:
        values: dotted path -> schema.
        about: dotted path of a group -> what it is.
        prefix: of the paths in this group.
        is_closed: whether also those groups have no other keys whose keys follow from a name.
    """
    found: dict[str, Schema] = {}
    for path in values:
        if not path.startswith(prefix):
            continue
        name, _, below = path.removeprefix(prefix).partition(".")
        if not below:
            found[name] = values[path]
        elif name not in found:
            found[name] = _nested(values, about, f"{prefix}{name}.", is_closed=is_closed)
            if about.get(f"{prefix}{name}"):
                found[name]["description"] = about[f"{prefix}{name}"]
    is_open = prefix.removesuffix(".") in VARIANTS and not is_closed
    return {"type": "object", "properties": found, **({} if is_open else {"additionalProperties": False})}


def _value(path: str, places: Sequence[Mapping[str, Any]]) -> Schema:
    """Return the schema of a value that may be one of several things."""
    # The settings of each method repeat that there is a name; the first place says which.
    is_name = path.rpartition(".")[2] == "name"
    cases = [{key: value for key, value in place.items() if key != "default"} for place in places]
    cases = cases[:1] if is_name else [case for index, case in enumerate(cases) if case not in cases[:index]]
    return cases[0] if len(cases) == 1 else {"anyOf": cases}


def _varied(value: Schema, *, has_range: bool) -> Schema:
    """Return the schema of how something varies.

    Args:
        value: schema of its values.
        has_range: whether `default` says how.
    """
    declared = [{"const": "default", "description": "the range that is declared beside the field"}]
    listed = {"type": "array", "minItems": 1, "items": value, "description": "choices"}
    ranged = {"$ref": "#/$defs/Searched", "properties": {"choices": {"items": value}}}
    return {"anyOf": [*(declared if has_range else ()), listed, ranged]}


def _at(steps: Sequence[str], said: Schema) -> Schema:
    """Return a schema of mappings that have something below these keys."""
    for step in reversed(steps):
        said = {"type": "object", "properties": {step: said}, "required": [step]}
    return said


def _names_a_guest() -> Schema:
    """Return the schema of files that name a guest, under `base` or under `search`."""
    listed = {"type": "array", "contains": _GUEST}
    varied = {"anyOf": [listed, _at(["choices"], listed)]}
    names = [f"{part}.name" for part in VARIANTS]
    fixed = [_at(["base", *name.split(".")], _GUEST) for name in names]
    return {"anyOf": fixed + [_at(["search", name], varied) for name in names]}
