"""What a driver knows of its trials agrees with the whole list of them, whatever happened in which order."""

from hypothesis import given
from hypothesis import strategies as st
from records import trial

from sweeps.execution.trials import Trials
from sweeps.trial import TrialState

OPEN = st.sampled_from([TrialState.QUEUED, TrialState.RUNNING])
ENDED = st.sampled_from([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED, TrialState.INFEASIBLE])


@st.composite
def histories(draw):
    """Lists of records: open trials change their state, some end, and an end is told twice at times."""
    steps = []
    for number in draw(st.permutations(range(draw(st.integers(0, 6))))):
        seconds = 0.0
        for state in draw(st.lists(OPEN, max_size=4)):
            seconds += draw(st.integers(0, 9))
            steps.append(trial(number, state=state, seconds=seconds))
        if draw(st.booleans()):
            steps += [trial(number, state=draw(ENDED), seconds=seconds + 1)] * draw(st.integers(1, 2))
    return steps


@given(histories(), st.integers(0, 3))
def test_views_agree_with_the_whole_list(steps, known):
    trials = Trials(steps[:known])
    for record in steps[known:]:
        assert trials.put(record) is record
    newest = {record.number: record for record in steps}
    expected = [newest[number] for number in sorted(newest)]
    assert trials.in_order == expected
    assert trials.unfinished == [record for record in expected if not record.state.is_finished]
    assert trials.running == [record for record in expected if record.state is TrialState.RUNNING]
    assert trials.queued == [record for record in expected if record.state is TrialState.QUEUED]
    assert sum(trials.finished_seconds.values()) == sum(
        record.seconds for record in expected if record.state.is_finished
    )
    assert dict(trials.records) == newest
