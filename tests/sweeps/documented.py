"""The keys that docs/automation.md gives to documents, and whether a document has these and no others, of these types."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "automation.md"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_SINGLE = {
    "text": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
    "time": lambda value: is_time(value),
    "map": lambda value: isinstance(value, dict),
}

Fields = Mapping[str, str]


def is_time(value: Any) -> bool:
    """Return whether a value is a time as documents have it."""
    return isinstance(value, str) and _TIME.fullmatch(value) is not None


def described() -> dict[str, Fields]:
    """Return name of a document or part -> key -> type, as the page has them; `...` takes over the keys of a part."""
    found: dict[str, dict[str, str]] = {}
    for section in re.split(r"^### ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        name, _, text = section.partition("\n")
        found[name.strip()] = dict(re.findall(r"^\| `([^`]+)` \| ([^|]+?) \|", text, flags=re.MULTILINE))
    return {name: _whole(fields, found) for name, fields in found.items()}


def _whole(fields: Fields, known: Mapping[str, Fields]) -> Fields:
    if "..." not in fields:
        return fields
    own = {key: kind for key, kind in fields.items() if key != "..."}
    taken = dict(_whole(known[fields["..."]], known))
    for key in own:
        taken.pop(key.rstrip("?"), None)
        taken.pop(f"{key.rstrip('?')}?", None)
    return taken | own


def differences(document: Mapping[str, Any]) -> list[str]:
    """Return in what a document differs from the page, one line each."""
    known = described()
    fields = {"schema": "text", **known[document["schema"]]}
    return list(_differences(document, fields, known, document["schema"]))


def _differences(found: Any, fields: Fields, known: Mapping[str, Fields], place: str) -> Iterator[str]:
    if not isinstance(found, dict):
        yield f"{place}: expected keys, got {found!r}"
        return
    needed = {key for key in fields if not key.endswith("?")}
    optional = {key[:-1] for key in fields if key.endswith("?")}
    yield from (f"{place}: {key} is missing" for key in sorted(needed - found.keys()))
    yield from (f"{place}: {key} is not on the page" for key in sorted(found.keys() - needed - optional))
    for key, value in found.items():
        kind = fields.get(key, fields.get(f"{key}?"))
        if kind is not None:
            yield from _of_type(value, kind, known, f"{place}.{key}")


def _of_type(value: Any, kind: str, known: Mapping[str, Fields], place: str) -> Iterator[str]:
    if kind.endswith(" or null"):
        if value is not None:
            yield from _of_type(value, kind.removesuffix(" or null"), known, place)
    elif kind.startswith("list of "):
        if not isinstance(value, list):
            yield f"{place}: expected a list, got {value!r}"
            return
        for number, item in enumerate(value):
            yield from _of_type(item, kind.removeprefix("list of "), known, f"{place}[{number}]")
    elif kind.startswith("map of "):
        for key, item in value.items():
            yield from _of_type(item, kind.removeprefix("map of "), known, f"{place}.{key}")
    elif kind in _SINGLE:
        if not _SINGLE[kind](value):
            yield f"{place}: expected {kind}, got {value!r}"
    else:
        yield from _differences(value, known[kind], known, place)
