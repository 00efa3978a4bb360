"""A short training of one configuration in processes of its own: what it costs, or how it fails.

A crash ends a copy and nothing else. What a copy does is in `canary_process.py`; copies are timed while all of them train.

The images come from the real data sets by way of the decoded cache, which a sweep needs anyway.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import torch

from segda.efficiency.idleness import MAX_OTHERS, Machine, between

_PROGRAM = "sweeps.planning.canary_process"
# What parent and child say to each other.
READY = "ready"
GO = "go\n"


@dataclass(frozen=True)
class CanaryTask:
    """A configuration to try.

    Attributes:
        config: `TrainConfig` as plain data, with its real number of steps.
        threads: threads that it may compute with.
        processes: processes that share each batch.
        timed_steps: fewest training steps to take the time of.
        timeout_seconds: time after which it counts as hung.
    """

    config: Mapping[str, Any]
    threads: int
    processes: int = 1
    timed_steps: int = 2
    timeout_seconds: float = 3600.0


@dataclass(frozen=True)
class Costs:
    """What a configuration costs.

    Attributes:
        seconds_per_step: of training, after the warm-up, with loading and augmentation.
        seconds_per_report: for scores and checkpoint in the middle of a training.
        seconds_at_end: for scores, checkpoint and pictures at its end.
        seconds_to_start: until the first step: on a GPU from the start of a process, since each trial there gets a new one;
            on a CPU without the imports, since its workers are used again.
        memory_bytes: most that the process held: on a GPU in PyTorch's allocator, on a CPU resident, which counts pages of the
            decoded cache that all processes share.
        device_bytes: what all copies, and whatever else runs there, occupied on the GPU together; 0 on a CPU.
        disk_bytes: files of a finished trial, most of them its checkpoint.
        device: the maker's name.
    """

    seconds_per_step: float
    seconds_per_report: float
    seconds_at_end: float
    seconds_to_start: float
    memory_bytes: int
    device_bytes: int
    disk_bytes: int
    device: str


@dataclass(frozen=True)
class CanaryResult:
    """What became of a canary.

    Attributes:
        copies: the costs of each copy; empty if one failed.
        error: why one failed, in one line.
        doubts: what others did on the machine meanwhile, one line each: times and memory are then not those of the copies alone.
    """

    copies: tuple[Costs, ...]
    error: str | None = None
    doubts: tuple[str, ...] = ()


def measure(task: CanaryTask, copies: int = 1) -> CanaryResult:
    """Try a configuration; call it where nothing else computes.

    Args:
        task: what to train.
        copies: how many train at once on the same device.

    Returns:
        The costs or why it failed, and what others did there meanwhile.
    """
    machine = Machine(own_seconds=_seconds_of_all)
    before = machine.read()
    with tempfile.TemporaryDirectory(prefix="canary-") as folder, contextlib.ExitStack() as started:
        children = [started.enter_context(_Child(task, Path(folder) / str(copy))) for copy in range(copies)]
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            for child in children:
                child.kill()

        timer = threading.Timer(task.timeout_seconds, expire)
        timer.start()
        try:
            answers = [child.answer() for child in children]
            if all(answer == {READY: True} for answer in answers):
                for child in children:
                    child.go()
                answers = [child.answer() for child in children]
        finally:
            timer.cancel()
    errors = [str(answer["error"]) for answer in answers if "error" in answer]
    if expired.is_set():
        errors = [f"it was not done after {task.timeout_seconds:g} s"]
    # Their processes have ended, so their time is known.
    limit = MAX_OTHERS["cuda" if torch.cuda.is_available() and task.config.get("device") != "cpu" else "cpu"]
    doubts = tuple(between(before, machine.read(), cpus=len(machine.cpus), max_others=limit))
    if errors:
        return CanaryResult(copies=(), error=errors[0], doubts=doubts)
    return CanaryResult(tuple(Costs(**item) for item in answers), doubts=doubts)


def _seconds_of_all() -> float:
    """Return the processor time of this process and of those that it started and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class _Child:
    """One copy in its process; it speaks in lines of JSON and is ended with the `with` block."""

    def __init__(self, task: CanaryTask, folder: Path) -> None:
        folder.mkdir()
        self._log = folder / "log.txt"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # A worker of a cluster may have been given its path in other ways than by the environment.
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        self._say(json.dumps({"task": asdict(task), "folder": str(folder)}) + "\n")

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                _opened(stream).close()
        self._process.wait()

    def kill(self) -> None:
        self._process.kill()

    def go(self) -> None:
        self._say(GO)

    def answer(self) -> dict[str, Any]:
        """Wait for a line; a process that ends without one has an error too."""
        line = _opened(self._process.stdout).readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            hint = "; the system does so when memory runs out" if -code == signal.SIGKILL else ""
            return {"error": f"its process was ended by {name}{hint}"}
        said = self._log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        return {"error": f"its process ended with exit code {code}: {said[-1].strip()}"[:500]}

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # it died; `answer` tells why
            stream = _opened(self._process.stdin)
            stream.write(line)
            stream.flush()


def _opened(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
