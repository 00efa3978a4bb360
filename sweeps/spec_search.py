"""The `search` part as it stands in a sweep file: what it leaves to others is looked up before it is validated."""

from collections.abc import Iterator, Mapping
from typing import Any

from segda.config_problems import LocatedError, Location
from segda.errors import ConfigError
from segda.methods import METHODS
from segda.names import nearest
from segda.tunable import Choice
from sweeps.fields import FIXED_FIELDS, METHOD, declared_range, fields_of, known_paths, value_at
from sweeps.space import same

NEVER_PICKED = "is trained on target labels and never picked, so trials of it would be lost; put it under references"
# How a sweep file may say how one field varies.
SEARCH_SCHEMA = {
    "anyOf": [
        {"const": "default", "description": "the range that is declared beside the field"},
        {"type": "array", "minItems": 1, "description": "choices"},
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "choices": {"type": "array", "minItems": 1},
                "low": {"type": "number"},
                "high": {"type": "number"},
                "log": {"type": "boolean"},
                "int": {"type": "boolean"},
                "step": {"type": "number", "exclusiveMinimum": 0},
                "when": {
                    "type": "object",
                    "description": "searched path -> value or values under which this one exists",
                },
            },
        },
    ]
}


def resolve_search(search: Mapping[Any, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Check the searched paths, and replace what a sweep file may leave to others: declared ranges, conditions on fixed values.

    Args:
        search: the `search` part as it stands in the file.
        base: the `base` part.

    Raises:
        LocatedError: relative to `search`.
    """
    methods = _methods(search, base)
    known = known_paths(methods)
    resolved: dict[str, Any] = {}
    for path, raw in search.items():
        _check_path(path, known)
        field = known[path]
        item = (
            dict(raw) if isinstance(raw, Mapping) else {"choices": list(raw)} if isinstance(raw, list | tuple) else raw
        )
        if item == "default":
            item = {}
        if not isinstance(item, dict):
            raise LocatedError(
                (path,),
                f"must be a list of choices, `default`, or a mapping with choices or low and high, got {item!r}",
            )
        if not item.keys() & {"choices", "low", "high"}:
            item = _declared(path, field) | item
        if field.annotation is int and "choices" not in item:
            item["int"] = True
        if isinstance(item.get("when"), Mapping):
            item["when"] = dict(_open_conditions(path, item["when"], search, base, known))
        resolved[path] = item
    return resolved


def check_method(name: Any, *, at: Location) -> None:
    """Check that a method can be had.

    Args:
        name: as it came.
        at: where it stands.

    Raises:
        LocatedError: it cannot.
    """
    try:
        METHODS[name]
    except ConfigError as error:
        raise LocatedError(at, str(error)) from error


def is_candidate(method: str) -> bool:
    """Return whether trials are proposed with a method; one that is trained on target labels is an upper bound for reading.

    Args:
        method: name of a known method.
    """
    return METHODS[method].supervision == "source"


def candidates() -> list[str]:
    """Return the names of all listed methods that trials are proposed with."""
    return [name for name in METHODS.usable() if is_candidate(name)]


def _methods(search: Mapping[Any, Any], base: Mapping[str, Any]) -> list[str]:
    """Return the names of the methods that trials can have."""
    raw = search.get(METHOD)
    if raw is None:
        name = value_at(base, METHOD)
        if name is None:
            raise LocatedError(
                (), f"no method: name one under base.method.name or search {METHOD}; known: {', '.join(METHODS)}"
            )
        return [name]
    place: Location = (METHOD, "choices") if isinstance(raw, Mapping) else (METHOD,)
    listed = raw.get("choices", "default") if isinstance(raw, Mapping) else raw
    if listed == "default":
        return candidates()
    names = list(listed) if isinstance(listed, list | tuple) else [listed]
    for index, name in enumerate(names):
        check_method(name, at=(*place, index))
        if not is_candidate(name):
            raise LocatedError((*place, index), f"{name} {NEVER_PICKED}; search {' or '.join(candidates())}")
    return names


def _check_path(path: Any, known: Mapping[str, Any]) -> None:
    if path in FIXED_FIELDS:
        raise LocatedError((path,), f"cannot be searched: {FIXED_FIELDS[path]}")
    if path in known:
        return
    owners = [name for name in METHODS.usable() if path in fields_of(name)]
    if owners:
        raise LocatedError(
            (path,),
            f"no method of this sweep has it, but {' and '.join(owners)}; add that to {METHOD} or leave the path out",
        )
    hint = nearest(str(path), known) or "; paths are dotted, e.g. optimizer.lr"
    raise LocatedError((path,), f"a training configuration has no such field{hint}")


def _declared(path: str, field: Any) -> dict[str, Any]:
    if path == METHOD:
        return {"choices": candidates()}
    declared = declared_range(field)
    if declared is None:
        raise LocatedError((path,), "no range is declared beside this field; give choices, or low and high")
    if isinstance(declared, Choice):
        return {"choices": list(declared.values)}
    return {"low": declared.low, "high": declared.high} | ({"log": True} if declared.log else {})


def _open_conditions(
    path: str, when: Mapping[Any, Any], search: Mapping[Any, Any], base: Mapping[str, Any], known: Mapping[str, Any]
) -> Iterator[tuple[Any, Any]]:
    """Yield the conditions on searched paths; those on fixed values are decided here."""
    for parent, wanted in when.items():
        if parent in search:
            yield parent, wanted
            continue
        where = (path, "when", parent)
        if parent not in known:
            hint = nearest(str(parent), [*search, *known])
            raise LocatedError(
                where, f"a condition needs a searched path or a field of the training configuration{hint}"
            )
        fixed = value_at(base, parent, known[parent].get_default())
        values = wanted if isinstance(wanted, list | tuple) else [wanted]
        if not any(same(fixed, value) for value in values):
            raise LocatedError(
                where, f"never holds: {parent} is not searched and is {fixed!r}; search it or leave {path} out"
            )
