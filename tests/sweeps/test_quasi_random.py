"""Points that cover a space evenly."""

import itertools
import math

import pytest

from sweeps.file.space import Categorical, Float, Int, Parameter, SearchSpace, identity
from sweeps.search.quasi_random import QuasiRandom, value_at_unit

FINITE = SearchSpace(
    [
        Parameter("method", Categorical(("plain", "adversarial"))),
        Parameter("weight", Int(1, 4), {"method": ("adversarial",)}),
        Parameter("power", Float(0.0, 1.0, step=0.25)),
    ]
)
PLANE = SearchSpace([Parameter("x", Float(0.0, 1.0)), Parameter("y", Float(0.0, 1.0))])


def points(space, count, *, seed=0):
    sequence, known = QuasiRandom(space, seed=seed), {}
    for _ in range(count):
        params = sequence.unused(known)
        known[identity(params)] = params
    return list(known.values())


def test_a_finite_space_is_covered_completely_and_without_repetition():
    count = FINITE.num_combinations()
    found = points(FINITE, count)
    assert {identity(params) for params in found} == {identity(params) for params in FINITE.combinations()}
    assert QuasiRandom(FINITE, seed=0).unused({identity(params) for params in found}) is None


@pytest.mark.parametrize("seed", range(5))
def test_the_first_points_of_a_finite_space_reach_every_value(seed):
    """In the order of the space the first half of the combinations would all be `plain`."""
    first = points(FINITE, 10, seed=seed)
    assert {params["method"] for params in first} == {"plain", "adversarial"}
    assert len({params["power"] for params in first}) == 5


def largest_gap(found):
    """Half the side of the largest empty square on a grid of centers, roughly."""
    centers = [index / 20 for index in range(21)]
    return max(
        min(max(abs(point["x"] - x), abs(point["y"] - y)) for point in found)
        for x, y in itertools.product(centers, centers)
    )


def test_points_leave_smaller_gaps_than_random_ones():
    import random

    even = [largest_gap(points(PLANE, 64, seed=seed)) for seed in range(3)]
    draws = random.Random(0)
    blind = [largest_gap([{"x": draws.random(), "y": draws.random()} for _ in range(64)]) for _ in range(3)]
    assert max(even) < min(blind)


def test_conditional_parameters_are_spread_evenly_too():
    space = SearchSpace(
        [
            Parameter("method", Categorical(("plain", "adversarial"))),
            Parameter("weight", Float(0.0, 1.0), {"method": ("adversarial",)}),
            Parameter("power", Float(0.0, 1.0)),
        ]
    )
    weights = sorted(params["weight"] for params in points(space, 64) if "weight" in params)
    assert len(weights) == 32
    # Each 16th of the range has its two.
    assert [sum(math.floor(16 * weight) == part for weight in weights) for part in range(16)] == [2] * 16


def test_a_seed_gives_one_sequence_and_another_seed_another():
    assert points(PLANE, 8) == points(PLANE, 8)
    assert points(PLANE, 8) != points(PLANE, 8, seed=1)


def test_positions_are_laid_over_the_scale_of_the_search():
    assert value_at_unit(Float(1e-4, 1.0, log=True), 0.5) == pytest.approx(1e-2)
    assert value_at_unit(Float(1.0, 3.0), 0.5) == 2.0
    assert [value_at_unit(Float(0.0, 1.0, step=0.5), unit) for unit in (0, 0.34, 0.99)] == [0.0, 0.5, 1.0]
    assert [value_at_unit(Int(1, 3), unit) for unit in (0, 0.34, 0.99)] == [1, 2, 3]
    assert [value_at_unit(Int(1, 5, step=2), unit) for unit in (0, 0.34, 1)] == [1, 3, 5]
    assert value_at_unit(Int(1, 100, log=True), 0.5) == 7  # the geometric mean of 0.5 and 100.5
    assert [value_at_unit(Categorical(("a", "b")), unit) for unit in (0.49, 0.5, 1)] == ["a", "b", "b"]


@pytest.mark.parametrize(
    "distribution", [Float(1e-4, 1e-1, log=True), Int(1, 7, log=True), Float(0.1, 0.9, step=0.2), Int(2, 8, step=3)]
)
def test_no_position_leaves_the_range(distribution):
    assert all(distribution.contains(value_at_unit(distribution, unit / 50)) for unit in range(51))
