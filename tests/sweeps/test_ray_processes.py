"""Ray's own processes: what they hear of signals, and how their end is noticed."""

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from sweeps.execution import cluster, ray_processes  # sets Ray's environment first
from sweeps.execution.ray_processes import RayWatch, services, worker


def test_a_process_that_ray_starts_is_out_of_reach_of_signals_to_the_group_of_the_driver():
    info = services.start_ray_process([sys.executable, "-c", "input()"], "probe", fate_share=True, pipe_stdin=True)
    try:
        assert os.getsid(info.process.pid) == os.getpgid(info.process.pid) == info.process.pid != os.getpgrp()
    finally:
        info.process.communicate(b"\n")


def test_what_a_lost_raylet_has_left_is_ended(watch):
    raylet = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!"], stdout=subprocess.PIPE, start_new_session=True)
    agent = psutil.Process(int(raylet.stdout.readline()))
    raylet.wait()
    started = {"raylet": [SimpleNamespace(process=raylet)]}
    watch(all_processes=started, kill_all_processes=lambda check_alive: None).abandon()
    assert psutil.wait_procs([agent], timeout=10)[0]
    raylet.stdout.close()


def test_ray_prints_no_logs_of_its_raylet_and_prints_what_else_it_has(capsys):
    for pid in ("raylet", 123):
        worker.print_to_stdstream({"lines": [f"of {pid}"], "pid": pid, "ip": "", "is_err": False}, ignore_prefix=True)
    assert "of 123" in (shown := capsys.readouterr().out)
    assert "raylet" not in shown


@pytest.fixture
def watch(monkeypatch):
    """Watch a connection that is nobody's."""

    def make(head="127.0.0.1:1", **node):
        monkeypatch.setattr(worker, "_global_node", SimpleNamespace(**node))
        monkeypatch.setattr(cluster.ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address=head))
        return RayWatch()

    return make


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("gcs_server", -9, "Ray's process gcs_server was ended by SIGKILL"),
        ("raylet", 1, "Ray's process raylet ended with exit code 1"),
        ("log_monitor", -15, None),
    ],
)
def test_the_end_of_a_process_without_which_nothing_runs_is_told(watch, name, code, said):
    dead = [(name, SimpleNamespace(returncode=code))]
    watched = watch(all_processes={name: []}, dead_processes=lambda: dead)
    assert watched.look() == watched.lost == said


def test_a_cluster_s_raylet_is_missed_at_once_and_its_head_after_a_while(watch, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX) as raylet, socket.socket() as head:
        raylet.bind(str(tmp_path / "raylet"))
        raylet.listen()
        head.bind(("127.0.0.1", 0))
        head.listen()
        address = f"127.0.0.1:{head.getsockname()[1]}"
        watched = watch(address, all_processes={}, raylet_socket_name=str(tmp_path / "raylet"))
        assert watched.look() is None
        head.close()
        assert watched.look() is None
        monkeypatch.setattr(ray_processes, "HEAD_AWAY_SECONDS", 0.0)
        assert watched.look() == f"the Ray cluster at {address} has been away for 0 s"
    again = watch(all_processes={}, raylet_socket_name=str(tmp_path / "raylet"))
    assert again.look() == "the Ray node on this machine has ended"
