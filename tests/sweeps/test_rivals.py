"""Who may stop whom, and why no member of the Pareto front is lost to more expensive networks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rules import asha, median_rule

from sweeps.schedulers.rivals import rivals
from sweeps.schedulers.telling import pruning_rule
from sweeps.trial import TrialKind, TrialRecord

QUALITY = {"metric": "source/val/miou", "direction": "maximize"}
MACS = {"metric": "macs", "direction": "minimize"}
ASHA = {"name": "asha", "reduction_factor": 2, "min_steps": 1}


def record(number, kind=TrialKind.SEARCH, **profile):
    return TrialRecord(
        sweep="demo", number=number, key=f"{number}", kind=kind, params={}, config={}, seed=0, profile=profile
    )


def test_with_quality_alone_everybody_competes():
    assert rivals(record(0, macs=1.0), [record(1, macs=9.0)], costs={}) is None


def test_rivals_cost_no_more():
    costs = {"macs": "minimize"}
    records = [record(0, macs=3.0), record(1, macs=2.0), record(2, macs=3.0), record(3, macs=4.0)]
    assert rivals(records[0], records, costs=costs) == {1, 2}
    assert rivals(records[1], records, costs=costs) == set()
    assert rivals(records[3], records, costs=costs) == {0, 1, 2}


def test_rivals_are_at_least_as_good_in_every_cost():
    costs = {"macs": "minimize", "fps": "maximize"}
    records = [record(0, macs=3.0, fps=30.0), record(1, macs=2.0, fps=20.0), record(2, macs=2.0, fps=40.0)]
    assert rivals(records[0], records, costs=costs) == {2}


def test_a_latency_that_was_measured_in_company_makes_nobody_a_rival():
    sure, doubtful = {"latency_reliable": 1.0}, {"latency_reliable": 0.0}
    records = [
        record(0, latency_ms=30.0, **sure),
        record(1, latency_ms=10.0, **doubtful),
        record(2, latency_ms=20.0, **sure),
        record(3, latency_ms=90.0, **doubtful),
    ]
    assert rivals(records[0], records, costs={"latency_ms": "minimize"}) == {2}
    assert rivals(records[3], records, costs={"latency_ms": "minimize"}) == set()


@pytest.mark.parametrize("kind", [TrialKind.REFERENCE, TrialKind.REPLICATE])
def test_only_search_trials_are_rivals(kind):
    costs = {"macs": "minimize"}
    assert rivals(record(0, macs=1.0), [record(1, kind, macs=1.0)], costs=costs) == set()


def test_unknown_costs_make_no_rivals():
    costs = {"macs": "minimize"}
    known, unknown = record(0, macs=1.0), record(1, macs=float("nan"))
    assert rivals(known, [known, unknown], costs=costs) == set()
    assert rivals(unknown, [known, unknown], costs=costs) == set()


def test_a_reproducible_trial_depends_on_settled_ones_only():
    records = [record(number, macs=float(number)) for number in range(4)]
    assert rivals(records[3], records, costs={}, settled={0, 2, 3}) == {0, 2}
    assert rivals(records[2], records, costs={"macs": "minimize"}, settled={0, 3}) == {0}


@pytest.mark.parametrize("scheduler", [asha(2, 1, 9), median_rule(1, 1, 9)], ids=["asha", "median"])
def test_a_decision_over_settled_trials_is_the_same_whatever_the_others_have_reported(scheduler):
    records = [record(number) for number in range(4)]
    compared = rivals(records[2], records, costs={}, settled={0})
    early = scheduler.decide(1, 0.5, {1: {0: 0.4, 2: 0.5}}, number=2, rivals=compared)
    late = scheduler.decide(1, 0.5, {1: {0: 0.4, 1: 0.9, 2: 0.5, 3: 0.9}}, number=2, rivals=compared)
    assert early == late
    assert not late.stop


trials = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 5), st.floats(0.1, 1.0)),  # final quality, cost, speed of learning
    min_size=2,
    max_size=25,
)


def sweep(scheduler, drawn, curve, order):
    """Run trials side by side to step 8; return number -> (step of its end, those that had been better and no more expensive)."""
    records = [record(number, macs=float(cost)) for number, (_, cost, _) in enumerate(drawn)]
    rungs, ended = {}, {}
    for step in range(1, 8):
        for number in order:
            if number in ended:
                continue
            value = curve(drawn[number], step)
            if step in scheduler.rung_steps:
                rungs.setdefault(step, {})[number] = value
            compared = rivals(records[number], records, costs={"macs": "minimize"})
            if scheduler.decide(step, value, rungs, number=number, rivals=compared).stop:
                ended[number] = {
                    other
                    for past, values in rungs.items()
                    for other, reached in values.items()
                    if past <= step and reached > value and drawn[other][1] <= drawn[number][1]
                }
    return ended


def is_on_front(number, drawn):
    quality, cost, _ = drawn[number]
    return not any(
        other[0] >= quality and other[1] <= cost and (other[0] > quality or other[1] < cost)
        for index, other in enumerate(drawn)
        if index != number
    )


schedulers = st.sampled_from([asha(2, 1, 8), asha(3, 2, 8), median_rule(1, 1, 8), median_rule(3, 2, 8)])


@given(trials, schedulers, st.randoms())
def test_no_member_of_the_front_is_stopped_while_rungs_order_trials_as_the_end_does(drawn, scheduler, random):
    order = random.sample(range(len(drawn)), len(drawn))
    ended = sweep(scheduler, drawn, lambda trial, step: trial[0] * step / 8, order)
    assert not any(is_on_front(number, drawn) for number in ended)


@given(trials, schedulers, st.randoms())
def test_whatever_the_curves_a_stopped_trial_had_a_better_one_that_cost_no_more(drawn, scheduler, random):
    order = random.sample(range(len(drawn)), len(drawn))
    ended = sweep(scheduler, drawn, lambda trial, step: trial[0] * (step / 8) ** trial[2], order)
    assert all(ended.values())


def test_without_rivals_a_cheap_member_of_the_front_would_be_stopped():
    drawn = [(20, 5, 1.0), (18, 4, 1.0), (5, 1, 1.0)]
    assert is_on_front(2, drawn)
    assert asha(3, 1, 9).decide(1, 5.0, {1: {0: 20.0, 1: 18.0, 2: 5.0}}, number=2).stop
    assert sweep(asha(3, 1, 8), drawn, lambda trial, step: trial[0], [0, 1, 2]) == {}


def test_the_rule_is_told_with_its_reason(make_spec):
    def rule(**changes):
        spec = make_spec(**changes)
        return pruning_rule(spec.build_scheduler(), spec.costs, objectives=spec.trained_objectives)

    assert rule() == "pruning: none; every trial trains in full"
    assert rule(scheduler=ASHA) == "pruning: asha by source/val/miou alone"
    assert rule(scheduler=ASHA, objectives=[QUALITY, MACS]) == (
        "pruning: asha by source/val/miou alone, among trials at least as good in macs: a trial stops only where such ones are "
        "better, so that no network gives way to a more expensive one"
    )
