"""At most one process drives a sweep."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from segda.errors import ConfigError
from sweeps.ledger import lease
from sweeps.ledger.database import LeaseLostError
from sweeps.ledger.lease import Lease, is_alive, is_driven
from sweeps.ledger.process import Process
from sweeps.ledger.records import SweepState

HOLDER = "from sweeps.ledger.process import Process; print(Process.this(), flush=True)"


@pytest.fixture
def demo(begun, make_spec):
    return begun(make_spec()).name


def test_a_second_driver_is_refused_with_where_the_first_one_is(ledger, demo):
    with (
        Lease(ledger, demo).held(lambda: 0.0),
        pytest.raises(ConfigError, match=rf"process {os.getpid()} on .*sweeps stop"),
    ):
        Lease(ledger, demo).take()
    Lease(ledger, demo).take()


def test_two_sweeps_of_one_ledger_are_driven_at_once(ledger, demo, begun, make_spec):
    other = begun(make_spec(name="other")).name
    with Lease(ledger, demo).held(lambda: 0.0), Lease(ledger, other).held(lambda: 0.0):
        assert is_driven(ledger, demo)
        assert is_driven(ledger, other)


def hold(ledger, holder, *, ago=0.0):
    with ledger.writing() as connection:
        connection.execute(lease.SWEEP.update().values(driver=str(holder), driver_seen=time.time() - ago))


def test_the_lease_of_a_process_that_died_here_is_free_at_once(ledger, demo):
    process = subprocess.run([sys.executable, "-c", HOLDER], capture_output=True, text=True, check=True)
    hold(ledger, process.stdout.strip())
    claim = Lease(ledger, demo)
    claim.check_free()
    claim.take()
    assert ledger.sweep(demo).driver == claim.holder


def test_a_process_that_lives_here_keeps_its_lease_until_it_dies_whether_or_not_its_parent_looks(ledger, demo):
    program = f"{HOLDER}; input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        hold(ledger, process.stdout.readline().strip())
        with pytest.raises(ConfigError, match=f"process {process.pid}"):
            Lease(ledger, demo).check_free()
        process.stdin.write("end\n")
        process.stdin.close()
        wait_until(lambda: not is_driven(ledger, demo))
        assert process.returncode is None  # nobody has fetched its exit code


def test_a_later_process_with_the_number_of_a_dead_driver_is_not_taken_for_it():
    assert not is_alive(str(replace(Process.this(), start="1")), time.time())


def test_a_driver_in_another_container_of_the_same_host_name_is_judged_by_its_lease_alone():
    elsewhere = replace(Process.this(), place="another boot", pid=1)
    assert not elsewhere.is_visible
    assert is_alive(str(elsewhere), time.time())
    assert not is_alive(str(elsewhere), time.time() - 2 * lease.LEASE_SECONDS)


def test_a_holder_comes_back_as_it_was_written():
    process = Process.this()
    assert Process.parse(str(process)) == process
    assert process.is_visible
    assert process.is_running


TWO_HOURS = 7200.0
CLOCKS = pytest.mark.parametrize("ago", [0.0, TWO_HOURS, -TWO_HOURS], ids=["equal", "behind or long ago", "ahead"])


@pytest.fixture
def clock(monkeypatch):
    """Time that passes in the lease's sleeps alone; what happens to other processes during them is put into the list."""

    class Clock:
        def __init__(self):
            self.now = 1000.0
            self.meanwhile = []

        def sleep(self, seconds):
            self.now += seconds
            if self.meanwhile:
                self.meanwhile.pop(0)()

    clock = Clock()
    monkeypatch.setattr(lease.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(lease.time, "sleep", clock.sleep)
    return clock


ELSEWHERE = replace(Process.this(), host="othernode", place="another machine")


@CLOCKS
def test_a_driver_that_died_out_of_sight_is_watched_and_replaced(ledger, demo, clock, caplog, ago):
    hold(ledger, ELSEWHERE, ago=ago)
    claim = Lease(ledger, demo)
    claim.check_free()
    assert lease.LEASE_SECONDS <= clock.now - 1000 < lease.LEASE_SECONDS + 2
    assert f"was run by process {ELSEWHERE.pid} on othernode, last heard of" in caplog.text
    assert "watching for 60 s" in caplog.text
    claim.take()
    assert ledger.sweep(demo).driver == claim.holder


def test_what_was_watched_once_is_not_watched_again(ledger, demo, clock):
    hold(ledger, ELSEWHERE, ago=-TWO_HOURS)
    Lease(ledger, demo).check_free()
    watched = clock.now
    with Lease(ledger, demo).held(lambda: 0.0):
        assert clock.now == watched


@CLOCKS
def test_a_driver_that_renews_its_lease_keeps_it_whatever_its_clock_says(ledger, demo, clock, ago):
    hold(ledger, ELSEWHERE, ago=ago)
    clock.meanwhile = [lambda: None] * 110 + [lambda: hold(ledger, ELSEWHERE, ago=ago - 55)]
    with pytest.raises(ConfigError, match=rf"process {ELSEWHERE.pid} on othernode.*sweeps stop"):
        Lease(ledger, demo).check_free()
    assert ledger.sweep(demo).driver == str(ELSEWHERE)


def test_nobody_takes_a_lease_that_was_not_watched(ledger, demo):
    hold(ledger, ELSEWHERE, ago=TWO_HOURS)
    with pytest.raises(ConfigError, match="last seen 2 h 00 min ago"):
        Lease(ledger, demo).take()


def test_a_lease_that_is_renewed_at_the_last_moment_is_not_taken(ledger, demo, clock, monkeypatch):
    hold(ledger, ELSEWHERE, ago=TWO_HOURS)
    taking = Lease._take_from_dead

    def late(self, record):
        hold(ledger, ELSEWHERE)
        taking(self, record)

    monkeypatch.setattr(Lease, "_take_from_dead", late)
    Lease(ledger, demo).check_free()
    assert ledger.sweep(demo).driver == str(ELSEWHERE)


def test_who_could_not_look_begins_to_watch_anew(ledger, demo, clock):
    """The ledger's database was away, or this machine slept: so long the holder could not renew either."""
    hold(ledger, ELSEWHERE, ago=TWO_HOURS)

    def sleep():
        clock.now += 600

    clock.meanwhile = [sleep, *[lambda: None] * 100, lambda: hold(ledger, ELSEWHERE)]
    with pytest.raises(ConfigError, match="is being run by"):
        Lease(ledger, demo).check_free()


@pytest.mark.parametrize("jump", [TWO_HOURS, -TWO_HOURS], ids=["forward", "back"])
def test_a_living_driver_here_keeps_its_lease_when_the_clock_is_set(ledger, demo, clock, jump):
    mine = Lease(ledger, demo)
    mine.take()
    hold(ledger, mine.holder, ago=jump)
    clock.meanwhile = [lambda: None, lambda: mine._renew(0.0)]
    with pytest.raises(ConfigError, match="is being run by"):
        Lease(ledger, demo).check_free()


@CLOCKS
def test_one_look_tells_what_clocks_tell_and_a_longer_one_whether_a_driver_lives(ledger, demo, clock, ago):
    hold(ledger, ELSEWHERE, ago=ago)
    record = ledger.sweep(demo)
    assert is_alive(record.driver, record.driver_seen) == (ago == 0)
    assert is_driven(ledger, demo) == (ago == 0)
    clock.meanwhile = [lambda: None] * 5 + [lambda: hold(ledger, ELSEWHERE, ago=ago - 3)]
    assert is_driven(ledger, demo)


def test_no_driver_is_none(ledger, demo):
    assert not is_alive(None, None)
    assert not is_driven(ledger, demo)


def test_a_lease_is_renewed_while_the_driver_is_busy(ledger, demo, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.02)
    with Lease(ledger, demo).held(lambda: 42.0):
        first = ledger.sweep(demo).driver_seen
        wait_until(lambda: ledger.sweep(demo).driver_seen > first)
        assert ledger.sweep(demo).seconds == 42.0
    assert ledger.sweep(demo).driver is None


def test_a_stop_request_reaches_the_driver_and_is_gone_for_the_next_one(ledger, demo, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.02)
    mine = Lease(ledger, demo)
    with mine.held(lambda: 0.0):
        ledger.update_sweep(demo, stop_requested=time.time())
        wait_until(lambda: mine.stop_requested)
    following = Lease(ledger, demo)
    with following.held(lambda: 0.0):
        time.sleep(0.1)
        assert not following.stop_requested


def test_a_driver_that_lost_its_lease_leaves_the_new_one_alone(ledger, demo, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.02)
    mine, thief = Lease(ledger, demo), Lease(ledger, demo)
    with mine.held(lambda: 0.0):
        with monkeypatch.context() as context:
            context.setattr(lease, "is_free", lambda driver: True)
            thief.take()
        wait_until(lambda: mine.is_lost)
    assert ledger.sweep(demo).driver == thief.holder


def test_a_driver_that_lost_its_lease_without_noticing_writes_no_more(ledger, demo):
    mine = Lease(ledger, demo)
    with mine.held(lambda: 0.0):
        ledger.add_event(demo, "note", "as long as it is mine")
        hold(ledger, "elsewhere:1:0")
        with pytest.raises(LeaseLostError, match="another process has taken over sweep 'demo'"):
            ledger.add_event(demo, "note", "too late")
    with pytest.raises(LeaseLostError):  # what it says at its end is too late as well
        ledger.update_sweep(demo, state=SweepState.INTERRUPTED)
    assert [event.message for event in ledger.events(demo)] == ["as long as it is mine"]
    assert ledger.sweep(demo).driver == "elsewhere:1:0"


def test_who_has_released_a_lease_writes_as_freely_as_any_tool(ledger, demo):
    with Lease(ledger, demo).held(lambda: 0.0):
        pass
    hold(ledger, "elsewhere:1:0")
    ledger.add_event(demo, "note", "from a tool")
    assert [event.message for event in ledger.events(demo)] == ["from a tool"]


def test_of_many_drivers_that_start_at_once_one_wins(ledger, demo):
    won = []

    def try_it():
        claim = Lease(ledger, demo)
        try:
            claim.take()
        except ConfigError:
            return
        won.append(claim)

    threads = [threading.Thread(target=try_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
