"""Drivers that are killed, interrupted or refused, as processes of their own with their own Ray."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeps.ledger import Ledger
from sweeps.tracking import MlflowClient, default_uri
from sweeps.trial import TrialState

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow  # each test starts Ray twice


@pytest.fixture
def driver(mlflow_store):
    """Start a driver; all of them are gone at the end."""
    started = []

    def start(train="fakes:slow", trials=4, *options):
        paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
        process = subprocess.Popen(
            [sys.executable, str(HERE / "drive_demo.py"), str(mlflow_store.root), train, str(trials), *options],
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


def test_a_killed_driver_loses_nothing_repeats_nothing_and_leaves_one_run_per_trial(
    driver, trials, executed, mlflow_store
):
    first = driver()
    # Kill it in the middle: something is finished, something has begun, something was never proposed.
    wait_for(
        lambda: (
            any(trial.state is TrialState.COMPLETE for trial in trials())
            and any(trial.state is TrialState.RUNNING and trial.step >= 2 for trial in trials())
        ),
        first,
    )
    first.kill()
    first.communicate()
    finished = {trial.number: trial for trial in trials() if trial.state is TrialState.COMPLETE}
    second = driver()
    out, error = second.communicate(timeout=180)
    assert second.returncode == 0, error
    assert "report.html" in out
    after = trials()
    assert [trial.number for trial in after] == [0, 1, 2, 3]
    assert {trial.state for trial in after} == {TrialState.COMPLETE}
    assert all(after[number] == trial for number, trial in finished.items())
    count = executed()
    assert set(count) == {(number, step) for number in range(4) for step in range(1, 7)}
    # A step whose checkpoint was not yet on disk is trained again, at most one per trial that ran.
    assert sum(count.values()) <= 24 + 2
    client = MlflowClient(default_uri(mlflow_store))
    experiment = client.get_experiment_by_name("demo")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags.get("sweep.number", "sweep") for run in runs) == ["0", "1", "2", "3", "sweep"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        if "sweep.number" in run.data.tags:
            history = client.get_metric_history(run.info.run_id, "source/val/miou")
            assert [point.step for point in history] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_an_interrupted_sweep_queues_what_ran_and_says_how_to_go_on(driver, trials, number, code, mlflow_store):
    process = driver()
    wait_for(lambda: any(trial.step >= 1 for trial in trials()), process)
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert "sweeps resume demo" in error
    assert "Traceback" not in out + error
    states = {trial.state for trial in trials()}
    assert TrialState.QUEUED in states
    assert TrialState.RUNNING not in states
    client = MlflowClient(default_uri(mlflow_store))
    runs = client.search_runs([client.get_experiment_by_name("demo").experiment_id])
    assert "RUNNING" not in {run.info.status for run in runs}


def test_an_unreachable_mlflow_is_one_line_and_nothing_is_trained(driver, trials):
    process = driver("fakes:quadratic", 1, "--tracking", "http://127.0.0.1:9")
    out, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error.startswith("Error: MLflow at http://127.0.0.1:9 cannot be used:")
    assert error.count("\n") == 1
    assert trials() == []
