import dataclasses

import pytest

from sweeps.trial import TrialKind, TrialRecord, TrialState, trial_key


def test_only_queued_and_running_trials_are_unfinished():
    assert {state for state in TrialState if not state.is_finished} == {TrialState.QUEUED, TrialState.RUNNING}


def test_the_key_does_not_depend_on_the_order_of_keys():
    assert trial_key({"a": 1, "b": {"c": 2, "d": 3}}, "data", "code") == trial_key(
        {"b": {"d": 3, "c": 2}, "a": 1}, "data", "code"
    )


@pytest.mark.parametrize(
    ("config", "data", "code"),
    [
        ({"a": 2}, "data", "code"),
        ({"a": 1}, "other", "code"),
        ({"a": 1, "seed": 0}, "data", "code"),
        ({"a": 1}, "data", "newer"),
    ],
)
def test_the_key_changes_with_whatever_decides_the_result(config, data, code):
    assert trial_key(config, data, code) != trial_key({"a": 1}, "data", "code")


def test_a_key_is_sixteen_hexadecimal_digits():
    key = trial_key({}, "", "")
    assert len(key) == 16
    assert int(key, 16) >= 0


def test_a_record_cannot_be_changed():
    record = TrialRecord(sweep="s", number=0, key="k", kind=TrialKind.SEARCH, params={}, config={}, seed=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.number = 1
