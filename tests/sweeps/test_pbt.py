"""Population based training: who is replaced by whose copy, with which settings."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.schedulers.lineage import changes_of, first_values, forked_at, values_at, with_changes
from sweeps.schedulers.pbt import FACTORS, Pbt, Replacement, explored
from sweeps.space import Categorical, Float, Int, Parameter, SearchSpace

SPACE = SearchSpace(
    [
        Parameter("optimizer.lr", Float(1e-4, 1e-1, log=True)),
        Parameter("method.lambda_adv", Float(0.0, 1.0), {"method.name": ("adversarial",)}),
        Parameter("method.name", Categorical(("adversarial", "source_only"))),
        Parameter("optimizer.momentum", Float(0.0, 0.9)),
        Parameter("batch_size", Int(4, 16)),
    ]
)
DONOR = {
    "optimizer.lr": 0.01,
    "method.name": "adversarial",
    "method.lambda_adv": 0.5,
    "optimizer.momentum": 0.9,
    "batch_size": 4,
}
values = st.lists(st.floats(0, 1), min_size=1, max_size=30, unique=True)


def make(**changes):
    return Pbt(SPACE, **({"interval": 10, "max_steps": 100, "quantile": 0.25, "resample": 0.25, "seed": 0} | changes))


def replacements(pbt, rung):
    decisions = {number: pbt.decide(10, value, {10: rung}, number=number) for number, value in rung.items()}
    return {number: decision.donor for number, decision in decisions.items() if isinstance(decision, Replacement)}


def test_the_worst_quarter_is_replaced_by_copies_of_the_best_quarter():
    rung = dict(enumerate([0.5, 0.8, 0.1, 0.6, 0.2, 0.9, 0.4, 0.7]))
    found = replacements(make(), rung)
    assert set(found) == {2, 4}
    assert set(found.values()) <= {1, 5}


@given(values, st.sampled_from([0.1, 0.25, 0.5]))
def test_a_share_is_replaced_by_strictly_better_ones(sequence, quantile):
    rung = dict(enumerate(sequence))
    found = replacements(make(quantile=quantile), rung)
    share = int(quantile * len(sequence))
    ordered = sorted(rung, key=rung.get)
    assert set(found) == set(ordered[:share])
    assert all(donor in ordered[len(ordered) - share :] for donor in found.values())


def test_equal_trials_are_left_alone():
    assert replacements(make(), dict.fromkeys(range(8), 0.5)) == {}


def test_between_comparisons_only_nan_stops_a_trial():
    pbt = make()
    rungs = {10: {0: 0.9, 1: 0.8, 2: 0.7, 3: 0.0}}
    assert not pbt.decide(11, 0.0, rungs, number=3).stop
    stopped = pbt.decide(11, math.nan, rungs, number=3)
    assert stopped.stop
    assert not isinstance(stopped, Replacement)
    assert list(pbt.rung_steps) == list(range(10, 100, 10))


def test_nan_at_a_comparison_is_replaced_and_never_copied():
    assert set(replacements(make(), {0: 0.9, 1: math.nan, 2: 0.5, 3: 0.6})) == {1}
    assert replacements(make(quantile=0.5), {0: math.nan, 1: math.nan, 2: math.nan, 3: 0.5}) == {}


def test_only_rivals_are_copied():
    pbt, rungs = make(quantile=0.5), {10: {0: 0.9, 1: 0.3, 2: 0.2}}
    assert pbt.decide(10, 0.2, rungs, number=2).donor == 0
    assert pbt.decide(10, 0.2, rungs, number=2, rivals=frozenset({1})).donor == 1
    assert not pbt.decide(10, 0.2, rungs, number=2, rivals=frozenset()).stop


def test_decisions_and_draws_are_the_same_after_a_restart():
    rung = {number: number / 40 for number in range(40)}
    assert replacements(make(), rung) == replacements(make(), rung)
    assert replacements(make(), rung) != replacements(make(seed=1), rung)
    assert make().explore(DONOR, number=3, step=10) == make().explore(DONOR, number=3, step=10)
    assert make().explore(DONOR, number=3, step=10) != make().explore(DONOR, number=4, step=10)


def test_the_reason_names_donor_and_figures():
    decision = make().decide(10, 0.1, {10: {0: 0.9, 1: 0.5, 2: 0.6, 3: 0.1}}, number=3)
    assert decision.reason == "0.1 at step 10 is among the worst 1 of 4; replaced by a copy of trial 0, which had 0.9"


def test_only_ranges_that_may_change_on_the_way_are_explored():
    assert [item.path for item in explored(SPACE)] == ["optimizer.lr", "method.lambda_adv"]


def test_a_copy_has_its_donors_settings_and_new_ones_from_its_step_on():
    params = make(resample=0.0).explore(DONOR, number=3, step=10)
    assert first_values(params) == DONOR
    assert set(params) - set(DONOR) == {"optimizer.lr@10", "method.lambda_adv@10"}
    assert any(params["optimizer.lr@10"] == pytest.approx(0.01 * factor) for factor in FACTORS)
    assert any(params["method.lambda_adv@10"] == pytest.approx(0.5 * factor) for factor in FACTORS)


def test_a_setting_that_the_donor_does_not_have_is_not_made_up():
    donor = {"optimizer.lr": 0.01, "method.name": "source_only"}
    assert set(make().explore(donor, number=3, step=10)) == {*donor, "optimizer.lr@10"}


def test_a_copy_of_a_copy_goes_on_from_the_values_in_force():
    once = make(resample=0.0).explore(DONOR, number=3, step=10)
    twice = make(resample=0.0).explore(once, number=5, step=20)
    assert {path: twice[path] for path in once} == once
    assert any(twice["optimizer.lr@20"] == pytest.approx(once["optimizer.lr@10"] * factor) for factor in FACTORS)
    with pytest.raises(ValueError, match="cannot be copied at step 20"):
        make().explore(twice, number=6, step=20)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([1e-4, 0.01, 1e-1]))
def test_settings_stay_in_their_ranges(number, resample, lr):
    params = make(resample=resample).explore(DONOR | {"optimizer.lr": lr}, number=number, step=10)
    assert 1e-4 <= params["optimizer.lr@10"] <= 1e-1
    assert 0.0 <= params["method.lambda_adv@10"] <= 1.0


def test_new_draws_follow_the_scale_of_the_range():
    drawn = [make(resample=1.0).explore(DONOR, number=number, step=10)["optimizer.lr@10"] for number in range(400)]
    below = sum(value < 10**-2.5 for value in drawn)  # the middle of the logarithmic range
    assert 160 < below < 240


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interval": 0}, "interval"),
        ({"quantile": 0.0}, "quantile"),
        ({"quantile": 0.6}, "quantile"),
        ({"resample": 1.5}, "resample"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_a_space_with_nothing_to_explore_is_refused():
    with pytest.raises(ValueError, match="nothing that is searched may change"):
        Pbt(
            SearchSpace([Parameter("batch_size", Int(4, 8))]), interval=1, max_steps=9, quantile=0.2, resample=0, seed=0
        )


def test_a_lineage_is_told_by_the_parameters():
    params = with_changes({"optimizer.lr": 0.02, "batch_size": 4}, {"optimizer.lr": 0.016}, step=300)
    params = with_changes(params, {"optimizer.lr": 0.0128}, step=600)
    assert [values_at(params, step)["optimizer.lr"] for step in (0, 299, 300, 600)] == [0.02, 0.02, 0.016, 0.0128]
    assert values_at(params, 600)["batch_size"] == 4
    assert [change["step"] for change in changes_of(params)] == [300, 600]
    assert (forked_at(params), forked_at(first_values(params))) == (600, 0)


def test_a_sweep_makes_a_whole_schedule_of_changing_parameters(make_spec):
    spec = make_spec()
    config = spec.train_config({"optimizer.lr": 0.02, "optimizer.lr@2": 0.016}, seed=0)
    assert [config.at(step).optimizer.lr for step in (0, 1, 2, 5)] == [0.02, 0.02, 0.016, 0.016]
    assert config.fingerprint() != spec.train_config({"optimizer.lr": 0.02}, seed=0).fingerprint()
