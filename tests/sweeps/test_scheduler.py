import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.scheduler import Asha, NoScheduler, build_scheduler, rung_steps

values = st.floats(min_value=0, max_value=1, allow_nan=False)


def run(asha, sequence, step):
    """Let trials reach one rung one after the other; return which ones stopped."""
    rungs, stopped = {step: {}}, []
    for number, value in enumerate(sequence):
        rungs[step][number] = value
        if asha.decide(step, value, rungs).stop:
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
    assert not Asha(3, 1, 9).decide(2, 0.0, rungs).stop


def test_not_a_number_stops_at_any_step():
    asha = Asha(3, 1, 9)
    assert asha.decide(1, math.nan, {1: {0: math.nan}}).stop
    assert asha.decide(2, math.nan, {}).stop


def test_a_trial_that_is_not_a_number_counts_as_worst():
    assert run(Asha(2, 1, 9), [math.nan, 0.1], 1) == [0]
    assert run(Asha(2, 1, 9), [0.9, math.nan, 0.5], 1) == [1, 2]


def test_the_reason_has_the_figures():
    decision = Asha(3, 10, 90).decide(10, 0.1, {10: {0: 0.5, 1: 0.6, 2: 0.1}})
    assert decision.reason == "2 of 3 trials were better than 0.1 at step 10; 1 may go on"


def test_other_rungs_do_not_matter():
    rungs = {1: {0: 0.9, 1: 0.8, 2: 0.7}, 3: {0: 0.2, 1: 0.1}}
    assert not Asha(3, 1, 27).decide(3, 0.1, rungs).stop


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
    going = sum(not asha.decide(1, value, rungs).stop for value in sequence)
    assert going == (len(sequence) if len(sequence) < factor else len(sequence) // factor)


@given(st.lists(values, min_size=1, max_size=40), st.integers(2, 5))
def test_maximizing_is_minimizing_the_negative(sequence, factor):
    negative = [-value for value in sequence]
    assert run(Asha(factor, 1, 9), sequence, 1) == run(Asha(factor, 1, 9, "minimize"), negative, 1)


@pytest.mark.parametrize("arguments", [(1, 1, 9), (3, 0, 9), (3, 1, 9, "up")])
def test_impossible_settings_are_refused(arguments):
    with pytest.raises(ValueError, match=r"must be"):
        Asha(*arguments)


def test_without_a_scheduler_nobody_stops():
    assert NoScheduler().rung_steps == ()
    assert not NoScheduler().decide(1, 0.0, {1: {0: 0.9, 1: 0.9, 2: 0.0}}).stop


def test_the_sweep_file_decides_on_the_scheduler(make_spec):
    assert isinstance(build_scheduler(make_spec()), NoScheduler)
    built = build_scheduler(make_spec(scheduler={"name": "asha", "reduction_factor": 2, "min_steps": 1}))
    assert built.rung_steps == (1, 2, 4)
