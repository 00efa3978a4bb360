"""Whether anything else computed on a device while something was measured there, and who.

The kernel's counters of processor time are read before and after: their differences say what happened meanwhile, however it was
scheduled. Time of this process is taken off. Of a GPU nvidia-smi is asked before and after, while this process lets it rest.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

# Share of the processors that others may use. What a GPU does waits for one processor only, to be told of.
MAX_OTHERS = {"cpu": 0.1, "cuda": 0.8}
MAX_STOLEN = 0.02  # share of the processors that the host may give to other machines
MAX_GPU_PERCENT = 5.0
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_RESOLUTION_SECONDS = 0.05  # a few ticks: less is no more than rounding
_NAMED = 3  # processes that a message names
_GPU_RESTS_SECONDS = 1.0  # nvidia-smi tells the mean over up to one second
_NVIDIA_SMI = "nvidia-smi"

Ask = Callable[[list[str]], str | None]


@dataclass(frozen=True)
class Reading:
    """Counters of a machine at one moment; times in seconds.

    Attributes:
        at: on a clock that never jumps.
        busy: processor time that anybody used of the processors that this process may use; None: not known.
        own: processor time that this process used.
        stolen: time in which the host gave these processors to other machines.
        slowed: cause -> how often it slowed this process or its processors.
        processes: process id -> name and processor time of every process that can be seen.
    """

    at: float
    busy: float | None
    own: float
    stolen: float
    slowed: Mapping[str, int]
    processes: Mapping[int, tuple[str, float]]


class Machine:
    """The processors that this process may use, and who else is there."""

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        cpus: frozenset[int] | None = None,
        own_seconds: Callable[[], float] = time.process_time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read nothing yet.

        Args:
            root: folder of `proc` and `sys`.
            cpus: numbers of the processors; unset: those that this process may use.
            own_seconds: returns processor time of this process.
            clock: returns seconds.
        """
        self._root = root
        self.cpus = _allowed_cpus() if cpus is None else cpus
        self._own_seconds = own_seconds
        self._clock = clock

    def read(self) -> Reading:
        """Return the counters as they are now."""
        busy, stolen = self._times()
        return Reading(
            at=self._clock(),
            busy=busy,
            own=self._own_seconds(),
            stolen=stolen,
            slowed=dict(self._slowed()),
            processes=dict(self._processes()),
        )

    def _times(self) -> tuple[float | None, float]:
        """Return the time for which our processors were busy, and that which they were not given."""
        busy, stolen, seen = 0, 0, False
        for line in _lines(self._root / "proc/stat"):
            name, *fields = line.split()
            if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in self.cpus:
                # Time of guests is counted under user and nice already.
                user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
                busy += user + nice + system + irq + softirq
                stolen += steal
                seen = True
        return (busy / _TICKS if seen else None), stolen / _TICKS

    def _slowed(self) -> Iterator[tuple[str, int]]:
        for path in self._cpu_stats():
            for line in _lines(path):
                name, _, value = line.partition(" ")
                if name == "nr_throttled":
                    yield "the processor limit of its container or service (cgroup)", int(value)
                    break
        folders = (self._root / f"sys/devices/system/cpu/cpu{number}/thermal_throttle" for number in sorted(self.cpus))
        counts = [int(line) for folder in folders for line in _lines(folder / "core_throttle_count")]
        if counts:
            yield "the heat of the processor", sum(counts)

    def _cpu_stats(self) -> Iterator[Path]:
        """Yield the file with this process's throttling; what is seen of the tree of control groups differs."""
        base = self._root / "sys/fs/cgroup"
        for line in _lines(self._root / "proc/self/cgroup"):
            _, controllers, group = line.split(":", 2)
            if controllers == "" or "cpu" in controllers.split(","):
                mounted = base / controllers
                for folder in dict.fromkeys((mounted / group.lstrip("/"), mounted)):
                    if (folder / "cpu.stat").is_file():
                        yield folder / "cpu.stat"
                        break

    def _processes(self) -> Iterator[tuple[int, tuple[str, float]]]:
        for folder in (self._root / "proc").glob("[0-9]*"):
            for line in _lines(folder / "stat"):
                # A name may hold spaces and parentheses.
                name, _, rest = line.partition("(")[2].rpartition(")")
                fields = rest.split()
                yield int(folder.name), (name, (int(fields[11]) + int(fields[12])) / _TICKS)
                break


def between(before: Reading, after: Reading, *, cpus: int, max_others: float) -> list[str]:
    """Return what disturbed a measurement between two readings, one line each; empty if nothing did.

    Args:
        before: reading at its beginning.
        after: reading at its end.
        cpus: number of processors that the readings are about.
        max_others: share of them that others may use.
    """
    seconds = max(after.at - before.at, 1e-9)
    found = []
    if before.busy is not None and after.busy is not None:
        others = after.busy - before.busy - (after.own - before.own)
        if others > max(max_others * cpus * seconds, _RESOLUTION_SECONDS):
            found.append(
                f"others used {others / seconds:.1f} of {cpus} processors meanwhile: {_who(before, after, seconds)}"
            )
    stolen = after.stolen - before.stolen
    if stolen > max(MAX_STOLEN * cpus * seconds, _RESOLUTION_SECONDS):
        found.append(f"the host gave {stolen / (cpus * seconds):.0%} of the processors to other machines (steal)")
    for cause, times in after.slowed.items():
        more = times - before.slowed.get(cause, times)
        if more > 0:
            found.append(f"{cause} slowed it {more} times")
    return found


def _who(before: Reading, after: Reading, seconds: float) -> str:
    used = {
        (name, pid): time - before.processes.get(pid, (name, 0.0))[1]
        for pid, (name, time) in after.processes.items()
        if pid != os.getpid()
    }
    busiest = sorted(used, key=lambda process: -used[process])[:_NAMED]
    named = [f"{name} (process {pid})" for name, pid in busiest if used[name, pid] > 0.05 * seconds]
    return ", ".join(named) or "processes that cannot be seen from here"


@dataclass(frozen=True)
class _GpuReading:
    percent: float
    processes: tuple[str, ...]


class Watch:
    """Looks at a device from when it is made until `doubts` is called."""

    def __init__(self, device: torch.device, *, machine: Machine | None = None, ask: Ask | None = None) -> None:
        """Begin.

        Args:
            device: where something is about to be measured by this process.
            machine: its processors; unset: this machine's.
            ask: runs a command and returns what it prints, None if it fails; unset: does so.
        """
        self._device = device
        self._machine = machine or Machine()
        self._ask = ask or _run
        self._let_gpu_rest()  # of what this process has just put there
        self._gpu_before = self._gpu()
        self._before = self._machine.read()

    @property
    def unchecked(self) -> tuple[str, ...]:
        """What cannot be looked at here."""
        missing = []
        if self._before.busy is None:
            missing.append("load of the processors (no /proc/stat)")
        if self._device.type == "cuda" and self._gpu_before is None:
            missing.append(f"load of the GPU (no {_NVIDIA_SMI} that knows it)")
        return tuple(missing)

    def doubts(self) -> tuple[str, ...]:
        """Return what disturbed a measurement since the beginning, one line each; empty if nothing did."""
        limit = MAX_OTHERS.get(self._device.type, MAX_OTHERS["cpu"])
        found = between(self._before, self._machine.read(), cpus=len(self._machine.cpus), max_others=limit)
        if self._gpu_before is None:
            return tuple(found)
        self._let_gpu_rest()
        for when, reading in (("before", self._gpu_before), ("after", self._gpu())):
            if reading is not None and reading.percent > MAX_GPU_PERCENT:
                who = ", ".join(reading.processes[:_NAMED]) or "processes that cannot be seen from here"
                found.append(f"others used {reading.percent:.0f} % of the GPU right {when}: {who}")
        return tuple(found)

    def _let_gpu_rest(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            time.sleep(_GPU_RESTS_SECONDS)

    def _gpu(self) -> _GpuReading | None:
        if self._device.type != "cuda":
            return None
        which = ["-i", f"GPU-{torch.cuda.get_device_properties(self._device).uuid}", "--format=csv,noheader,nounits"]
        percent = self._ask([_NVIDIA_SMI, "--query-gpu=utilization.gpu", *which])
        running = self._ask([_NVIDIA_SMI, "--query-compute-apps=pid,process_name", *which])
        if percent is None or not percent.strip().isdigit():
            return None
        rows = [line.partition(",") for line in (running or "").splitlines() if line.strip()]
        others = [(pid.strip(), name.strip()) for pid, _, name in rows if pid.strip() != str(os.getpid())]
        return _GpuReading(float(percent), tuple(f"{Path(name).name} (process {pid})" for pid, name in others))


def disturbance(device: torch.device, *, seconds: float = 0.5) -> tuple[str, ...]:
    """Return what would disturb a measurement now, one line each; empty if the device is idle.

    Args:
        device: where something is to be measured.
        seconds: how long to look.
    """
    watch = Watch(device)
    time.sleep(seconds)
    return watch.doubts()


def _allowed_cpus() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []  # another kernel, or a process that has ended


def _run(command: list[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout if run.returncode == 0 else None
