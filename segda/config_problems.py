"""What is wrong with a configuration, in words for people."""

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from segda.errors import ConfigError
from segda.names import nearest

Location = tuple[str | int, ...]
_Model = TypeVar("_Model", bound=BaseModel)
_LONGEST_VALUE = 60  # characters of a wrong value that a message repeats
_LONGEST_TEXT = 600  # characters of what is said of one problem, which may list what is known
# How pydantic calls a type among several that a value may have; it stands in a location like a key.
_TYPE = re.compile(r"(constrained-)?(int|float|str|bool)|(dict|list|tuple|function-\w+)\[.*\]")


class LocatedError(ValueError):
    """A value that does not fit, found by a check that looks at more than one key.

    Raise it inside a pydantic validator; the keys are relative to the model that the validator belongs to.
    """

    def __init__(self, location: Location, text: str) -> None:
        """Keep the place.

        Args:
            location: keys and list positions that lead to the value.
            text: what was expected, what came, what to do.
        """
        super().__init__(text)
        self.location = location
        self.text = text


class Variants(ABC):
    """Marks a field of which the data say what class it has; an item of the field's metadata."""

    @abstractmethod
    def config_class(self, value: Any) -> type[BaseModel]:
        """Return the class that the data name.

        Args:
            value: what the field is made from.

        Raises:
            ValueError: they name none.
        """


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a configuration.

    Attributes:
        location: keys and list positions that lead to the value.
        text: what was expected and what came.
        is_missing: whether a required key is absent.
        is_one_of_types: whether the value may have several types, of which it lacks this one.
    """

    location: Location
    text: str
    is_missing: bool = False
    is_one_of_types: bool = False

    def __str__(self) -> str:
        text = shortened(self.text, longest=_LONGEST_TEXT)
        return f"{shortened(dotted(self.location))}: {text}" if self.location else text


def shortened(text: str, *, longest: int = _LONGEST_VALUE) -> str:
    """Return a text for a message: of a long one its beginning and its end.

    Args:
        text: whatever came.
        longest: characters that may be shown.

    Example:
        >>> shortened("optimizer.lr"), shortened("x" * 5000, longest=20)
        ('optimizer.lr', 'xxxxxxxxxxxxx...xxxx')
    """
    if len(text) <= longest:
        return text
    end = longest // 5
    return f"{text[: longest - end - 3]}...{text[-end:]}"


def dotted(location: Location) -> str:
    """Return keys and list positions as one name.

    Example:
        >>> dotted(("objectives", 0, "metric"))
        'objectives[0].metric'
    """
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in location)
    return text.removeprefix(".")


def problems_of(error: ValidationError, model: type[BaseModel], data: Any) -> list[Problem]:
    """Return what pydantic found, in words for people.

    Args:
        error: what was raised.
        model: the class that was validated.
        data: what it was validated from.
    """
    items = error.errors(include_url=False)
    # A list whose items are wrong counts as too short as well: they are left out before it is measured.
    broken = {item["loc"][:-depth] for item in items for depth in range(1, len(item["loc"]))}
    return _as_one_value(
        _problem(dict(item), model, data) for item in items if item["type"] != "too_short" or item["loc"] not in broken
    )


def _as_one_value(problems: Iterable[Problem]) -> list[Problem]:
    """Say of a value that may have several types, and has none of them, one thing: of each type came a problem."""
    found: dict[Location, Problem] = {}
    for problem in problems:
        earlier = found.get(problem.location)
        if earlier is not None and problem.text.startswith("must be ") and ", got " in earlier.text:
            expected, _, came = earlier.text.partition(", got ")
            other = problem.text.removeprefix("must be ").partition(", got ")[0]
            problem = replace(earlier, text=f"{expected} or {other}, got {came}")
        found[problem.location] = problem
    # What is wrong within a list says that a list was meant.
    return [
        problem
        for place, problem in found.items()
        if not (
            problem.is_one_of_types and any(len(other) > len(place) and other[: len(place)] == place for other in found)
        )
    ]


def first_problem(error: ValidationError, model: type[BaseModel], data: Any) -> Problem:
    """Return the problem to tell first: one with what is there comes before a value that is missing.

    Args:
        error: what was raised.
        model: the class that was validated.
        data: what it was validated from.
    """
    return min(problems_of(error, model, data), key=lambda problem: problem.is_missing)


def validated(model: type[_Model], data: Any, *, where: str) -> _Model:
    """Return data that came from no file as a configuration.

    Args:
        model: class of the configuration.
        data: what it is made of.
        where: what the data are, put before the message.

    Raises:
        ConfigError: they make none; one line.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise error_of(error, model, data, where=where) from error


def error_of(error: ValidationError, model: type[BaseModel], data: Any, *, where: str) -> ConfigError:
    """Return a one-line error for data that came from no file.

    Args:
        error: what was raised.
        model: the class that was validated.
        data: what it was validated from.
        where: what the data are, put before the message.
    """
    problems = sorted(problems_of(error, model, data), key=lambda problem: problem.is_missing)
    rest = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return ConfigError(f"{where}: {problems[0]}{rest}")


def _problem(item: Mapping[str, Any], model: type[BaseModel], data: Any) -> Problem:
    location = _without_types(tuple(item["loc"]), data)
    kind, context = item["type"], item.get("ctx", {})
    if isinstance(context.get("error"), LocatedError):
        located: LocatedError = context["error"]
        return Problem(location + located.location, located.text)
    if kind == "missing":
        return Problem(location, "a value is required, none came", is_missing=True)
    if kind == "extra_forbidden":
        known = _known_keys(model, location[:-1], data)
        hint = nearest(str(location[-1]), known) or f"; known: {', '.join(known)}"
        return Problem(location, f"unknown key{hint}")
    if kind in ("value_error", "assertion_error"):
        return Problem(location, str(context["error"]))
    return Problem(
        location,
        f"{_expected(kind, context, item['msg'])}, got {_shown(item['input'])}{_hint(item)}",
        is_one_of_types=len(location) < len(item["loc"]),
    )


def _without_types(location: Location, data: Any) -> Location:
    """Return a location without the types that pydantic tried there."""
    kept: list[str | int] = []
    for key in location:
        if isinstance(key, str) and _TYPE.fullmatch(key) and not _has(data, key):
            continue
        kept.append(key)
        data = data[key] if _has(data, key) else None
    return tuple(kept)


def _expected(kind: str, context: Mapping[str, Any], message: str) -> str:
    """Say what a built-in check of pydantic wants."""
    bounds = {
        "greater_than": "gt",
        "greater_than_equal": "ge",
        "less_than": "lt",
        "less_than_equal": "le",
        "multiple_of": "multiple_of",
    }
    if kind in bounds:
        bound = context[bounds[kind]]
        words = {
            "gt": "greater than",
            "ge": "at least",
            "lt": "smaller than",
            "le": "at most",
            "multiple_of": "a multiple of",
        }
        return f"must be {words[bounds[kind]]} {bound if isinstance(bound, int) else f'{bound:g}'}"
    if kind in ("literal_error", "enum"):
        return (
            f"must be one of {context['expected']}"
            if " or " in context["expected"]
            else f"must be {context['expected']}"
        )
    if kind == "string_pattern_mismatch":
        return f"must match {context['pattern']}"
    if kind in ("too_short", "string_too_short"):
        what = "character(s)" if kind == "string_too_short" else "item(s)"
        return f"must have at least {context.get('min_length', 1)} {what}"
    if kind in ("too_long", "string_too_long"):
        what = "characters" if kind == "string_too_long" else "items"
        return f"must have at most {context['max_length']} {what}"
    nouns = {
        "int": "a whole number",
        "float": "a number",
        "finite": "a finite number",
        "bool": "true or false",
        "string": "text",
        "path": "a path",
        "dict": "a mapping `key: value`",
        "model": "a mapping `key: value`",
        "mapping": "a mapping `key: value`",
        "list": "a list",
        "tuple": "a list",
    }
    noun = nouns.get(kind.split("_")[0])
    return f"must be {noun}" if noun else message[:1].lower() + message[1:]


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return shortened(repr(value))


def _hint(item: Mapping[str, Any]) -> str:
    if item["type"] not in ("literal_error", "enum"):
        return ""
    return nearest(str(item["input"]), re.findall(r"'([^']*)'", item["ctx"]["expected"]))


def _known_keys(model: type[BaseModel], location: Location, data: Any) -> list[str]:
    """Return the keys that are known at a place; of the variant that the data name where a class has several."""
    current: Any = model
    for key in location:
        data = data[key] if _has(data, key) else None
        if isinstance(key, int):
            current = next((_model_in(item) for item in get_args(current) if item is not Ellipsis), current)
        elif isinstance(current, type) and issubclass(current, BaseModel):
            current = _below(_field(current, key), data)
        elif get_origin(current) is dict:
            current = _model_in(get_args(current)[1])
    if not (isinstance(current, type) and issubclass(current, BaseModel)):
        return []
    return [field.alias or name for name, field in current.model_fields.items()]


def _has(data: Any, key: str | int) -> bool:
    if isinstance(data, Mapping):
        return key in data
    return isinstance(data, list | tuple) and isinstance(key, int) and key < len(data)


def _field(model: type[BaseModel], key: str) -> FieldInfo | None:
    return next((field for name, field in model.model_fields.items() if key in (name, field.alias)), None)


def _below(field: FieldInfo | None, data: Any) -> Any:
    """Return the model that a field holds; of a field with several, the one that the data name."""
    if field is None:
        return None
    chosen = next((item for item in field.metadata if isinstance(item, Variants)), None)
    if chosen is not None:
        with contextlib.suppress(ValueError):
            return chosen.config_class(data)
    return _model_in(field.annotation, is_mapping=isinstance(data, Mapping))


def _model_in(annotation: Any, *, is_mapping: bool = False) -> Any:
    """Strip `X | None` and the like off a model, a list of models or a dictionary of models; a list is none if a mapping came."""
    is_list = get_origin(annotation) in (list, tuple)
    if (is_list and not is_mapping) or get_origin(annotation) is dict or isinstance(annotation, type):
        return annotation
    if is_list:
        return None
    kinds = (_model_in(item, is_mapping=is_mapping) for item in get_args(annotation))
    return next((found for found in kinds if found is not None), None)
