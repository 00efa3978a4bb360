import pytest
from hypothesis import given
from hypothesis import strategies as st

from segda.config_problems import LocatedError
from sweeps.file.space import Categorical, Float, Int, Parameter, Searched, SearchSpace

METHOD = Parameter("method.name", Categorical(("source_only", "adversarial", "target_only")))
DISCRIMINATOR = Parameter("method.discriminator", Categorical(("fcd", "tfd")), {"method.name": ("adversarial",)})
RANK = Parameter("method.rank", Int(1, 5, step=2), {"method.discriminator": ("tfd",)})
BATCH = Parameter("batch_size", Categorical((4, 8)))
LR = Parameter("optimizer.lr", Float(0.001, 0.1, log=True))


def test_parameters_come_after_those_that_their_conditions_name():
    space = SearchSpace([RANK, BATCH, DISCRIMINATOR, METHOD])
    assert [item.path for item in space.parameters] == [
        "batch_size",
        "method.name",
        "method.discriminator",
        "method.rank",
    ]


def test_combinations_count_conditional_branches_once():
    # source_only, target_only: 1 each; adversarial: fcd 1, tfd with three ranks; times two batch sizes
    space = SearchSpace([METHOD, DISCRIMINATOR, RANK, BATCH])
    assert space.num_combinations() == 2 * (1 + 1 + 1 + 3)


def test_counted_and_listed_combinations_agree():
    space = SearchSpace([METHOD, DISCRIMINATOR, RANK, BATCH])
    listed = list(space.combinations())
    assert len(listed) == space.num_combinations()
    assert len({tuple(sorted(item.items())) for item in listed}) == len(listed)
    assert all(space.contains(item) for item in listed)
    assert {"method.name": "adversarial", "method.discriminator": "fcd", "batch_size": 8} in listed


def test_real_numbers_have_no_end_of_combinations_unless_stepped():
    assert SearchSpace([METHOD, LR]).num_combinations() is None
    assert SearchSpace([Parameter("optimizer.momentum", Float(0.5, 0.9, step=0.1))]).num_combinations() == 5


def test_branches_are_the_values_of_what_conditions_name():
    branches = list(SearchSpace([METHOD, DISCRIMINATOR, RANK, BATCH]).branches())
    assert branches == [
        {"method.name": "source_only"},
        {"method.name": "adversarial", "method.discriminator": "fcd"},
        {"method.name": "adversarial", "method.discriminator": "tfd"},
        {"method.name": "target_only"},
    ]
    assert list(SearchSpace([BATCH]).branches()) == [{}]


def test_a_grandchild_does_not_exist_without_its_parent():
    assert not RANK.is_active({"method.name": "source_only"})
    assert RANK.is_active({"method.name": "adversarial", "method.discriminator": "tfd"})


def test_all_conditions_must_hold():
    item = Parameter("x", BATCH.distribution, {"a": (1, 2), "b": (3,)})
    assert item.is_active({"a": 2, "b": 3})
    assert not item.is_active({"a": 2, "b": 4})
    assert not item.is_active({"b": 3})


@pytest.mark.parametrize(
    "params",
    [
        {"method.name": "source_only"},
        {"method.name": "source_only", "batch_size": 4, "method.discriminator": "fcd"},
        {"method.name": "adversarial", "batch_size": 4},
        {"method.name": "source_only", "batch_size": 5},
        {"method.name": "source_only", "batch_size": True},
        {"method.name": "source_only", "batch_size": 4, "other": 1},
    ],
)
def test_parameters_that_could_not_have_come_out_are_recognized(params):
    assert not SearchSpace([METHOD, DISCRIMINATOR, BATCH]).contains(params)


def test_true_is_not_one():
    assert Categorical((True, False)).contains(True)
    assert not Categorical((True, False)).contains(1)
    assert not Int(0, 5).contains(True)
    assert not Float(0, 5).contains(True)


@given(st.integers(-50, 50), st.integers(1, 10), st.integers(1, 20))
def test_stepped_ranges_contain_exactly_their_values(low, step, count):
    numbers = Int(low, low + step * count, step=step)
    assert [value for value in range(low - 3, low + step * count + 4) if numbers.contains(value)] == list(
        numbers.values()
    )


def test_the_last_value_of_a_stepped_range_is_its_end():
    values = Float(0.1, 0.7, step=0.1).values()
    assert values == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert max(values) == 0.7


def test_the_table_is_readable():
    rows = SearchSpace([METHOD, DISCRIMINATOR, RANK, LR, Parameter("f", Categorical((True, None)))]).describe()
    assert [(row.path, row.kind, row.range, row.condition) for row in rows] == [
        ("method.name", "categorical", "source_only, adversarial, target_only", ""),
        ("method.discriminator", "categorical", "fcd, tfd", "method.name is adversarial"),
        ("method.rank", "int", "1 to 5, step 2", "method.discriminator is tfd"),
        ("optimizer.lr", "float", "0.001 to 0.1, log scale", ""),
        ("f", "categorical", "true, null", ""),
    ]


@pytest.mark.parametrize(
    ("condition", "location", "message"),
    [
        ({"method.nam": ("a",)}, ("x", "when", "method.nam"), r"not searched \(did you mean 'method.name'\?\)"),
        ({"method.name": ("advers",)}, ("x", "when", "method.name"), r"is never advers"),
        ({"optimizer.lr": (0.1,)}, ("x", "when", "optimizer.lr"), r"range of real numbers"),
        ({"x": (4,)}, ("x", "when"), r"wait for each other"),
    ],
)
def test_conditions_that_cannot_hold_are_refused(condition, location, message):
    with pytest.raises(LocatedError, match=message) as error:
        SearchSpace([METHOD, LR, Parameter("x", BATCH.distribution, condition)])
    assert error.value.location == location


@pytest.mark.parametrize(
    "item",
    [
        {"choices": ["a", True, None, 1.5]},
        {"low": 0.0, "high": 1.0},
        {"low": 0, "high": 8, "int": True, "step": 2, "when": {"a": ["b"]}},
        {"low": 1e-5, "high": 1e-1, "log": True},
    ],
)
def test_a_range_comes_back_from_plain_data(item):
    searched = Searched.model_validate(item)
    assert Searched.model_validate(searched.model_dump(mode="json", by_alias=True)) == searched
