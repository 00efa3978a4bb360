"""The cluster as a sweep meets it: tokens, other people's work, GPUs that are somebody else's."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from segda.errors import ConfigError
from sweeps.execution import cluster

CONNECT = """
import sys
from segda.errors import ConfigError
from sweeps.execution import cluster
cluster.check_head = lambda address: None
try:
    with cluster.connected("127.0.0.1:1"):
        pass
except ConfigError as error:
    print(error)
"""


def run(*words, **variables):
    paths = os.pathsep.join([str(Path(__file__).parent), *(path for path in sys.path if path)])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = kept | {"PYTHONPATH": paths, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"} | variables
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_missing_token_is_an_error_that_says_how_to_show_one(tmp_path):
    said = run("-c", CONNECT, RAY_AUTH_MODE="token", HOME=str(tmp_path))
    assert "no token to show" in said
    assert all(name in said for name in ("RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN,", "RAY_AUTH_TOKEN_PATH"))
    assert len(said.splitlines()) == 1


def test_a_cluster_that_does_not_answer_may_want_another_token(monkeypatch):
    def refuse(**_):
        raise ConnectionError("Failed to connect")

    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", refuse)
    monkeypatch.setattr(cluster, "check_head", lambda address: None)
    with (
        pytest.raises(ConfigError, match=r"at far:1: Failed .* wants a token .* RAY_AUTH_TOKEN_PATH"),
        cluster.connected("far:1"),
    ):
        pytest.fail("it was connected")
    with pytest.raises(ConfigError, match=r"leave it out to use this machine$"), cluster.connected(None):
        pytest.fail("it was connected")


@pytest.fixture
def occupied(ray_cluster):
    """One of the cluster's two processors is somebody else's."""

    class Occupant:
        def ready(self):
            return True

    occupant = ray_cluster.remote(num_cpus=1)(Occupant).remote()
    ray_cluster.get(occupant.ready.remote())
    yield
    ray_cluster.kill(occupant)


class Asked(Exception):
    """Somebody wants the sweep to end."""


@pytest.mark.slow  # Ray starts workers
def test_what_waits_for_an_idle_node_says_so_and_ends_when_it_is_asked_to(occupied, make_spec, monkeypatch):
    monkeypatch.setattr(cluster, "_SAY_WAITING_AFTER", 0.0)
    said = []

    def check():
        if said:
            raise Asked

    with cluster.idle_node(make_spec(), say=said.append, check=check) as machines:
        assert machines.look(os.getpid) == os.getpid()  # this node without GPUs can be looked at from here, at once
        assert said == []
        with pytest.raises(Asked):
            machines.call(os.getpid)
    assert said == [
        "waiting for an idle node to measure on: all its 2 CPUs and 0 GPUs at once; the cluster has 1 node (2 CPUs and 0 GPUs), "
        "of which 1 CPUs and 0 GPUs are free now"
    ]


@pytest.mark.slow  # Ray starts a worker
def test_known_architectures_need_no_idle_node(occupied, make_spec, begun, ledger, monkeypatch):
    spec = begun(make_spec())
    monkeypatch.setattr(type(ledger), "profile", lambda self, key: {"macs": 5.0})
    lines = []
    found = cluster.profiles_of(spec, ledger, lambda kind, record, line: lines.append((kind, line)), gpus=0.0)
    assert [profile.metrics for profile in found.values()] == [{"macs": 5.0}]
    assert [kind for kind, _ in lines] == ["note"]
    assert ledger.sweep(spec.name).info.device.kind == "cpu"


@pytest.mark.slow  # Ray starts workers
def test_what_a_call_raises_comes_back_as_it_was(ray_cluster, make_spec):
    with cluster.idle_node(make_spec()) as machines, pytest.raises(ValueError, match=r"^invalid literal"):
        machines.call(int, "x")


@pytest.fixture(scope="module")
def answers():
    """What processes saw on a cluster with declared GPUs."""
    return json.loads(run(str(Path(__file__).with_name("fake_gpus.py"))).splitlines()[-1])


@pytest.mark.slow  # a cluster of two nodes
class TestStandingCluster:
    def test_a_trial_without_a_gpu_sees_none_and_one_with_a_gpu_its_own(self, answers):
        assert answers["hidden"] == ""
        assert answers["given"] in ("0", "1")

    def test_a_look_sees_all_gpus_of_a_full_node_at_once(self, answers):
        assert answers["looked"] == "0,1"
        assert answers["said_after_looking"] == []

    def test_a_measurement_waits_for_the_others_and_then_has_a_gpu(self, answers):
        assert answers["called"] in ("0", "1")
        (said,) = answers["said"]
        assert said.startswith("waiting for an idle node to measure on: all its 2 CPUs and 1 GPUs at once")

    def test_a_node_that_joins_is_used_as_far_as_its_processors_go(self, answers):
        assert answers["capacity_before"] == 2  # four halves of GPUs, but two processors
        assert answers["capacity_after"] == 6
        assert answers["capacity_notes"][0].startswith("6 trials at the same time from now on; the cluster has 2 nodes")
        assert answers["info"] == {"allotment": {"gpus": 0.5, "concurrency": 6}}
        assert answers["capacity_of_a_number"] == 2

    def test_gpus_that_a_sweep_leaves_idle_are_told_of(self, answers):
        assert answers["idle_gpus"] == [
            "budget.concurrency is 3, and 4 trials fit on the GPUs that are there; raise it, or say `gpus: auto` under resources"
        ]

    def test_of_several_kinds_of_gpu_the_one_with_the_least_memory_is_measured(self, answers):
        assert answers["chosen"] == "24"
        assert answers["said_of_choice"] == [
            "measures on GPU of 24 GiB, which has the least memory; the cluster has GPU of 80 GiB too"
        ]


@pytest.mark.parametrize(
    ("free", "kind", "said"),
    [
        (4096, OSError, "No space left on device for Ray"),
        (10**9, ConfigError, "cannot connect to Ray on this machine: timed out"),
    ],
)
def test_a_ray_that_does_not_start_is_told_by_its_cause(monkeypatch, free, kind, said):
    def start(**_):
        raise Exception("timed out")  # as Ray does

    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", start)
    monkeypatch.setattr(cluster.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    with pytest.raises(kind, match=said), cluster.connected(None):
        pass
