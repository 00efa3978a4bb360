"""The Slurm job on one machine: `srun` runs its command here, `scontrol` names the nodes, `ray` waits to be ended."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import REPOSITORY

SCRIPT = REPOSITORY / "launch" / "slurm" / "sweep.sbatch"
# Only what follows the step's own options is run.
SRUN = 'while [[ $1 == --* ]]; do shift; done; exec "$@"'
SCONTROL = 'if [[ $1 == show ]]; then printf "%s\\n" node-a node-b node-c; fi'
RAY = """
case $1 in
    health-check) [[ -s $CALLS.tokens && -n $RAY_AUTH_TOKEN && $RAY_AUTH_MODE == token ]] ;;
    status)
        echo "Active:"
        sed 's/.*/ 1 node_&/' "$CALLS.tokens"
        ;;
    start)
        trap 'echo "ray ended" >> "$CALLS"; exit' TERM
        echo "$RAY_AUTH_TOKEN" >> "$CALLS.tokens"
        while :; do sleep 0.1; done
        ;;
esac
"""
# A driver that uses the whole cluster and ends as `sweeps` does: 75 after SIGTERM.
DRIVER = """#!/usr/bin/env bash
echo "driver $*" >> "$CALLS"
trap 'echo "driver heard SIGTERM" >> "$CALLS"; sleep 0.3; exit 75' TERM
until (($(wc -l < "$CALLS.tokens") == 3)); do sleep 0.1; done
while [[ -n $DRIVER_STAYS ]]; do sleep 0.1; done
exit ${DRIVER_CODE:-0}
"""


@pytest.fixture
def job(programs, tmp_path, monkeypatch):
    programs("srun", SRUN)
    programs("scontrol", SCONTROL)
    programs("ray", RAY)
    driver = tmp_path / "driver"
    driver.write_text(DRIVER)
    driver.chmod(0o755)
    for name, value in {
        "SLURM_JOB_ID": "12345",
        "SLURM_JOB_NODELIST": "node-[a-c]",
        "SLURM_CPUS_PER_TASK": "6",
        "SLURM_GPUS_ON_NODE": "2",
        "SLURM_SUBMIT_DIR": str(REPOSITORY),
        "START_OR_RESUME": str(driver),
    }.items():
        monkeypatch.setenv(name, value)

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(SCRIPT), *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return start


def wait_for(calls, line: str) -> None:
    deadline = time.monotonic() + 20
    while not any(call.startswith(line) for call in calls()):
        assert time.monotonic() < deadline, f"{line!r} never came: {calls()}"
        time.sleep(0.05)


def test_a_job_starts_a_head_and_workers_and_ends_them_with_the_sweep(job, calls, tmp_path):
    started = job("my_sweep.yaml", "--store", "/shared/runs")
    output = started.communicate(timeout=60)[0]
    assert started.returncode == 0, output
    steps = sorted((call for call in calls() if call.startswith("srun")), key=lambda call: "--head" not in call)
    assert "--nodelist=node-a " in steps[0]
    assert {re.search(r"--nodelist=(\S+)", step)[1] for step in steps[1:]} == {"node-b", "node-c"}
    port = re.search(r"ray start --head --port=(\d+)", steps[0])[1]
    assert all(f"ray start --address=node-a:{port}" in step for step in steps[1:])
    assert all("--num-cpus=6 --num-gpus=2" in step for step in steps)
    assert f"driver my_sweep.yaml --store /shared/runs --address node-a:{port}" in calls()
    assert calls().count("ray ended") == 3
    assert not any("requeue" in call for call in calls())
    # One secret token for all nodes, on no command line.
    tokens = set(Path(f"{tmp_path}/calls.tokens").read_text().split())
    assert len(tokens) == 1
    token = tokens.pop()
    assert len(token) == 64
    assert not any(token in call for call in calls())


def test_the_sweep_starts_when_all_nodes_have_come(job, programs, calls):
    late = "if [[ $1 == start && $* == *--address* ]]; then sleep 1.5; fi"
    programs("ray", late + RAY)
    started = job("my_sweep.yaml")
    output = started.communicate(timeout=60)[0]
    assert started.returncode == 0, output
    driver = next(number for number, call in enumerate(calls()) if call.startswith("driver"))
    assert sum(call.startswith("ray status") for call in calls()[:driver]) >= 2
    assert "have come" not in output


def test_nodes_that_do_not_come_are_not_waited_for_without_end(job, programs, calls, monkeypatch):
    programs("ray", "if [[ $1 == start && $* == *--address* ]]; then exec sleep 50; fi" + RAY)
    monkeypatch.setenv("SWEEP_WAITS_FOR_NODES", "1")
    monkeypatch.setenv("DRIVER_STAYS", "yes")
    started = job("my_sweep.yaml")
    wait_for(calls, "driver my_sweep.yaml")
    time.sleep(0.2)  # until its trap is set
    os.kill(started.pid, signal.SIGTERM)
    output = started.communicate(timeout=60)[0]
    assert "1 of 3 nodes have come within 1 s; the sweep starts with these" in output


@pytest.mark.parametrize("which", [[signal.SIGUSR1], [signal.SIGTERM], [signal.SIGUSR1, signal.SIGTERM]])
def test_a_job_that_must_leave_ends_its_sweep_gracefully_and_goes_back_into_the_queue(job, calls, monkeypatch, which):
    monkeypatch.setenv("DRIVER_STAYS", "yes")
    started = job("my_sweep.yaml")
    wait_for(calls, "driver my_sweep.yaml")
    time.sleep(0.2)  # until its trap is set
    for number in which:  # at the time limit both come
        os.kill(started.pid, number)
    output = started.communicate(timeout=60)[0]
    assert started.returncode == 75, output
    assert calls().count("driver heard SIGTERM") == 1
    assert calls().count("scontrol requeue 12345") == 1
    # Ray is there until the sweep has put its trials back.
    assert calls().index("driver heard SIGTERM") < calls().index("scontrol requeue 12345")
    assert calls().index("driver heard SIGTERM") < calls().index("ray ended")


def test_a_sweep_that_is_stopped_before_it_listens_goes_back_into_the_queue_too(job, calls, tmp_path):
    (tmp_path / "driver").write_text('#!/usr/bin/env bash\necho driver >> "$CALLS"; exec sleep 50\n')
    started = job("my_sweep.yaml")
    wait_for(calls, "driver")
    time.sleep(0.2)
    os.kill(started.pid, signal.SIGUSR1)
    started.communicate(timeout=60)
    assert started.returncode == 75
    assert calls().count("scontrol requeue 12345") == 1


@pytest.mark.parametrize("code", ["1", "2", "130"])
def test_a_sweep_that_fails_is_not_put_back_into_the_queue(job, calls, monkeypatch, code):
    monkeypatch.setenv("DRIVER_CODE", code)
    started = job("my_sweep.yaml")
    started.communicate(timeout=60)
    assert started.returncode == int(code)
    assert not any("requeue" in call for call in calls())


def test_a_head_that_does_not_come_up_ends_the_job_with_a_reason(job, programs, calls):
    programs("ray", "exit 1")
    started = job("my_sweep.yaml")
    output = started.communicate(timeout=60)[0]
    assert started.returncode == 2
    assert "the Ray head on node-a did not come up" in output
    assert not any(call.startswith("driver") for call in calls())


def test_a_sweep_whose_head_is_lost_goes_back_into_the_queue(job, programs, calls, monkeypatch):
    dies_later = 'if [[ $1 == start && $* == *--head* ]]; then echo x >> "$CALLS.tokens"; sleep 3; exit 1; fi'
    programs("ray", dies_later + RAY)
    monkeypatch.setenv("DRIVER_STAYS", "yes")
    started = job("my_sweep.yaml")
    output = started.communicate(timeout=60)[0]
    assert started.returncode == 75, output
    assert "the Ray head on node-a is lost" in output
    assert calls().count("scontrol requeue 12345") == 1


def test_a_worker_that_dies_is_started_again(job, programs, calls, tmp_path):
    dies_once = 'if [[ $1 == start && $* == *--address* ]] && mkdir "$CALLS.died" 2> /dev/null; then exit 1; fi'
    programs("ray", dies_once + RAY)
    started = job("my_sweep.yaml")  # the driver waits for all three nodes
    output = started.communicate(timeout=60)[0]
    assert started.returncode == 0, output
    assert sum(call.startswith("ray start --address") for call in calls()) == 3
    assert calls().count("ray ended") == 3


def test_outside_of_slurm_and_without_a_file_it_says_how_to_submit(job, monkeypatch):
    started = job()
    assert "name a sweep file: sbatch" in started.communicate(timeout=60)[0]
    assert started.returncode == 2
    monkeypatch.delenv("SLURM_JOB_ID")
    started = job("my_sweep.yaml")
    assert "this is a job for Slurm: sbatch" in started.communicate(timeout=60)[0]
    assert started.returncode == 2
