"""The `search` part as it stands in a sweep file: what it leaves to others is looked up before it is validated."""

from collections.abc import Iterator, Mapping
from typing import Any

from segda.config_problems import LocatedError, Location
from segda.errors import ConfigError
from segda.methods import METHODS
from segda.names import nearest, nearest_ends
from segda.tunable import Choice
from sweeps.file.fields import (
    EXTERNAL_LABELS,
    FEW_SHOT,
    FIXED_FIELDS,
    HOST,
    VARIANTS,
    declared_range,
    fields_of,
    has_part,
    known_paths,
    name_of,
    part_of,
)
from sweeps.file.other_words import other_words
from sweeps.file.space import same
from sweeps.paths import value_at

NEVER_PICKED = "is trained on target labels and never picked, so trials of it would be lost; put it under references"
_METHODS = frozenset({"method", HOST})  # parts that are methods


def resolve_search(search: Mapping[Any, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Check the searched paths, and replace what a sweep file may leave to others: declared ranges, conditions on fixed values.

    Args:
        search: the `search` part as it stands in the file.
        base: the `base` part.

    Raises:
        LocatedError: relative to `search`.
    """
    names: dict[str, list[str]] = {}
    for part in VARIANTS:
        around = part_of(part)
        is_there = around is None or any(has_part(part, name) for name in names[around])
        names[part] = _names(part, search, base) if is_there else []
    known = known_paths(names)
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
        wanted = other_words(item)
        if wanted is not None:
            raise LocatedError(
                (path,), f"say {wanted}; a range is e.g. {{low: 1.0e-4, high: 0.1, log: true}} or {{choices: [4, 8]}}"
            )
        if not item.keys() & {"choices", "low", "high"}:
            item = _declared(path, field, base) | item
        if field.annotation is int and "choices" not in item:
            item["int"] = True
        if isinstance(item.get("when"), Mapping):
            item["when"] = dict(_open_conditions(path, item["when"], search, base, known))
        resolved[path] = item
    return resolved


def check_name(part: str, name: Any, *, at: Location) -> None:
    """Check that a method or a network can be had.

    Args:
        part: key of `VARIANTS`.
        name: as it came.
        at: where it stands.

    Raises:
        LocatedError: it cannot.
    """
    try:
        VARIANTS[part][name]
    except ConfigError as error:
        raise LocatedError(at, str(error)) from error


def is_candidate(part: str, name: str) -> bool:
    """Return whether trials are proposed with it; a method that is trained on target labels is an upper bound for reading.

    Args:
        part: key of `VARIANTS`.
        name: a known one, e.g. of a method.
    """
    return part not in _METHODS or METHODS[name].supervision == "source"


def _candidates(part: str, base: Mapping[str, Any]) -> list[str]:
    """Return all that are listed and that trials are proposed with; methods that need further labels if the base says which."""
    names = [name for name in VARIANTS[part].usable() if is_candidate(part, name)]
    return [name for name in names if part not in _METHODS or not _lacks_labels(name, base)]


def _lacks_labels(method: str, base: Mapping[str, Any]) -> str:
    """Return which labels a method needs that the base does not name, with what to add; empty if it lacks none."""
    if METHODS[method].needs_few_shot and value_at(base, FEW_SHOT) is None:
        return (
            "trains with the labels of a few target images, and the base does not say of which; add e.g. "
            "`few_shot: {images: 5}` under base.data"
        )
    if METHODS[method].needs_external_labels and value_at(base, EXTERNAL_LABELS) is None:
        return (
            "learns from labels that something else has made, and the base does not say where they are; write some with "
            "`segda teach` and add e.g. `external_labels: {folder: labels}` under base.data"
        )
    return ""


def _names(part: str, search: Mapping[Any, Any], base: Mapping[str, Any]) -> list[str]:
    """Return the names of the methods or networks that trials can have."""
    path = f"{part}.name"
    raw = search.get(path)
    if raw is None:
        name = name_of(base, part)
        if name is None:
            raise LocatedError(
                (), f"no {part}: name one under base.{path} or search {path}; known: {', '.join(VARIANTS[part])}"
            )
        return [name]
    place: Location = (path, "choices") if isinstance(raw, Mapping) else (path,)
    listed = raw.get("choices", "default") if isinstance(raw, Mapping) else raw
    if listed == "default":
        return _candidates(part, base)
    names = list(listed) if isinstance(listed, list | tuple) else [listed]
    for index, name in enumerate(names):
        check_name(part, name, at=(*place, index))
        if not is_candidate(part, name):
            raise LocatedError((*place, index), f"{name} {NEVER_PICKED}; search {' or '.join(_candidates(part, base))}")
        lacks = _lacks_labels(name, base) if part in _METHODS else ""
        if lacks:
            raise LocatedError((*place, index), f"{name} {lacks}, or leave it out")
    return names


def _check_path(path: Any, known: Mapping[str, Any]) -> None:
    fixed = next((name for name in FIXED_FIELDS if f"{path}.".startswith(f"{name}.")), None)
    if fixed is not None:
        raise LocatedError((path,), f"cannot be searched: {FIXED_FIELDS[fixed]}")
    if path in known:
        return
    inner = part_of(str(path))
    around = None if inner is None else part_of(inner)
    if inner is not None and around is not None and f"{inner}.name" not in known:
        owners = " and ".join(name for name in VARIANTS[around].usable() if has_part(inner, name))
        raise LocatedError(
            (path,),
            f"no {VARIANTS[around].noun} of this sweep has it, but {owners}; add that to {around}.name or leave the path out",
        )
    for part, catalog in VARIANTS.items():
        owners = " and ".join(name for name in catalog.usable() if path in fields_of(part, name))
        if owners:
            raise LocatedError(
                (path,),
                f"no {catalog.noun} of this sweep has it, but {owners}; add that to {part}.name or leave the path out",
            )
    hint = nearest(str(path), known) or nearest_ends(str(path), known) or "; paths are dotted, e.g. optimizer.lr"
    raise LocatedError((path,), f"a training configuration has no such field{hint}")


def _declared(path: str, field: Any, base: Mapping[str, Any]) -> dict[str, Any]:
    part, _, name = path.rpartition(".")
    if part in VARIANTS and name == "name":
        return {"choices": _candidates(part, base)}
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
