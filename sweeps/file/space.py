"""What a sweep varies: parameters, their ranges, and the conditions under which they exist."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from segda.config_problems import LocatedError
from segda.names import nearest
from segda.settings import Settings
from segda.tunable import Scalar


def same(first: Scalar, second: Scalar) -> bool:
    """Return whether two values are the same choice: `True` and `1` are not."""
    return first == second and isinstance(first, bool) is isinstance(second, bool)


def identity(params: Mapping[str, Scalar]) -> frozenset[tuple[str, str, str]]:
    """Return what two equal sets of parameters have in common; numbers count as equal to 12 digits.

    Example:
        >>> identity({"batch_size": 4}) == identity({"batch_size": 4.0})
        True
        >>> identity({"model.dropout": True}) == identity({"model.dropout": 1})
        False
    """
    return frozenset(
        (path, "number", f"{value:.12g}")
        if isinstance(value, int | float) and not isinstance(value, bool)
        else (path, type(value).__name__, str(value))
        for path, value in params.items()
    )


_MOST_CHOICES = 1000
_MOST_STEPS = 100_000
_ONE_OR_SEVERAL = {"anyOf": [{"type": ["string", "number", "boolean", "null"]}, {"type": "array", "minItems": 1}]}
_LARGEST = 1e15  # of a bound: whole numbers up to here are exact as real numbers too


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


class Searched(Settings):
    """How one parameter varies: `choices`, or `low` and `high`; `when` says under which values of others it exists."""

    model_config = ConfigDict(populate_by_name=True)

    choices: tuple[Scalar, ...] | None = Field(
        None, min_length=1, max_length=_MOST_CHOICES, description="values without order"
    )
    low: float | None = Field(None, description="smallest value, included")
    high: float | None = Field(None, description="largest value, included")
    log: bool = Field(False, description="search on a logarithmic scale")
    integer: bool = Field(False, alias="int", description="whole numbers only")
    step: float | None = Field(None, gt=0, description="distance of neighboring values; unset: any")
    when: dict[
        str,
        Annotated[tuple[Scalar, ...], BeforeValidator(_listed), Field(min_length=1), WithJsonSchema(_ONE_OR_SEVERAL)],
    ] = Field({}, description="other searched path -> the value or values under which this parameter exists")

    @model_validator(mode="after")
    def _is_one_range(self) -> Self:
        if self.choices is not None:
            given = [name for name in ("low", "high", "step") if getattr(self, name) is not None]
            given += [name for name, on in (("log", self.log), ("int", self.integer)) if on]
            if given:
                raise ValueError(f"give choices, or low and high, not both; besides choices came {', '.join(given)}")
            for index, value in enumerate(self.choices):
                if isinstance(value, float) and not math.isfinite(value):
                    raise LocatedError(("choices", index), f"must be a finite number, got {value}")
                # Equal values of different types too (1, 1.0, true): they could not be told apart later.
                if value in self.choices[:index]:
                    raise LocatedError(("choices", index), f"{value!r} is listed twice; keep one of them")
            return self
        if self.low is None or self.high is None:
            raise ValueError("needs choices, or both low and high")
        if not self.low < self.high:
            raise ValueError(f"low must be smaller than high, got low {self.low:g} and high {self.high:g}")
        for name, value in (("low", self.low), ("high", self.high)):
            if abs(value) > _LARGEST:
                raise LocatedError((name,), f"must lie within {_LARGEST:g} of 0, got {value:g}")
        if self.log and self.low <= 0:
            raise LocatedError(("low",), f"must be greater than 0 on a logarithmic scale, got {self.low:g}")
        if self.log and self.step is not None:
            raise LocatedError(("step",), "cannot be combined with log; leave one of them out")
        if self.integer:
            for name in ("low", "high", "step"):
                value = getattr(self, name)
                if value is not None and not float(value).is_integer():
                    raise LocatedError((name,), f"must be a whole number because of int, got {value:g}")
        if self.step is not None:
            count = (self.high - self.low) / self.step
            if count > _MOST_STEPS:
                raise LocatedError(
                    ("step",),
                    f"must give at most {_MOST_STEPS} steps from {self.low:g} to {self.high:g}, got {self.step:g}",
                )
            if not math.isclose(count, round(count), abs_tol=1e-9) or round(count) < 1:
                raise LocatedError(
                    ("step",),
                    f"must divide the range from {self.low:g} to {self.high:g} without rest, got {self.step:g}",
                )
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        return {key: value for key, value in plain.items() if not (value is None or value is False or value == {})}


@dataclass(frozen=True)
class Float:
    """Real numbers from `low` to `high`, both included; multiples of `step` above `low` if there is one."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def count(self) -> int | None:
        """Return how many values there are, or None if there is no end of them."""
        return None if self.step is None else round((self.high - self.low) / self.step) + 1

    def values(self) -> Sequence[Scalar] | None:
        """Return all values, or None if there is no end of them."""
        count = self.count()
        if count is None or self.step is None:
            return None
        return [min(self.high, self.low + index * self.step) for index in range(count)]

    def extremes(self) -> list[tuple[str, Scalar]]:
        """Return (key in the sweep file, value) of the values to check."""
        return [("low", self.low), ("high", self.high)]

    def contains(self, value: Scalar) -> bool:
        """Return whether a value can come out."""
        if not isinstance(value, int | float) or isinstance(value, bool) or not self.low <= value <= self.high:
            return False
        position = 0.0 if self.step is None else (value - self.low) / self.step
        return math.isclose(position, round(position), abs_tol=1e-8)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{_details(self.log, self.step)}"


@dataclass(frozen=True)
class Int:
    """Whole numbers from `low` to `high`, both included, `step` apart."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def count(self) -> int:
        """Return how many values there are."""
        return len(self.values())

    def values(self) -> Sequence[Scalar]:
        """Return all values, which are counted, not listed."""
        return range(self.low, self.high + 1, self.step)

    def extremes(self) -> list[tuple[str, Scalar]]:
        """Return (key in the sweep file, value) of the values to check."""
        return [("low", self.low), ("high", self.high)]

    def contains(self, value: Scalar) -> bool:
        """Return whether a value can come out."""
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high and (value - self.low) % self.step == 0

    def __str__(self) -> str:
        return f"{self.low} to {self.high}{_details(self.log, self.step if self.step != 1 else None)}"


@dataclass(frozen=True)
class Categorical:
    """Values without order."""

    choices: tuple[Scalar, ...]

    def count(self) -> int:
        """Return how many values there are."""
        return len(self.choices)

    def values(self) -> Sequence[Scalar]:
        """Return all values."""
        return self.choices

    def extremes(self) -> list[tuple[str, Scalar]]:
        """Return (key in the sweep file, value) of the values to check: all."""
        return [("choices", value) for value in self.choices]

    def contains(self, value: Scalar) -> bool:
        """Return whether a value can come out."""
        return any(same(value, choice) for choice in self.choices)

    def __str__(self) -> str:
        return ", ".join(_plain(choice) for choice in self.choices)


Distribution = Float | Int | Categorical


def _plain(value: Scalar) -> str:
    return {True: "true", False: "false", None: "null"}[value] if isinstance(value, bool | None) else str(value)


def _details(log: bool, step: float | None) -> str:
    return (", log scale" if log else "") + (f", step {step:g}" if step is not None else "")


@dataclass(frozen=True)
class Parameter:
    """One thing that varies.

    Attributes:
        path: dotted path into the training configuration.
        distribution: its values.
        condition: path of another parameter -> values under which this one exists; all must hold.
    """

    path: str
    distribution: Distribution
    condition: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)

    def is_active(self, params: Mapping[str, Scalar]) -> bool:
        """Return whether it exists, given the parameters before it."""
        return all(
            path in params and any(same(params[path], value) for value in values)
            for path, values in self.condition.items()
        )


@dataclass(frozen=True)
class Row:
    """One line of the table of what varies; all text."""

    path: str
    kind: str
    range: str
    condition: str


class SearchSpace:
    """All parameters of a sweep.

    Attributes:
        parameters: in the order of the sweep file, but each after those that its condition names.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        """Order the parameters.

        Args:
            parameters: any order; conditions name other parameters of these.

        Raises:
            LocatedError: a condition names no parameter or a value that the parameter cannot have, or conditions form a
                circle. The location is the path and `when`.
        """
        self.parameters = _parents_first(parameters)

    @classmethod
    def from_search(cls, search: Mapping[str, Searched]) -> "SearchSpace":
        """Build the space of a sweep file's `search` part; errors as above."""
        return cls([Parameter(path, _distribution(item), dict(item.when)) for path, item in search.items()])

    def describe(self) -> list[Row]:
        """Return a table of the parameters."""
        return [
            Row(
                path=item.path,
                kind=type(item.distribution).__name__.lower(),
                range=str(item.distribution),
                condition=" and ".join(
                    f"{path} is {' or '.join(_plain(value) for value in values)}"
                    for path, values in item.condition.items()
                ),
            )
            for item in self.parameters
        ]

    def num_combinations(self) -> int | None:
        """Return how many different trials there can be, or None if there is no end of them."""
        total = 0
        parents = self._parents()
        for branch in self.branches():
            product = 1
            for item in self.parameters:
                if item.path not in parents and item.is_active(branch):
                    count = item.distribution.count()
                    if count is None:
                        return None
                    product *= count
            total += product
        return total

    def num_values(self, paths: Iterable[str]) -> int | None:
        """Return how many combinations of values some parameters have at most, or None if there is no end of them.

        Args:
            paths: of the parameters; one that does not exist in every trial has a value more: none.
        """
        counts = [
            (item.distribution.count(), bool(item.condition)) for item in self.parameters if item.path in set(paths)
        ]
        known = [count + is_conditional for count, is_conditional in counts if count is not None]
        return math.prod(known) if len(known) == len(counts) else None

    def branches(self) -> Iterator[dict[str, Scalar]]:
        """Yield the possible values of the parameters that conditions name; one empty branch if there are none."""
        return _assignments(self._deciding(()))

    def exceeds(self, most: int, *prefixes: str) -> bool:
        """Return whether there are more branches than so many.

        Args:
            most: how many there may be; counting ends there.
            prefixes: counts combinations of the branches with values of the parameters whose paths begin so, all finite.
        """
        return any(True for _ in itertools.islice(_assignments(self._deciding(prefixes)), most, None))

    def combinations(self) -> Iterator[dict[str, Scalar]]:
        """Yield every possible trial of a finite space, in a fixed order."""
        return _assignments(self.parameters)

    def first(self, branch: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Complete a branch with the first value of every other parameter that exists in it."""
        params = {}
        for item in self.parameters:
            if item.path in branch:
                params[item.path] = branch[item.path]
            elif item.is_active(params):
                params[item.path] = item.distribution.extremes()[0][1]
        return params

    def contains(self, params: Mapping[str, Scalar]) -> bool:
        """Return whether the parameters could have come from this space: the right ones, each in its range."""
        active = [item for item in self.parameters if item.is_active(params)]
        return params.keys() == {item.path for item in active} and all(
            item.distribution.contains(params[item.path]) for item in active
        )

    def covering(self, *prefixes: str) -> Iterator[dict[str, Scalar]]:
        """Yield complete parameters such that every combination of values of some of them occurs once.

        Args:
            prefixes: begin the paths of those parameters, e.g. `model.`; all are finite.
        """
        seen = []
        for assignment in _assignments(self._deciding(prefixes)):
            chosen = {path: value for path, value in assignment.items() if path.startswith(prefixes)}
            if chosen not in seen:
                seen.append(chosen)
                yield self.first(assignment)

    def _deciding(self, prefixes: tuple[str, ...]) -> list[Parameter]:
        """Return the parameters that conditions name, and those whose paths begin with one of the prefixes."""
        parents = self._parents()
        return [item for item in self.parameters if item.path in parents or item.path.startswith(prefixes)]

    def _parents(self) -> set[str]:
        return {path for item in self.parameters for path in item.condition}


def _distribution(item: Searched) -> Distribution:
    if item.choices is not None:
        return Categorical(item.choices)
    if item.low is None or item.high is None:
        raise ValueError("needs choices, or both low and high")
    if item.integer:
        return Int(int(item.low), int(item.high), item.log, 1 if item.step is None else int(item.step))
    return Float(item.low, item.high, item.log, item.step)


def _assignments(parameters: Sequence[Parameter]) -> Iterator[dict[str, Scalar]]:
    """Yield all combinations of values of finite parameters, given in parents-first order."""

    def extend(params: dict[str, Scalar], rest: Sequence[Parameter]) -> Iterator[dict[str, Scalar]]:
        if not rest:
            yield dict(params)
        elif not rest[0].is_active(params):
            yield from extend(params, rest[1:])
        else:
            values = rest[0].distribution.values()
            if values is None:
                raise ValueError(f"{rest[0].path} has no end of values")
            for value in values:
                yield from extend(params | {rest[0].path: value}, rest[1:])

    return extend({}, parameters)


def _parents_first(parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    known = {item.path: item for item in parameters}
    for item in parameters:
        for path, values in item.condition.items():
            where = (item.path, "when", path)
            if path not in known:
                raise LocatedError(where, f"{path} is not searched{nearest(path, known)}")
            parent = known[path].distribution
            if isinstance(parent, Float):
                raise LocatedError(
                    where, f"{path} is a range of real numbers; a condition needs choices or whole numbers"
                )
            for value in values:
                if not parent.contains(value):
                    hint = nearest(str(value), [str(choice) for choice in parent.values()[:_MOST_CHOICES]])
                    raise LocatedError(where, f"{path} is never {_plain(value)}{hint}; it can be: {parent}")
    ordered: dict[str, Parameter] = {}
    while len(ordered) < len(known):
        ready = next(
            (item for item in parameters if item.path not in ordered and item.condition.keys() <= ordered.keys()), None
        )
        if ready is None:
            circle = sorted(known.keys() - ordered.keys())
            raise LocatedError((circle[0], "when"), f"the conditions of {' and '.join(circle)} wait for each other")
        ordered[ready.path] = ready
    return tuple(ordered.values())
