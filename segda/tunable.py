"""A search range stands beside the default of the field that it belongs to.

    lambda_adv: Annotated[float, Range(1e-4, 1e-1, log=True)] = 1e-3

A sweep file may name such a field and search it at this range, or give a range of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Range:
    """An interval of numbers.

    Attributes:
        low: smallest value, included.
        high: largest value, included.
        log: whether to search on a logarithmic scale.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a range needs low < high, got [{self.low}, {self.high}]")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range needs low > 0, got {self.low}")


@dataclass(frozen=True)
class Choice:
    """A set of values without order.

    Attributes:
        values: the values, at least one.
    """

    values: tuple[Scalar, ...]

    def __init__(self, *values: Scalar) -> None:
        if not values:
            raise ValueError("a choice needs at least one value")
        object.__setattr__(self, "values", values)


Tunable = Range | Choice


def tunables(config: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Tunable, Any]]:
    """Yield every field that declares a search range, nested models included.

    Args:
        config: a configuration class.
        prefix: dotted path put before each name.

    Yields:
        (dotted path, range, default).
    """
    for name, field in config.model_fields.items():
        path = f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from tunables(field.annotation, f"{path}.")
        for item in field.metadata:
            if isinstance(item, Range | Choice):
                yield path, item, field.default
