"""What a sweep does while nothing works and no trial is to blame, by a clock of the test's own."""

import pytest

from sweeps.execution.outage import FIRST_SECONDS, LONGEST_SECONDS, Failed, Outage
from sweeps.failures import FailureClass
from sweeps.ledger.records import OUTAGE, OUTAGE_OVER

LIMIT = 1800.0


class Clock:
    def __init__(self):
        self.now = 50.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def said():
    return []


@pytest.fixture
def outage(clock, said):
    return Outage(limit_seconds=LIMIT, say=lambda message, kind: said.append((kind, message)), clock=clock)


def failed(number):
    return Failed(number, FailureClass.DATA, "no such folder: /data", "node1:7")


def begin(outage):
    for number in (0, 1):
        outage.failed(failed(number), in_vain=False)
    assert outage.is_on


def test_one_trial_that_fails_may_be_alone_with_that(outage, said):
    for _ in range(3):
        outage.failed(failed(0), in_vain=False)
    assert not outage.is_on
    assert outage.may_hand_out
    assert said == []


def test_two_trials_that_fail_without_a_report_between_them_are_an_outage(outage, said):
    outage.failed(failed(0), in_vain=False)
    outage.reported(2)
    outage.failed(failed(1), in_vain=False)
    assert not outage.is_on
    outage.failed(failed(0), in_vain=False)
    assert outage.is_on
    ((kind, message),) = said
    assert kind == OUTAGE
    assert "nothing works now, last trial 0 on node1:7, data: no such folder: /data" in message
    assert "after 30 min 00 s without success the sweep ends to be resumed" in message
    assert message.endswith("see that every node can read the data")


def test_one_trial_that_has_used_up_its_tries_with_nobody_to_compare_with_is_an_outage(outage):
    outage.failed(failed(0), in_vain=True)
    assert outage.is_on


def test_one_trial_at_a_time_is_tried_after_intervals_that_double_up_to_a_limit(outage, clock, said):
    begin(outage)
    intervals = []
    for _ in range(9):
        assert not outage.may_hand_out
        waited = 0
        while not outage.may_hand_out:
            clock.now += 1
            waited += 1
        intervals.append(waited)
        outage.handed_out(0)
        assert not outage.may_hand_out
        outage.failed(failed(0), in_vain=True)
    assert intervals[:4] == [FIRST_SECONDS, 10, 20, 40]
    assert intervals[-2:] == [LONGEST_SECONDS] * 2
    assert "nothing works yet after 5 s: trial 0 on node1:7, data" in said[1][1]
    assert said[1][1].endswith("one trial is tried in 10 s")


def test_a_trial_that_was_under_way_and_fails_too_changes_no_interval(outage, clock, said):
    begin(outage)
    outage.failed(failed(2), in_vain=False)
    clock.now += FIRST_SECONDS
    assert outage.may_hand_out
    assert len(said) == 1


@pytest.mark.parametrize("who", [0, 7], ids=["the probe", "one that was under way"])
def test_any_report_ends_it_at_once(outage, clock, said, who):
    begin(outage)
    clock.now += 60
    outage.handed_out(0)
    outage.reported(who)
    assert not outage.is_on
    assert outage.may_hand_out
    assert said[-1] == (OUTAGE_OVER, f"trial {who} works again after 1 min 00 s; the others follow")
    outage.failed(failed(3), in_vain=False)
    assert not outage.is_on  # what failed before does not count any more


def test_a_probe_that_fails_for_a_reason_of_its_own_has_said_nothing_and_another_one_follows_at_once(outage, clock):
    begin(outage)
    clock.now += FIRST_SECONDS
    outage.handed_out(0)
    outage.ended(0)
    assert outage.is_on
    assert outage.may_hand_out


def test_after_the_limit_it_is_over_unless_somebody_still_trains(outage, clock):
    begin(outage)
    clock.now += LIMIT - 1
    assert outage.verdict(anybody_trains=False) is None
    clock.now += 1
    assert outage.verdict(anybody_trains=True) is None
    verdict = outage.verdict(anybody_trains=False)
    assert verdict == (
        "nothing has worked for 30 min 00 s, last trial 1 on node1:7, data: no such folder: /data; see that every node can "
        "read the data"
    )


def test_a_short_limit_has_room_for_several_probes(clock):
    outage = Outage(limit_seconds=6.0, say=lambda message, kind: None, clock=clock)
    begin(outage)
    probes = 0
    while outage.verdict(anybody_trains=False) is None:
        if outage.may_hand_out:
            outage.handed_out(0)
            outage.failed(failed(0), in_vain=True)
            probes += 1
        clock.now += 0.5
    assert probes == 5
