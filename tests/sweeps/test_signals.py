"""Asking a process that drives a sweep to end."""

import signal
import subprocess
import sys

import pytest

from sweeps.execution.signals import Signals


def test_the_first_signal_is_noted_and_the_handlers_are_given_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        assert signals.by is None
        signal.raise_signal(signal.SIGTERM)
        assert signals.by is signal.SIGTERM
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_terminal_that_goes_away_ends_the_sweep_like_a_launcher():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        with Signals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.by is signal.SIGHUP
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_sweep_under_nohup_outlives_its_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.by is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_only_a_second_sigint_interrupts():
    with Signals() as signals:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
        assert not signals.is_hard
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signals.is_hard


def test_what_may_end_at_once_ends_at_the_first_signal_and_is_not_begun_after_one():
    with Signals() as signals:
        with pytest.raises(KeyboardInterrupt), signals.ending_at_once():
            signal.raise_signal(signal.SIGTERM)
        assert not signals.is_hard
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt), signals.ending_at_once():
            raise AssertionError("the block was entered")


# As Ray does at its end: not through Python, which goes on to believe in its own handler.
CLOSING = """
import ctypes, os, signal, time
from sweeps.execution.signals import Signals

def close():
    ctypes.CDLL(None).signal(int(signal.SIGTERM), None)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.2)

with Signals() as signals:
    with signals.connection() as connection:
        connection.callback(close)
    print(signals.by.name)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of this kind are not known there")
def test_sigterm_while_ray_ends_is_heard():
    done = subprocess.run([sys.executable, "-c", CLOSING], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "SIGTERM\n"), done.stderr
