"""Waiting for an idle machine: only where latency decides, and never for ever."""

import pytest

from sweeps.planning.patience import Patience

PATIENT = {"constraints": ["fps >= 30"]}
QUALITY = {"metric": "source/val/miou", "direction": "maximize"}
FAST = {"metric": "latency_ms", "direction": "minimize"}


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 0),
        ({"constraints": ["macs <= 2e9"]}, 0),
        (PATIENT, 60),
        ({"objectives": [QUALITY, FAST]}, 60),
        (PATIENT | {"resources": {"cpus": 1, "idle_wait_minutes": 5}}, 300),
        (PATIENT | {"resources": {"cpus": 1, "idle_wait_minutes": 0}}, 0),
    ],
)
def test_only_a_sweep_that_decides_by_latency_waits(make_spec, changes, seconds):
    assert Patience.of(make_spec(**changes), say=print).left == seconds


def test_measuring_again_counts_as_waiting():
    now = [0.0]

    def measure():
        now[0] += 25.0
        return "disturbed"

    def sleep(seconds):
        now[0] += seconds

    patience = Patience(1, sleep=sleep, clock=lambda: now[0])
    found = patience.undisturbed(measure, doubts=lambda result: (result,), look=lambda: (), what="it")
    assert found == "disturbed"
    assert now[0] == 25 + 3 * 27  # the third try began within the minute
    assert patience.left < 0


def test_what_nothing_speaks_against_is_measured_once_and_nothing_is_said():
    said, measured = [], []
    patience = Patience(1, say=said.append)
    patience.undisturbed(lambda: measured.append(1), doubts=lambda result: (), look=lambda: ("busy",), what="it")
    assert (measured, said, patience.left) == ([1], [], 60)
