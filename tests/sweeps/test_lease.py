"""At most one process drives a sweep."""

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from segda.errors import ConfigError
from sweeps.ledger import lease
from sweeps.ledger.lease import STOP_REQUEST, Lease, is_alive


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


def test_the_lease_of_a_process_that_died_here_is_free_at_once(ledger, demo):
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    with ledger.writing() as connection:
        holder = f"{socket.gethostname()}:{int(process.stdout)}:0"
        connection.execute(lease.SWEEP.update().values(driver=holder, driver_seen=time.time()))
    claim = Lease(ledger, demo)
    claim.take()
    assert ledger.sweep(demo).driver == claim.holder


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
        assert ledger.sweep(demo).info["seconds"] == 42.0
    assert ledger.sweep(demo).driver is None


def test_a_stop_request_reaches_the_driver_and_is_gone_for_the_next_one(ledger, demo, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.02)
    mine = Lease(ledger, demo)
    with mine.held(lambda: 0.0):
        ledger.update_info(demo, **{STOP_REQUEST: time.time()})
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
