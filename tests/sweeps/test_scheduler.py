import math
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.schedulers.stopping import Asha, Median, NoScheduler, build_scheduler, rung_steps

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
    [(3, 100, 900, (100, 300)), (3, 100, 901, (100, 300, 900)), (2, 1, 8, (1, 2, 4)), (4, 50, 50, ())],
)
def test_rungs_grow_by_the_factor_and_leave_the_last_step_out(factor, low, high, steps):
    assert rung_steps(factor, low, high) == steps
    assert Asha(factor, low, high).rung_steps == steps


def test_nobody_stops_while_a_rung_has_fewer_values_than_the_factor():
    assert run(Asha(3, 1, 9), [0.9, 0.1], 1) == []


def test_the_third_and_worst_of_three_stops():
    assert run(Asha(3, 1, 9), [0.5, 0.6, 0.1], 1) == [2]


def test_a_hand_worked_sequence():
    # n:        1    2    3(1)  4(1)  5(1)  6(2)  7(2)  - in brackets how many may go on
    sequence = [0.5, 0.4, 0.45, 0.60, 0.55, 0.58, 0.59]
    # better:   -    -    1     0     1     1     1
    assert run(Asha(3, 1, 9), sequence, 1) == [2, 4]


def test_smaller_is_better_when_minimizing():
    sequence = [0.5, 0.6, 0.1, 0.9]
    assert run(Asha(3, 1, 9, "minimize"), sequence, 1) == [3]
    assert run(Asha(3, 1, 9, "maximize"), sequence, 1) == [2]


def test_steps_between_rungs_stop_nobody():
    rungs = {1: {0: 0.9, 1: 0.8, 2: 0.7}}
    assert not Asha(3, 1, 9).decide(2, 0.0, rungs, number=3).stop


@pytest.mark.parametrize("scheduler", [Asha(3, 1, 9), Median(4, 1, 9, report_every=3)], ids=["asha", "median"])
def test_not_a_number_stops_at_any_step(scheduler):
    assert scheduler.decide(1, math.nan, {1: {0: math.nan}}, number=0).stop
    assert scheduler.decide(2, math.nan, {}, number=0).stop


def test_a_trial_that_is_not_a_number_counts_as_worst():
    assert run(Asha(2, 1, 9), [math.nan, 0.1], 1) == [0]
    assert run(Asha(2, 1, 9), [0.9, math.nan, 0.5], 1) == [1, 2]


def test_the_reason_has_the_figures():
    decision = Asha(3, 10, 90).decide(10, 0.1, {10: {0: 0.5, 1: 0.6, 2: 0.1}}, number=2)
    assert decision.reason == "2 of 2 other trials were better than 0.1 at step 10; 1 of 3 may go on"


def test_other_rungs_do_not_matter_to_asha():
    rungs = {1: {0: 0.9, 1: 0.8, 2: 0.7}, 3: {0: 0.2, 1: 0.1}}
    assert not Asha(3, 1, 27).decide(3, 0.1, rungs, number=1).stop


@given(st.lists(values, min_size=1, max_size=60), st.integers(2, 5))
def test_the_best_so_far_never_stops(sequence, factor):
    stopped = run(Asha(factor, 1, 10), sequence, 1)
    assert all(sequence[number] < max(sequence[: number + 1]) for number in stopped)


@given(st.lists(values, min_size=1, max_size=60, unique=True), st.integers(2, 5))
def test_among_ascending_values_nobody_stops(sequence, factor):
    assert run(Asha(factor, 1, 10), sorted(sequence), 1) == []


@given(st.lists(values, min_size=1, max_size=60, unique=True), st.integers(2, 5))
def test_among_descending_values_only_the_first_few_go_on(sequence, factor):
    stopped = run(Asha(factor, 1, 10), sorted(sequence, reverse=True), 1)
    assert len(sequence) - len(stopped) == min(len(sequence), factor - 1)


@given(st.lists(values, min_size=1, max_size=60, unique=True), st.integers(2, 5))
def test_a_trial_goes_on_exactly_if_it_is_among_the_best_share(sequence, factor):
    asha = Asha(factor, 1, 10)
    rungs = {1: dict(enumerate(sequence))}
    going = sum(not asha.decide(1, value, rungs, number=number).stop for number, value in enumerate(sequence))
    assert going == (len(sequence) if len(sequence) < factor else len(sequence) // factor)


@given(st.lists(values, min_size=1, max_size=40), st.integers(2, 5))
def test_maximizing_is_minimizing_the_negative(sequence, factor):
    negative = [-value for value in sequence]
    assert run(Asha(factor, 1, 9), sequence, 1) == run(Asha(factor, 1, 9, "minimize"), negative, 1)
    one, other = (Median(2, 1, 9, report_every=1, direction=direction) for direction in ("maximize", "minimize"))
    assert run(one, sequence, 1) == run(other, negative, 1)


@pytest.mark.parametrize("arguments", [(1, 1, 9), (3, 0, 9), (3, 1, 9, "up")])
def test_impossible_settings_of_asha_are_refused(arguments):
    with pytest.raises(ValueError, match=r"must be"):
        Asha(*arguments)


@pytest.mark.parametrize("changes", [{"min_trials": 0}, {"min_steps": 0}, {"report_every": 0}, {"direction": "up"}])
def test_impossible_settings_of_median_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        Median(**{"min_trials": 1, "min_steps": 1, "max_steps": 9, "report_every": 1} | changes)


@pytest.mark.parametrize(
    ("low", "every", "steps"),
    [(100, 100, [100, 200, 300]), (150, 100, [200, 300]), (1, 150, [150, 300]), (400, 100, [])],
)
def test_median_compares_at_every_report_but_the_last(low, every, steps):
    assert list(Median(1, low, 400, report_every=every).rung_steps) == steps


def test_median_spares_everybody_until_enough_others_came_as_far():
    rungs = {1: {0: 0.9, 1: 0.9, 2: 0.9, 3: 0.1}, 2: {0: 0.9, 1: 0.9, 3: 0.1}}
    scheduler = Median(3, 1, 9, report_every=1)
    assert scheduler.decide(1, 0.1, rungs, number=3).stop
    assert not scheduler.decide(2, 0.1, rungs, number=3).stop


def test_median_holds_the_best_value_so_far_against_the_averages_of_the_others():
    # The others' averages up to step 2: 0.3, 0.5, 0.7; their present values would be 0.5, 0.7, 0.9.
    rungs = {1: {0: 0.1, 1: 0.3, 2: 0.5}, 2: {0: 0.5, 1: 0.7, 2: 0.9}, 3: {0: 1.0, 1: 1.0, 2: 1.0}}
    scheduler = Median(3, 1, 9, report_every=1)
    assert not scheduler.decide(2, 0.5, rungs, number=3).stop  # equal to the median
    assert scheduler.decide(2, 0.49, rungs, number=3).stop
    rungs[1][3] = 0.6
    assert not scheduler.decide(2, 0.49, rungs, number=3).stop  # it was better before


def test_median_says_what_it_compared():
    rungs = {10: {0: 0.4, 1: 0.6, 2: 0.8, 3: 0.2}}
    decision = Median(3, 10, 90, report_every=10).decide(10, 0.2, rungs, number=3)
    assert decision.reason == (
        "its best value 0.2 up to step 10 is worse than 0.6, the median of the averages of 3 other trials"
    )


def test_median_counts_not_a_number_as_worst():
    scheduler = Median(1, 1, 9, report_every=1)
    assert not scheduler.decide(1, 0.1, {1: {0: math.nan}}, number=1).stop
    assert scheduler.decide(1, 0.1, {1: {0: math.nan, 2: 0.9, 3: 0.9}}, number=1).stop


@given(st.lists(values, min_size=2, max_size=40), st.integers(1, 5))
def test_at_one_rung_median_stops_exactly_what_is_below_the_median_of_the_others(sequence, min_trials):
    scheduler = Median(min_trials, 1, 9, report_every=1)
    rungs = {1: dict(enumerate(sequence))}
    for number, value in enumerate(sequence):
        others = sequence[:number] + sequence[number + 1 :]
        expected = len(others) >= min_trials and value < median(others)
        assert scheduler.decide(1, value, rungs, number=number).stop is expected


@pytest.mark.parametrize("scheduler", [Asha(2, 1, 9), Median(1, 1, 9, report_every=1)], ids=["asha", "median"])
def test_only_rivals_stop_a_trial(scheduler):
    rungs = {1: {0: 0.9, 1: 0.8, 2: 0.1, 3: 0.05}}
    assert scheduler.decide(1, 0.1, rungs, number=2).stop
    assert not scheduler.decide(1, 0.1, rungs, number=2, rivals=frozenset({3})).stop
    assert not scheduler.decide(1, 0.1, rungs, number=2, rivals=frozenset()).stop
    assert scheduler.decide(1, 0.1, rungs, number=2, rivals=frozenset({0, 1, 7})).stop


def test_without_a_scheduler_nobody_stops():
    assert list(NoScheduler().rung_steps) == []
    assert not NoScheduler().decide(1, 0.0, {1: {0: 0.9, 1: 0.9, 2: 0.0}}, number=2).stop


def test_the_sweep_file_decides_on_the_scheduler(make_spec):
    assert isinstance(build_scheduler(make_spec()), NoScheduler)
    built = build_scheduler(make_spec(scheduler={"name": "asha", "reduction_factor": 2, "min_steps": 1}))
    assert isinstance(built, Asha)
    assert list(built.rung_steps) == [1, 2, 4]
    built = build_scheduler(make_spec(scheduler={"name": "median", "min_steps": 3, "min_trials": 2}))
    assert isinstance(built, Median)
    assert list(built.rung_steps) == [3, 4, 5]
    base = make_spec().base | {"steps": 300}
    del base["report_every"]
    built = build_scheduler(make_spec(base=base, scheduler={"name": "median", "min_steps": 3}))
    assert list(built.rung_steps) == [100, 200]
