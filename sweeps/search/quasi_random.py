"""Points that cover a search space evenly, conditional parameters and finite spaces included.

A scrambled Sobol sequence (scrambled as in Matoušek, "On the L2-discrepancy for anchored boxes", 1998) in a cube with one
coordinate for every parameter, whether it exists at a point or not. Each coordinate is laid over its parameter's values, and those
of parameters that do not exist are left out. So conditional parameters are spread as evenly as the others, which is not so where
they are drawn on their own.
"""

import math
import random
from collections.abc import Collection, Iterator
from itertools import islice

import torch

from segda.tunable import Scalar
from sweeps.file.space import Categorical, Distribution, Int, SearchSpace, identity

Identity = frozenset[tuple[str, str, str]]

_BLOCK = 64  # points computed at once; a power of two keeps blocks balanced
_PATIENCE = 4  # times the number of combinations that the sequence may take to find them all


class QuasiRandom:
    """The points of one space in a fixed order, without repetition; a prefix covers the space evenly.

    In a finite space every combination comes once: those that the sequence is slow to find come last, shuffled.
    """

    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        """Begin at the first point.

        Args:
            space: what to cover.
            seed: seed of the scrambling; any other gives another sequence of the same quality.
        """
        self._space = space
        self._seed = seed
        self._drawn: list[tuple[Identity, dict[str, Scalar]]] = []
        self._rest = self._distinct()

    def unused(self, known: Collection[Identity]) -> dict[str, Scalar] | None:
        """Return the first point that is not known.

        Args:
            known: what `sweeps.file.space.identity` returns for points to pass over.

        Returns:
            Dotted path -> value, of the parameters that exist; None if a finite space has no other point.
        """
        for mark, params in self._points():
            if mark not in known:
                return dict(params)
        return None

    def _points(self) -> Iterator[tuple[Identity, dict[str, Scalar]]]:
        yield from self._drawn
        for item in self._rest:
            self._drawn.append(item)
            yield item

    def _distinct(self) -> Iterator[tuple[Identity, dict[str, Scalar]]]:
        count = self._space.num_combinations()
        seen: set[Identity] = set()
        for params in self._sequence() if count is None else islice(self._sequence(), _PATIENCE * count):
            mark = identity(params)
            if mark not in seen:
                seen.add(mark)
                yield mark, params
            if len(seen) == count:
                return
        missing = [params for params in self._space.combinations() if identity(params) not in seen]
        random.Random(self._seed).shuffle(missing)
        yield from ((identity(params), params) for params in missing)

    def _sequence(self) -> Iterator[dict[str, Scalar]]:
        dimensions = len(self._space.parameters)
        engine = torch.quasirandom.SobolEngine(dimensions, scramble=True, seed=self._seed)  # type: ignore[no-untyped-call]
        while True:
            for position in engine.draw(_BLOCK, dtype=torch.float64).tolist():
                units = {item.path: unit for item, unit in zip(self._space.parameters, position, strict=True)}
                params: dict[str, Scalar] = {}
                for item in self._space.parameters:
                    if item.is_active(params):
                        params[item.path] = value_at_unit(item.distribution, units[item.path])
                yield params


def value_at_unit(distribution: Distribution, unit: float) -> Scalar:
    """Return the value at a position of a parameter's range.

    Args:
        distribution: the range; choices and steps own equal shares of it.
        unit: position, in [0, 1], on the scale of the search: halfway of a logarithmic range is its geometric mean.

    Example:
        >>> from sweeps.file.space import Float
        >>> [value_at_unit(Float(1.0, 100.0, log=True), unit) for unit in (0, 0.5, 1)]
        [1.0, 10.0, 100.0]
    """
    if isinstance(distribution, Categorical):
        return distribution.choices[_index(unit, len(distribution.choices))]
    if isinstance(distribution, Int):
        first, last = distribution.low, distribution.high
        if distribution.log:
            # Each whole number owns what rounds to it.
            start, end = math.log(first - 0.5), math.log(last + 0.5)
            return min(max(round(math.exp(start + unit * (end - start))), first), last)
        return first + distribution.step * _index(unit, (last - first) // distribution.step + 1)
    low, high = distribution.low, distribution.high
    if distribution.step is not None:
        values = distribution.values() or []
        return values[_index(unit, len(values))]
    value = low * (high / low) ** unit if distribution.log else low + unit * (high - low)
    return min(max(value, low), high)


def _index(unit: float, count: int) -> int:
    return min(int(unit * count), count - 1)
