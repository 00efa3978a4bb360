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
from sweeps.ledger.lease import Lease, is_alive
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


def test_a_driver_that_died_out_of_sight_is_waited_for_and_replaced(ledger, demo, monkeypatch):
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(lease, "_POLL_SECONDS", 0.02)
    hold(ledger, replace(Process.this(), place="the container before"))
    claim = Lease(ledger, demo)
    claim.check_free()
    claim.take()
    assert ledger.sweep(demo).driver == claim.holder


def test_a_driver_out_of_sight_that_renews_its_lease_is_not_waited_for(ledger, demo, monkeypatch):
    monkeypatch.setattr(lease, "_POLL_SECONDS", 0.02)
    holder = replace(Process.this(), place="another machine")
    hold(ledger, holder, ago=3)
    renewal = threading.Timer(0.1, hold, (ledger, holder))
    renewal.start()
    with pytest.raises(ConfigError, match="is being run by process"):
        Lease(ledger, demo).check_free()
    renewal.join()


def test_the_lease_of_another_machine_is_free_when_it_was_not_renewed_for_a_while():
    now = time.time()
    assert is_alive("elsewhere:1:0", now - lease.LEASE_SECONDS / 2)
    assert not is_alive("elsewhere:1:0", now - 2 * lease.LEASE_SECONDS)
    assert not is_alive(None, None)


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
            context.setattr(lease, "is_alive", lambda driver, seen: False)
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


def is_driven(ledger, name):
    record = ledger.sweep(name)
    return is_alive(record.driver, record.driver_seen)


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
