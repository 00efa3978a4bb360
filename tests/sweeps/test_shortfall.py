"""Whether a sweep that has used its budget found what was asked for."""

import pytest
from records import trial

from sweeps.failures import FailureClass
from sweeps.selection.shortfall import shortfall_of
from sweeps.trial import TrialKind, TrialState

GOOD = {"source/val/miou": 0.5, "target/largest_class_share": 0.5, "target/missing_classes": 0.0}


def complete(number, **changes):
    return trial(number, **{"metrics": GOOD} | changes)


def failed(number, failure=FailureClass.DIVERGED):
    return trial(number, state=TrialState.FAILED, failure=failure, error="NaN at step 3", worker="node1:7")


def test_a_sweep_that_found_a_network_falls_not_short(make_spec):
    assert shortfall_of([complete(0), complete(1), failed(2)], make_spec()) is None
    assert shortfall_of([], make_spec()) is None


def test_half_of_the_trained_trials_that_failed_are_too_many_and_the_cause_is_named(make_spec):
    trials = [complete(0), failed(1), failed(2, FailureClass.DATA), failed(3), trial(4, state=TrialState.INFEASIBLE)]
    pruned = [trial(5, state=TrialState.PRUNED), trial(6, state=TrialState.PRUNED)]
    assert shortfall_of([*trials, pruned[0]], make_spec()) == (
        "3 of 5 trained trials failed, most often by diverged (2 of 3), last trial 3 on node1:7: NaN at step 3"
    )
    assert shortfall_of([complete(0), failed(1), *pruned], make_spec()) is None


@pytest.mark.parametrize(
    "trials",
    [
        [trial(0, state=TrialState.INFEASIBLE)],
        [trial(0, state=TrialState.PRUNED)],
        [complete(0, metrics=GOOD | {"target/largest_class_share": 1.0})],
        [complete(0, kind=TrialKind.REFERENCE, name="bound")],
    ],
    ids=["infeasible", "pruned", "collapsed", "reference"],
)
def test_a_sweep_of_which_nothing_can_be_picked_falls_short(make_spec, trials):
    assert shortfall_of(trials, make_spec()).startswith("No trial can be picked")
