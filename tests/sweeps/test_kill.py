"""Drivers that are killed and interrupted, as processes of their own with their own Ray."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeps.ledger.database import Ledger
from sweeps.tracking import MlflowClient, default_uri
from sweeps.trial import TrialState

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow  # starts Ray three times


@pytest.fixture
def driver(mlflow_store):
    """Start a driver; all of them are gone at the end."""
    started = []

    def start(train="fakes:slow", trials=4):
        paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
        process = subprocess.Popen(
            [sys.executable, str(HERE / "drive_demo.py"), str(mlflow_store.root), train, str(trials)],
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def wait_for(condition, process, seconds=120):
    """Wait until the ledger shows something, while the driver lives."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        if process.poll() is not None:
            out, error = process.communicate()
            raise AssertionError(f"the driver ended with {process.returncode}\n{out}\n{error}")
        time.sleep(0.05)
    raise AssertionError("waited in vain")


@pytest.fixture
def trials(mlflow_store):
    def read():
        if not mlflow_store.ledger.exists():
            return []
        with Ledger.open(mlflow_store.ledger) as ledger:
            return ledger.trials("demo")

    return read


def test_a_killed_and_an_interrupted_driver_lose_nothing_and_repeat_nothing(driver, trials, executed, mlflow_store):
    killed = driver()
    # In the middle: something is finished, something has begun, something was never proposed.
    wait_for(lambda: has(trials(), TrialState.COMPLETE) and has(trials(), TrialState.RUNNING, step=2), killed)
    killed.kill()
    killed.communicate()
    finished = {trial.number: trial for trial in trials() if trial.state is TrialState.COMPLETE}

    interrupted = driver()
    acknowledged = sum(trial.step for trial in trials())
    wait_for(lambda: sum(trial.step for trial in trials()) > acknowledged, interrupted)
    os.killpg(interrupted.pid, signal.SIGTERM)  # as `timeout` and batch systems do
    out, error = interrupted.communicate(timeout=120)
    assert interrupted.returncode == 75, error
    assert "sweeps resume demo" in error
    assert "Traceback" not in out + error
    assert not has(trials(), TrialState.RUNNING)
    assert "RUNNING" not in {run.info.status for run in runs(mlflow_store)}

    last = driver()
    out, error = last.communicate(timeout=180)
    assert last.returncode == 0, error
    assert "report.html" in out
    after = trials()
    assert [(trial.number, trial.state) for trial in after] == [(number, TrialState.COMPLETE) for number in range(4)]
    assert all(after[number] == trial for number, trial in finished.items())
    count = executed()
    assert set(count) == {(number, step) for number in range(4) for step in range(1, 7)}
    # Only a step whose checkpoint was not on disk yet is trained again: at most one for each of two workers, twice.
    assert sum(count.values()) <= 24 + 4

    assert sorted(run.data.tags.get("sweep.number", "sweep") for run in runs(mlflow_store)) == [*"0123", "sweep"]
    assert {run.info.status for run in runs(mlflow_store)} == {"FINISHED"}
    client = MlflowClient(default_uri(mlflow_store))
    for run in runs(mlflow_store):
        if "sweep.number" in run.data.tags:
            history = client.get_metric_history(run.info.run_id, "source/val/miou")
            assert [point.step for point in history] == [1, 2, 3, 4, 5, 6]


def has(trials, state, step=0):
    return any(trial.state is state and trial.step >= step for trial in trials)


def runs(store):
    client = MlflowClient(default_uri(store))
    return client.search_runs([client.get_experiment_by_name("demo").experiment_id])
