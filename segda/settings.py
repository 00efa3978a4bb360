"""What all settings that a file may hold have in common."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator

from segda.config_problems import LocatedError


class Settings(BaseModel):
    """Settings by name: none that nobody knows, none that changes later, no number that is none.

    `true` is no number either, though Python counts with it: a batch of `true` images is a slip.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        for name, field in cls.model_fields.items():
            key = field.alias if field.alias is not None and field.alias in given else name
            types = set(_types(field.annotation))
            if bool in types or not types & {int, float}:
                continue
            noun = "a number" if float in types else "a whole number"
            for place, value in _values(given.get(key)):
                if isinstance(value, bool):
                    raise LocatedError((key, *place), f"must be {noun}, got {str(value).lower()}")
        return given


def _types(annotation: Any) -> Iterator[Any]:
    """Yield an annotation's types, those of its items included."""
    parts = get_args(annotation)
    if not parts:
        yield annotation
    for part in parts:
        yield from _types(part)


def _values(value: Any) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Yield a value, or the items of a list, with their places."""
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield (index,), item
    else:
        yield (), value
