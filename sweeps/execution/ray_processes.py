"""Ray's own processes: those that a driver starts are out of reach of its signals, and their end is noticed at once.

A signal to a process group (Ctrl-C, `timeout`, many batch systems) is meant for the driver, which needs Ray to end its sweep in
order. So Ray's processes get a session of their own here; the kernel still ends them with their driver, which Ray sees to.
`tests/sweeps/test_ray_patch.py` fails when Ray starts them in another way.
"""

import atexit
import contextlib
import os
import signal
import socket
import time
from functools import partial
from typing import Any

import psutil
import ray
from ray._private import services, worker
from ray._private.utils import detect_fate_sharing_support

from segda.errors import DeviceError

# How long the head of a standing cluster may be away. Ray's core waits for it for 60 s and then ends the whole process.
HEAD_AWAY_SECONDS = 30.0
_CONNECT_SECONDS = 2.0
_NEEDED = ("gcs_server", "raylet")  # as Ray calls them

# Elsewhere than on Linux, Ray's own reaper ends them by their common process group.
if detect_fate_sharing_support():
    services.ConsolePopen = partial(services.ConsolePopen, start_new_session=True)

_print = worker.print_to_stdstream


def _print_but_for_errors(data: dict[str, Any], ignore_prefix: bool) -> None:
    """Leave out pages of a raylet's log between the lines of the display: what it means for a trial is among its events."""
    if data["pid"] != "raylet":
        _print(data, ignore_prefix)


worker.print_to_stdstream = _print_but_for_errors


class RayLostError(DeviceError):
    """Ray's own processes have ended while something was waited for."""


class RayWatch:
    """Whether the Ray that this process is connected to is there.

    Attributes:
        lost: why no trial can be run any more, one line; None as long as Ray is there.
    """

    def __init__(self) -> None:
        """Watch the connection that there is now."""
        self.lost: str | None = None
        self._node = worker._global_node
        self._head = ray.get_runtime_context().gcs_address
        self._head_seen = time.monotonic()

    def look(self) -> str | None:
        """Look again, and return `lost`."""
        if self.lost is None:
            self.lost = self._own_process_ended() if self._node.all_processes else self._cluster_left()
        return self.lost

    def abandon(self) -> None:
        """End what is left of a lost Ray without asking it: its core would wait for what is gone, and then end this process.

        It may do so after a minute in any case, so this process should not live on for other things.
        """
        atexit.unregister(worker.shutdown)
        raylets = {started.process.pid for started in self._node.all_processes.get("raylet", ())}
        self._node.kill_all_processes(check_alive=False)
        # Its agents, which would look for the head for minutes; a session keeps its number when its first process has ended.
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if os.getsid(process.pid) in raylets:
                    process.kill()

    def _own_process_ended(self) -> str | None:
        ended = {name: process.returncode for name, process in self._node.dead_processes() if name in _NEEDED}
        return next((f"Ray's process {name} {_how(code)}" for name, code in ended.items()), None)

    def _cluster_left(self) -> str | None:
        """Ask the cluster's head and the raylet of this machine, which somebody else has started."""
        if not _is_listening(socket.AF_UNIX, self._node.raylet_socket_name):
            return "the Ray node on this machine has ended"
        host, _, port = self._head.rpartition(":")
        now = time.monotonic()
        if _is_listening(socket.AF_INET6 if ":" in host else socket.AF_INET, (host.strip("[]"), int(port))):
            self._head_seen = now
        away = now - self._head_seen
        return f"the Ray cluster at {self._head} has been away for {away:.0f} s" if away > HEAD_AWAY_SECONDS else None


def _how(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _is_listening(family: socket.AddressFamily, address: str | tuple[str, int]) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(address)
        except OSError:
            return False
    return True
