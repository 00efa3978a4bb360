"""Which changes of a sweep file a sweep that has begun can bear."""

import fakes
import pytest

from sweeps.checks.changes import Effect, changes_between
from sweeps.file.spec import SweepSpec


def spec(**changes):
    return SweepSpec.model_validate(fakes.plain_spec(**changes))


def base(**changes):
    return fakes.plain_spec()["base"] | changes


def test_equal_files_have_no_changes():
    assert changes_between(spec(), spec()) == []


@pytest.mark.parametrize(
    ("changes", "path", "effect"),
    [
        ({"budget": {"trials": 9, "concurrency": 2}}, "budget.trials", Effect.NONE),
        ({"budget": {"trials": 3, "concurrency": 1}}, "budget.concurrency", Effect.NONE),
        ({"resources": {"cpus": 2, "gpus": 0}}, "resources.cpus", Effect.NONE),
        ({"seeds": [0, 1]}, "seeds", Effect.NONE),
        ({"base": base(device="cpu")}, "base.device", Effect.NONE),
        (
            {"search": {"optimizer.lr": {"low": 1e-3, "high": 1.0, "log": True}}},
            "search.optimizer.lr.high",
            Effect.RULES,
        ),
        ({"sampler": {"name": "tpe"}}, "sampler.name", Effect.RULES),
        ({"constraints": ["macs <= 25e9"]}, "constraints", Effect.RULES),
        ({"base": base(steps=60)}, "base.steps", Effect.RESULTS),
        ({"base": base(batch_size=8)}, "base.batch_size", Effect.RESULTS),
        ({"seeds": [1]}, "seeds", Effect.RESULTS),
    ],
)
def test_each_change_is_judged_by_what_it_does_to_results(changes, path, effect):
    found = changes_between(spec(), spec(**changes))
    assert [(change.path, change.effect) for change in found] == [(path, effect)]


def test_moved_data_change_no_result():
    moved = base()
    moved["data"] = moved["data"] | {"source": moved["data"]["source"] | {"root": "/elsewhere"}}
    assert {change.effect for change in changes_between(spec(), spec(base=moved))} == {Effect.NONE}


def test_what_matters_most_comes_first_with_both_values():
    found = changes_between(spec(), spec(base=base(steps=60), budget={"trials": 9, "concurrency": 2}))
    assert [(change.path, change.before, change.after) for change in found] == [
        ("base.steps", "6", "60"),
        ("budget.trials", "3", "9"),
    ]


def test_trials_open_at_once_are_a_rule_where_proposals_depend_on_them():
    settings = {"sampler": {"name": "tpe", "reproducible": True}}
    found = changes_between(spec(**settings), spec(**settings, budget={"trials": 3, "concurrency": 1}))
    assert [(change.path, change.effect) for change in found] == [("budget.concurrency", Effect.RULES)]


def test_a_new_reference_is_trained():
    found = changes_between(spec(), spec(references={"low": {"optimizer.lr": 0.02}}))
    assert {change.effect for change in found} == {Effect.NONE}


@pytest.mark.parametrize("now", [{"optimizer.lr": 0.05}, {"optimizer.lr": 0.02, "optimizer.momentum": 0.8}, {}])
def test_a_reference_of_the_same_name_computes_something_else(now):
    found = changes_between(spec(references={"low": {"optimizer.lr": 0.02}}), spec(references={"low": now}))
    assert Effect.RESULTS in {change.effect for change in found}
