"""Trials that wait long for a worker, by a clock that the test moves."""

from types import SimpleNamespace

import pytest

from sweeps.execution import long_waits
from sweeps.execution.long_waits import LongWaits


class Waiting:
    """Trials of a sweep, who waits among them, and what was said of it."""

    def __init__(self):
        self.now = 1000.0
        self.running = []
        self.lines = []
        self._waits = LongWaits(SimpleNamespace(running=self.running, note=self.lines.append))

    def start(self, *numbers, attempt=0):
        self.running += [SimpleNamespace(number=number, attempt=attempt, worker=None) for number in numbers]

    def until(self, seconds):
        """Look twice a second until so many seconds have gone since the beginning."""
        while self.now < 1000.0 + seconds:
            self.now += 0.5
            self._waits.poll()


@pytest.fixture
def waiting(monkeypatch):
    waiting = Waiting()
    monkeypatch.setattr(long_waits, "time", SimpleNamespace(monotonic=lambda: waiting.now))
    monkeypatch.setattr(long_waits, "describe_cluster", lambda: "1 node")
    return waiting


def test_a_minute_is_not_long(waiting):
    waiting.start(0, 1)
    waiting.until(60)
    assert waiting.lines == []


def test_who_waits_is_told_of_together_and_once(waiting):
    waiting.start(0, 1, 2)
    waiting.until(600)
    assert waiting.lines == ["trial 0 and 2 more have waited 60 s for a worker; the cluster has 1 node"]


def test_one_that_begins_to_wait_later_is_told_of_when_the_line_before_it_is_a_minute_old(waiting):
    waiting.start(0)
    waiting.until(10)
    waiting.start(1)
    waiting.until(600)
    assert waiting.lines == [
        "trial 0 has waited 60 s for a worker; the cluster has 1 node",
        "trial 0 and 1 more have waited 120 s for a worker; the cluster has 1 node",
    ]


def test_a_wait_ends_with_a_worker_and_another_attempt_is_another_wait(waiting):
    waiting.start(0)
    waiting.until(50)
    waiting.running[0].worker = "node:1"
    waiting.until(100)
    waiting.running.clear()
    waiting.start(0, attempt=1)
    waiting.until(600)
    assert waiting.lines == ["trial 0 has waited 60 s for a worker; the cluster has 1 node"]
