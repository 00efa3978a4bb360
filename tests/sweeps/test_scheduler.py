import math
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from rules import asha, median_rule

from segda.schema_keys import resolved
from sweeps.file.schema import sweep_schema
from sweeps.file.spec import SweepSpec
from sweeps.schedulers import SCHEDULERS
from sweeps.schedulers.asha import Asha, AshaConfig
from sweeps.schedulers.median import Median, MedianConfig
from sweeps.schedulers.no_scheduler import NoScheduler, NoSchedulerConfig
from sweeps.schedulers.rungs import RungValues

values = st.floats(min_value=0, max_value=1, allow_nan=False)


def run(scheduler, sequence, step):
    """Let trials reach one rung one after the other; return which ones stopped."""
    rungs, stopped = {step: {}}, []
    for number, value in enumerate(sequence):
        rungs[step][number] = value
        if scheduler.decide(step, value, rungs, number=number).stop:
            stopped.append(number)
    return stopped


@pytest.mark.parametrize(
    ("factor", "low", "high", "steps"),
    [(3, 100, 900, (100, 300)), (3, 100, 901, (100, 300, 900)), (2, 1, 8, (1, 2, 4)), (4, 50, 51, (50,))],
)
def test_rungs_grow_by_the_factor_and_leave_the_last_step_out(factor, low, high, steps):
    assert asha(factor, low, high).rung_steps == steps


def test_nobody_stops_while_a_rung_has_fewer_values_than_the_factor():
    assert run(asha(3, 1, 9), [0.9, 0.1], 1) == []


def test_the_third_and_worst_of_three_stops():
    assert run(asha(3, 1, 9), [0.5, 0.6, 0.1], 1) == [2]


def test_a_hand_worked_sequence():
    # n:        1    2    3(1)  4(1)  5(1)  6(2)  7(2)  - in brackets how many may go on
    sequence = [0.5, 0.4, 0.45, 0.60, 0.55, 0.58, 0.59]
    # better:   -    -    1     0     1     1     1
    assert run(asha(3, 1, 9), sequence, 1) == [2, 4]


def test_steps_between_rungs_stop_nobody():
    rungs = {1: {0: 0.9, 1: 0.8, 2: 0.7}}
    assert not asha(3, 1, 9).decide(2, 0.0, rungs, number=3).stop


@pytest.mark.parametrize("scheduler", [asha(3, 1, 9), median_rule(4, 1, 9, report_every=3)], ids=["asha", "median"])
def test_not_a_number_stops_at_any_step(scheduler):
    assert scheduler.decide(1, math.nan, {1: {0: math.nan}}, number=0).stop
    assert scheduler.decide(2, math.nan, {}, number=0).stop


def test_a_trial_that_is_not_a_number_counts_as_worst():
    assert run(asha(2, 1, 9), [math.nan, 0.1], 1) == [0]
    assert run(asha(2, 1, 9), [0.9, math.nan, 0.5], 1) == [1, 2]


def test_the_reason_has_the_figures():
    decision = asha(3, 10, 90).decide(10, 0.1, {10: {0: 0.5, 1: 0.6, 2: 0.1}}, number=2)
    assert decision.reason == "2 of 2 other trials were better than 0.1 at step 10; 1 of 3 may go on"


def test_other_rungs_do_not_matter_to_asha():
    rungs = {1: {0: 0.9, 1: 0.8, 2: 0.7}, 3: {0: 0.2, 1: 0.1}}
    assert not asha(3, 1, 27).decide(3, 0.1, rungs, number=1).stop


@given(st.lists(values, min_size=1, max_size=60), st.integers(2, 5))
def test_the_best_so_far_never_stops(sequence, factor):
    stopped = run(asha(factor, 1, 10), sequence, 1)
    assert all(sequence[number] < max(sequence[: number + 1]) for number in stopped)


@given(st.lists(values, min_size=1, max_size=60, unique=True), st.integers(2, 5))
def test_among_ascending_values_nobody_stops(sequence, factor):
    assert run(asha(factor, 1, 10), sorted(sequence), 1) == []


@given(st.lists(values, min_size=1, max_size=60, unique=True), st.integers(2, 5))
def test_among_descending_values_only_the_first_few_go_on(sequence, factor):
    stopped = run(asha(factor, 1, 10), sorted(sequence, reverse=True), 1)
    assert len(sequence) - len(stopped) == min(len(sequence), factor - 1)


@given(st.lists(values, min_size=1, max_size=60, unique=True), st.integers(2, 5))
def test_a_trial_goes_on_exactly_if_it_is_among_the_best_share(sequence, factor):
    scheduler = asha(factor, 1, 10)
    rungs = {1: dict(enumerate(sequence))}
    going = sum(not scheduler.decide(1, value, rungs, number=number).stop for number, value in enumerate(sequence))
    assert going == (len(sequence) if len(sequence) < factor else len(sequence) // factor)


@pytest.mark.parametrize(
    ("config", "key", "value"),
    [
        (AshaConfig, "reduction_factor", 1),
        (AshaConfig, "min_steps", 0),
        (MedianConfig, "min_trials", 0),
        (MedianConfig, "min_steps", 0),
    ],
)
def test_settings_out_of_range_are_refused(config, key, value):
    with pytest.raises(ValidationError, match=key):
        config(**{key: value})


@pytest.mark.parametrize(
    ("low", "every", "steps"),
    [(100, 100, [100, 200, 300]), (150, 100, [200, 300]), (1, 150, [150, 300])],
)
def test_median_compares_at_every_report_but_the_last(low, every, steps):
    assert list(median_rule(1, low, 400, report_every=every).rung_steps) == steps


def test_median_spares_everybody_until_enough_others_came_as_far():
    rungs = {1: {0: 0.9, 1: 0.9, 2: 0.9, 3: 0.1}, 2: {0: 0.9, 1: 0.9, 3: 0.1}}
    scheduler = median_rule(3, 1, 9)
    assert scheduler.decide(1, 0.1, rungs, number=3).stop
    assert not scheduler.decide(2, 0.1, rungs, number=3).stop


def test_median_holds_the_best_value_so_far_against_the_averages_of_the_others():
    # The others' averages up to step 2: 0.3, 0.5, 0.7; their present values would be 0.5, 0.7, 0.9.
    rungs = {1: {0: 0.1, 1: 0.3, 2: 0.5}, 2: {0: 0.5, 1: 0.7, 2: 0.9}, 3: {0: 1.0, 1: 1.0, 2: 1.0}}
    scheduler = median_rule(3, 1, 9)
    assert not scheduler.decide(2, 0.5, rungs, number=3).stop  # equal to the median
    assert scheduler.decide(2, 0.49, rungs, number=3).stop
    rungs[1][3] = 0.6
    assert not scheduler.decide(2, 0.49, rungs, number=3).stop  # it was better before


def test_median_says_what_it_compared():
    rungs = {10: {0: 0.4, 1: 0.6, 2: 0.8, 3: 0.2}}
    decision = median_rule(3, 10, 90, report_every=10).decide(10, 0.2, rungs, number=3)
    assert decision.reason == (
        "its best value 0.2 up to step 10 is worse than 0.6, the median of the averages of 3 other trials"
    )


def test_median_counts_not_a_number_as_worst():
    scheduler = median_rule(1, 1, 9)
    assert not scheduler.decide(1, 0.1, {1: {0: math.nan}}, number=1).stop
    assert scheduler.decide(1, 0.1, {1: {0: math.nan, 2: 0.9, 3: 0.9}}, number=1).stop


@given(st.lists(values, min_size=2, max_size=40), st.integers(1, 5))
def test_at_one_rung_median_stops_exactly_what_is_below_the_median_of_the_others(sequence, min_trials):
    scheduler = median_rule(min_trials, 1, 9)
    rungs = {1: dict(enumerate(sequence))}
    for number, value in enumerate(sequence):
        others = sequence[:number] + sequence[number + 1 :]
        expected = len(others) >= min_trials and value < median(others)
        assert scheduler.decide(1, value, rungs, number=number).stop is expected


@pytest.mark.parametrize("scheduler", [asha(2, 1, 9), median_rule(1, 1, 9)], ids=["asha", "median"])
def test_only_rivals_stop_a_trial(scheduler):
    rungs = {1: {0: 0.9, 1: 0.8, 2: 0.1, 3: 0.05}}
    assert scheduler.decide(1, 0.1, rungs, number=2).stop
    assert not scheduler.decide(1, 0.1, rungs, number=2, rivals=frozenset({3})).stop
    assert not scheduler.decide(1, 0.1, rungs, number=2, rivals=frozenset()).stop
    assert scheduler.decide(1, 0.1, rungs, number=2, rivals=frozenset({0, 1, 7})).stop


def test_without_a_scheduler_nobody_stops():
    scheduler = NoScheduler(NoSchedulerConfig(), steps=9, report_every=1)
    assert list(scheduler.rung_steps) == []
    assert scheduler.endings() == {9: 1.0}


def test_the_sweep_file_decides_on_the_scheduler(make_spec):
    assert isinstance(make_spec().build_scheduler(), NoScheduler)
    built = make_spec(scheduler={"name": "asha", "reduction_factor": 2, "min_steps": 1}).build_scheduler()
    assert isinstance(built, Asha)
    assert list(built.rung_steps) == [1, 2, 4]
    built = make_spec(scheduler={"name": "median", "min_steps": 3, "min_trials": 2}).build_scheduler()
    assert isinstance(built, Median)
    assert list(built.rung_steps) == [3, 4, 5]
    base = make_spec().base | {"steps": 300}
    del base["report_every"]
    built = make_spec(base=base, scheduler={"name": "median", "min_steps": 3}).build_scheduler()
    assert list(built.rung_steps) == [100, 200]


def test_rungs_follow_from_what_was_reported_and_the_first_report_counts():
    values = RungValues(asha(2, 2, 9), selection="source_validation")
    for number, step, miou in ((0, 1, 0.1), (0, 2, 0.2), (1, 2, 0.3), (0, 2, 0.9), (0, 4, math.nan)):
        values.add(number, step, {"source/val/miou": miou})
    values.add(2, 2, {"source/val/pixel_accuracy": 0.5})
    assert values.values == {2: {0: 0.2, 1: 0.3}, 4: {0: pytest.approx(math.nan, nan_ok=True)}}


def test_rungs_see_no_metric_made_from_target_labels_unless_the_sweep_says_so():
    config = AshaConfig(metric="oracle/target/miou", min_steps=1)
    scheduler = Asha(config, steps=9, report_every=1)
    for selection, expected in (("source_validation", {}), ("oracle", {1: {0: 0.5}})):
        values = RungValues(scheduler, selection=selection)
        values.add(0, 1, {"oracle/target/miou": 0.5})
        assert values.values == expected


@pytest.fixture(params=SCHEDULERS)
def scheduler(request):
    kind = SCHEDULERS[request.param]
    return kind(kind.Config(), steps=2000, report_every=100)


def test_every_scheduler_compares_at_reports_before_the_last_step(scheduler):
    rungs = list(scheduler.rung_steps)
    assert rungs == sorted(set(rungs))
    assert all(0 < rung < 2000 and rung % 100 == 0 for rung in rungs)
    assert bool(rungs) is not isinstance(scheduler, NoScheduler)


def test_every_scheduler_plans_with_shares_that_end_at_rungs_or_at_the_end(scheduler):
    endings = scheduler.endings()
    assert endings.keys() <= {*scheduler.rung_steps, 2000}
    assert sum(endings.values()) == pytest.approx(1)
    assert all(share > 0 for share in endings.values())
    assert scheduler.assumption


@pytest.mark.parametrize("scheduler", [asha(3, 100, 2000), median_rule(4, 100, 2000)], ids=["asha", "median"])
@given(st.lists(values, min_size=1, max_size=20), st.randoms())
def test_every_scheduler_of_one_metric_spares_the_best_and_heeds_neither_order_nor_the_future(
    scheduler, sequence, random
):
    numbers = list(range(len(sequence)))
    random.shuffle(numbers)
    for step in list(scheduler.rung_steps)[:1]:
        rung = dict(enumerate(sequence))
        shuffled = {step: {number: rung[number] for number in numbers}, 2000: dict.fromkeys(numbers, 1.0)}
        for number, value in rung.items():
            decision = scheduler.decide(step, value, {step: rung}, number=number)
            assert decision == scheduler.decide(step, value, shuffled, number=number)
            assert bool(decision.reason) is decision.stop
            assert not (decision.stop and value == max(sequence))
            assert not scheduler.decide(step, value, {step: rung}, number=number, rivals=frozenset()).stop


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_is_read_from_a_sweep_file_with_its_settings_and_written_back(make_spec, name):
    base = make_spec().base | {"steps": 2000, "report_every": 100}
    spec = make_spec(base=base, scheduler={"name": name})
    config = SCHEDULERS[name].Config
    assert type(spec.scheduler) is config
    assert spec.canonical()["scheduler"].keys() == config.model_fields.keys()
    assert SweepSpec.model_validate(spec.canonical()) == spec
    schema = sweep_schema()
    cases = schema["properties"]["scheduler"]["allOf"]
    case = next(case["then"] for case in cases if case["if"]["properties"]["name"]["const"] == name)
    assert resolved(case, schema)["properties"].keys() == config.model_fields.keys()
