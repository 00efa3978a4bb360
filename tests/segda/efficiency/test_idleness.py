"""What others do on a device is read from the kernel's counters, with texts as kernels write them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segda.efficiency import idleness
from segda.efficiency.idleness import Machine, Reading, Watch, between, disturbance

TICKS = os.sysconf("SC_CLK_TCK")
CPU = torch.device("cpu")


class Fake:
    """A machine of four processors, of which a process may use the first two; times are given in seconds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = self.own = 0.0
        self.write("proc/self/cgroup", "4:memory:/box\n1:cpu,cpuacct:/box\n")
        self.set()

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def set(self, *, user: float = 0.0, system: float = 0.0, steal: float = 0.0, elsewhere: float = 0.0) -> None:
        ticks = [round(seconds * TICKS) for seconds in (user, system, steal, elsewhere)]
        line = f"{ticks[0]} 0 {ticks[1]} 999 999 0 0 {ticks[2]} 0 0"
        other = f"{ticks[3]} 0 0 0 0 0 0 {ticks[3]} 0 0"
        rows = [
            "cpu  1 2 3 4 5 6 7 8 0 0",
            f"cpu0 {line}",
            "cpu1 0 0 0 0 0 0 0 0 0 0",
            f"cpu2 {other}",
            f"cpu3 {other}",
        ]
        self.write("proc/stat", "\n".join([*rows, "intr 1 2 3"]))

    def process(self, pid: int, name: str, seconds: float) -> None:
        times = f"{round(seconds * TICKS)} 0"
        self.write(f"proc/{pid}/stat", f"{pid} ({name}) R 1 1 1 0 -1 4194304 1 0 0 0 {times} 0 0 20 0 1 0 5 0 0\n")

    def throttled(self, times: int, *, group: str = "") -> None:
        self.write(f"sys/fs/cgroup/cpu,cpuacct/{group}/cpu.stat", f"nr_periods 9\nnr_throttled {times}\n")

    def machine(self) -> Machine:
        return Machine(self.root, cpus=frozenset({0, 1}), own_seconds=lambda: self.own, clock=lambda: self.now)


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


def doubts(fake: Fake, meanwhile: Callable[[Fake], Any]) -> tuple[str, ...]:
    """What is found after ten seconds in which this process used one processor wholly, and something happened."""
    watch = Watch(CPU, machine=fake.machine())
    fake.now, fake.own = 10.0, 10.0
    fake.set(user=10.0)
    meanwhile(fake)
    return watch.doubts()


def test_a_process_that_computes_alone_disturbs_itself_not(fake: Fake) -> None:
    assert doubts(fake, lambda fake: None) == ()


def test_time_of_others_is_found_and_the_busiest_are_named(fake: Fake) -> None:
    fake.process(11, "python train (x)", 100.0)
    fake.process(12, "sleeper", 50.0)

    def meanwhile(fake: Fake) -> None:
        fake.set(user=15.0, system=3.0)
        fake.process(11, "python train (x)", 107.0)
        fake.process(12, "sleeper", 50.1)
        fake.process(13, "newborn", 1.0)

    assert doubts(fake, meanwhile) == (
        "others used 0.8 of 2 processors meanwhile: python train (x) (process 11), newborn (process 13)",
    )


def test_who_cannot_be_seen_is_not_named(fake: Fake) -> None:
    (line,) = doubts(fake, lambda fake: fake.set(user=20.0))
    assert line.endswith("meanwhile: processes that cannot be seen from here")


def test_processors_that_the_process_may_not_use_do_not_count(fake: Fake) -> None:
    assert doubts(fake, lambda fake: fake.set(user=10.0, elsewhere=10.0)) == ()


@pytest.mark.parametrize(("others", "is_idle"), [(1.9, True), (2.1, False)])
def test_a_tenth_of_the_processors_is_the_limit(fake: Fake, others: float, is_idle: bool) -> None:
    assert (doubts(fake, lambda fake: fake.set(user=10.0 + others)) == ()) is is_idle


def test_time_that_the_host_gave_to_others_is_found(fake: Fake) -> None:
    assert doubts(fake, lambda fake: fake.set(user=10.0, steal=0.3)) == ()
    fake.now = fake.own = 0.0
    fake.set()
    (line,) = doubts(fake, lambda fake: fake.set(user=10.0, steal=1.0))
    assert line == "the host gave 5% of the processors to other machines (steal)"


@pytest.mark.parametrize("group", ["box", ""])
def test_a_processor_limit_that_struck_is_found(fake: Fake, group: str) -> None:
    fake.throttled(3, group=group)
    assert doubts(fake, lambda fake: fake.throttled(5, group=group)) == (
        "the processor limit of its container or service (cgroup) slowed it 2 times",
    )


def test_control_groups_of_the_second_version_are_read_too(fake: Fake) -> None:
    fake.write("proc/self/cgroup", "0::/user.slice/job\n")
    fake.write("sys/fs/cgroup/user.slice/job/cpu.stat", "usage_usec 5\nnr_throttled 1\n")
    machine = fake.machine()
    assert machine.read().slowed == {"the processor limit of its container or service (cgroup)": 1}


def test_a_processor_that_got_too_hot_is_found(fake: Fake) -> None:
    count = "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count"
    fake.write(count, "7\n")
    assert doubts(fake, lambda fake: fake.write(count, "8\n")) == ("the heat of the processor slowed it 1 times",)


def test_what_cannot_be_read_is_told_and_not_taken_for_idle(fake: Fake) -> None:
    (fake.root / "proc/stat").unlink()
    watch = Watch(CPU, machine=fake.machine())
    assert watch.unchecked == ("load of the processors (no /proc/stat)",)
    assert watch.doubts() == ()
    assert Watch(CPU, machine=Fake(fake.root / "other").machine()).unchecked == ()


class Smi:
    """nvidia-smi, which says one load after the other."""

    def __init__(self, *percents: str) -> None:
        self.percents = iter(percents)

    def __call__(self, command: list[str]) -> str | None:
        if "--query-compute-apps=pid,process_name" in command:
            return f"{os.getpid()}, python\n77, /opt/bin/train\n"
        return next(self.percents)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    class Properties:
        uuid = "0-1"

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(idleness, "_GPU_RESTS_SECONDS", 0.0)
    return torch.device("cuda:0")


def test_load_of_the_gpu_before_and_after_is_found(fake: Fake, gpu: torch.device) -> None:
    assert Watch(gpu, machine=fake.machine(), ask=Smi("0\n", "3\n")).doubts() == ()
    assert Watch(gpu, machine=fake.machine(), ask=Smi("0\n", "40\n")).doubts() == (
        "others used 40 % of the GPU right after: train (process 77)",
    )
    assert Watch(gpu, machine=fake.machine(), ask=Smi("99\n", "0\n")).doubts() == (
        "others used 99 % of the GPU right before: train (process 77)",
    )


@pytest.mark.parametrize("said", [None, "[N/A]\n"])
def test_a_gpu_that_nobody_can_ask_about_is_told(fake: Fake, gpu: torch.device, said: Any) -> None:
    watch = Watch(gpu, machine=fake.machine(), ask=lambda command: said)
    assert watch.unchecked == ("load of the GPU (no nvidia-smi that knows it)",)
    assert watch.doubts() == ()


def test_a_gpu_waits_for_one_processor_only() -> None:
    before = Reading(at=0.0, busy=0.0, own=0.0, stolen=0.0, slowed={}, processes={})
    after = Reading(at=1.0, busy=3.0, own=0.0, stolen=0.0, slowed={}, processes={})
    assert between(before, after, cpus=4, max_others=idleness.MAX_OTHERS["cuda"]) == []
    assert len(between(before, after, cpus=4, max_others=idleness.MAX_OTHERS["cpu"])) == 1


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="needs Linux")
def test_a_real_busy_process_is_found_by_its_number() -> None:
    command = "print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True) as busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        found = "".join(disturbance(CPU))
        busy.kill()
    # On a machine where much is going on there may be busier ones.
    assert f"(process {busy.pid})" in found or found.count("(process ") == 3
