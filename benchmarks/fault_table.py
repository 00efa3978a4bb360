"""What is lost when something goes wrong, what is the exit code, and what does the user read? One row per fault.

    python benchmarks/fault_table.py                          all of them, about fifteen minutes
    python benchmarks/fault_table.py full_disk closed_pipe    some
    python benchmarks/fault_table.py --list

Real parts: the program `sweeps`, Ray, MLflow's database, training of segda on procedural scenes. Each fault happens to a small
sweep of its own, which must then end as if nothing had happened: all trials of its budget complete, each once, and `sweeps audit`
content.
"""

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from sweeps.ledger.database import Ledger
from sweeps.store import Store
from sweeps.tracking import MlflowClient
from sweeps.trial import TrialState

SWEEPS = [sys.executable, "-c", "from sweeps.main import main; main()"]
SEGDA = [sys.executable, "-c", "from segda.cli import main; main()"]
NAME = "faults"
TRIALS = 4
STOPPED = 75


class Skipped(Exception):
    """The fault cannot be made here."""


@dataclass
class Row:
    """One fault.

    Attributes:
        fault: what happened.
        codes: exit codes of the drivers, in order.
        lost: what is missing or double at the end; empty: nothing.
        read: the last lines that the user read when it happened.
        seconds: from the fault to what it led to, where that matters.
    """

    fault: str
    codes: list[int] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    read: str = ""
    seconds: float | None = None


@dataclass
class Driver:
    """A `sweeps` process and the file that has its output."""

    process: subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def end(self, seconds: float = 400) -> int:
        """Wait for its end; -9 if it had to be killed."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def last_line(self, word: str = "") -> str:
        """Return the last line that has a word, else the last of all."""
        lines = [line.strip() for line in self.text().splitlines() if line.strip()]
        return next((line for line in reversed(lines) if word in line), lines[-1] if lines else "")


class Bench:
    """A folder with data, a sweep file and a store, for one fault."""

    def __init__(self, folder: Path, scenes: Path, *, store: Path | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.scenes = folder / "scenes"
        shutil.copytree(scenes, self.scenes)
        self.store = Store.at(store or folder / "runs")
        self._logs = 0

    def file(self, *, name: str = NAME, steps: int = 4, trials: int = TRIALS, **more: object) -> Path:
        side = {"dataset": "scenes", "root": str(self.scenes)}
        plain = {
            "name": name,
            "base": {
                "data": {
                    "source": side | {"domain": "urban"},
                    "target": side | {"domain": "rural"},
                    "height": 64,
                    "width": 64,
                    "cache": str(self.folder / "cache"),
                },
                "model": {"name": "bisenet_v1", "backbone": "resnet18", "pretrained": "none"},
                "method": {"name": "source_only"},
                "steps": steps,
                "report_every": 2,
                "batch_size": 2,
            },
            "search": {"optimizer.lr": {"low": 1e-3, "high": 1e-2, "log": True}},
            "sampler": {"name": "random"},
            "budget": {"trials": trials, "hours": 1, "concurrency": 1},
            "resources": {"cpus": 1, "gpus": 0},
        } | more
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(plain, sort_keys=False))
        return path

    def start(self, *words: str, environment: Mapping[str, str] = os.environ, prefix: tuple[str, ...] = ()) -> Driver:
        self._logs += 1
        log = self.folder / f"driver-{self._logs}.log"
        command = [*prefix, *SWEEPS, *words, "--store", str(self.store.root)]
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, env=dict(environment), start_new_session=True)
        return Driver(process, log)

    def run(self, *words: str) -> Driver:
        driver = self.start(*words)
        driver.end()
        return driver

    def completed(self) -> int:
        """Return how many trials are complete; 0 before there is a sweep."""
        with contextlib.suppress(Exception), Ledger.open(self.store.ledger) as ledger:
            return sum(record.state is TrialState.COMPLETE for record in ledger.trials(NAME))
        return 0

    def wait_for(self, driver: Driver, condition: Callable[[], object], *, seconds: float = 200) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if driver.process.poll() is not None:
                raise RuntimeError(f"the driver ended before the fault could happen: {driver.last_line()}")
            if time.monotonic() > deadline:
                driver.process.kill()
                raise RuntimeError(f"what the fault waits for does not come: {driver.last_line()}")
            time.sleep(0.1)

    def lost(self, *, trials: int = TRIALS) -> list[str]:
        """Return what is missing, double or contradicts itself."""
        with Ledger.open(self.store.ledger) as ledger:
            states = Counter(str(record.state) for record in ledger.trials(NAME))
        found = [] if states == {"complete": trials} else [f"trials: {dict(states)}"]
        audit = self.run("audit", NAME)
        return found if audit.process.returncode == 0 else [*found, f"audit: {audit.last_line()}"]


# The faults


def full_disk(bench: Bench) -> Row:
    """The disk of store, ledger and cache is full for half a minute."""
    driver = bench.start("run", str(bench.file(steps=6)))
    bench.wait_for(driver, lambda: bench.completed() >= 1)
    ballast = fill(bench.store.root.parent)
    time.sleep(30)
    read = driver.last_line()
    ballast.unlink()
    codes = [driver.end()]
    if codes == [STOPPED]:  # the ledger itself found no room
        read = driver.last_line()
        codes.append(bench.run("resume", NAME).process.returncode)
    return Row("disk full for half a minute", codes, bench.lost(), read)


def full_disk_stays(bench: Bench) -> Row:
    """The disk stays full until the driver gives up; then there is room again."""
    patience = {"cpus": 1, "gpus": 0, "outage_minutes": 1}
    driver = bench.start("run", str(bench.file(steps=6, resources=patience)))
    bench.wait_for(driver, lambda: bench.completed() >= 1)
    ballast = fill(bench.store.root.parent)
    codes = [driver.end()]
    ballast.unlink()
    codes.append(bench.run("resume", NAME).process.returncode)
    return Row("disk full until the driver gives up; room again, resumed", codes, bench.lost(), driver.last_line())


def data_outage(bench: Bench) -> Row:
    """The data are away for a minute."""
    driver = bench.start("run", str(bench.file()))
    bench.wait_for(driver, lambda: bench.completed() >= 1)
    away = bench.scenes.with_name("away")
    bench.scenes.rename(away)
    time.sleep(60)
    read = driver.last_line("nothing works")
    away.rename(bench.scenes)
    return Row("data renamed away for 60 s", [driver.end()], bench.lost(), read)


def kill_at_start(bench: Bench) -> Row:
    """The driver is killed again and again while its store is made."""
    file = bench.file()
    codes = []
    for wait in (0.0, 0.3, 0.6, 1.0, 1.5, 2.0):
        driver = bench.start("run", str(file))
        bench.wait_for(driver, bench.store.ledger.exists)
        bench.wait_for(driver, lambda: list(bench.store.root.glob("*mlflow*")))
        time.sleep(wait)
        os.killpg(driver.process.pid, signal.SIGKILL)
        codes.append(driver.end())
    last = bench.run("run", str(file))
    codes.append(last.process.returncode)
    return Row("killed six times while the store was made, then run", codes, bench.lost(), last.last_line())


def two_starts(bench: Bench) -> Row:
    """Two sweeps start at once in a new store, and one of them twice."""
    other = bench.file(name="other")
    mine = bench.file()
    drivers = [bench.start("run", str(path)) for path in (mine, other, mine)]
    codes = [driver.end() for driver in drivers]
    refused = drivers[0] if codes[0] else drivers[2]
    return Row("two sweeps and one of them twice, at once in a new store", codes, bench.lost(), refused.last_line())


def moved_store(bench: Bench) -> Row:
    """The store is moved, and the sweep goes on there."""
    codes = [bench.run("run", str(bench.file(trials=2))).process.returncode]
    old = bench.store.root
    bench.store = Store.at(old.with_name("moved"))
    old.rename(bench.store.root)
    last = bench.run("resume", NAME, "--trials", str(TRIALS))
    codes.append(last.process.returncode)
    lost = bench.lost()
    if old.exists():
        lost.append(f"files in the old place: {[path.name for path in old.rglob('*')][:3]}")
    return Row("store moved between two drivers", codes, lost, last.last_line())


def copied_store(bench: Bench) -> Row:
    """The store is copied, and the sweep goes on in the copy."""
    codes = [bench.run("run", str(bench.file(trials=2))).process.returncode]
    original = bench.store.root
    before = _contents(original)
    bench.store = Store.at(original.with_name("copy"))
    shutil.copytree(original, bench.store.root)
    last = bench.run("resume", NAME, "--trials", str(TRIALS))
    codes.append(last.process.returncode)
    lost = bench.lost()
    if _contents(original) != before:
        lost.append("the original's files have changed")
    return Row("store copied, resumed in the copy", codes, lost, last.last_line())


def restored_ledger(bench: Bench) -> Row:
    """The ledger is restored from a backup that lacks the newest trials."""
    codes = [bench.run("run", str(bench.file(trials=2))).process.returncode]
    backup = bench.folder / "backup.db"
    _copy_database(bench.store.ledger, backup)
    codes.append(bench.run("resume", NAME, "--trials", str(TRIALS)).process.returncode)
    for file in bench.store.root.glob("ledger.db*"):
        file.unlink()
    shutil.copy(backup, bench.store.ledger)
    last = bench.run("resume", NAME, "--trials", str(TRIALS))
    codes.append(last.process.returncode)
    return Row("ledger restored from a backup without the newest trials", codes, bench.lost(), last.last_line())


def renamed_experiment(bench: Bench) -> Row:
    """Somebody renames the experiment on MLflow's page."""
    codes = [bench.run("run", str(bench.file(trials=2))).process.returncode]
    client = MlflowClient(f"sqlite:///{bench.store.mlflow}")
    client.rename_experiment(client.get_experiment_by_name(NAME).experiment_id, "mine")
    last = bench.run("resume", NAME, "--trials", str(TRIALS))
    codes.append(last.process.returncode)
    lost = bench.lost()
    names = sorted(experiment.name for experiment in client.search_experiments())
    if names not in (["mine"], ["Default", "mine"]):
        lost.append(f"experiments: {names}")
    return Row("experiment renamed between two drivers", codes, lost, last.last_line())


def group_sigterm(bench: Bench) -> Row:
    """SIGTERM to the driver's process group."""
    driver = bench.start("run", str(bench.file(steps=40)))
    bench.wait_for(driver, lambda: "started" in driver.text())
    time.sleep(3)
    sent = time.monotonic()
    os.killpg(driver.process.pid, signal.SIGTERM)
    codes = [driver.end(150)]
    seconds = time.monotonic() - sent
    codes.append(bench.run("resume", NAME).process.returncode)
    return Row("SIGTERM to the process group, then resumed", codes, bench.lost(), driver.last_line(), seconds)


def gcs_killed(bench: Bench) -> Row:
    """Ray's own server of the cluster's state is killed."""
    driver = bench.start("run", str(bench.file(steps=40)))
    bench.wait_for(driver, lambda: "started" in driver.text())
    time.sleep(3)
    servers = [pid for pid in _descendants(driver.process.pid) if "gcs_server" in _command(pid)]
    if not servers:
        raise Skipped("found no gcs_server below the driver")
    sent = time.monotonic()
    os.kill(servers[0], signal.SIGKILL)
    codes = [driver.end(150)]
    seconds = time.monotonic() - sent
    codes.append(bench.run("resume", NAME).process.returncode)
    return Row("Ray's GCS killed, then resumed", codes, bench.lost(), driver.last_line(), seconds)


def clock_ahead(bench: Bench) -> Row:
    """A driver on another machine whose clock was two hours ahead has died."""
    codes = [bench.run("run", str(bench.file(trials=2))).process.returncode]
    with sqlite3.connect(bench.store.ledger) as ledger:
        driver = "othernode:123:someboot.4026531836/77/abcd1234"
        change = "update sweep set driver=?, driver_seen=? where name=?"
        ledger.execute(change, (driver, time.time() + 7200, NAME))
    began = time.monotonic()
    last = bench.run("resume", NAME, "--trials", str(TRIALS))
    codes.append(last.process.returncode)
    return Row(
        "driver elsewhere died with its clock two hours ahead",
        codes,
        bench.lost(),
        last.last_line("driver"),
        time.monotonic() - began,
    )


def closed_pipe(bench: Bench) -> Row:
    """Nobody reads the output any more; the disk of the log is full; the terminal cannot show what is written."""
    file = bench.file(trials=2)
    command = shlex.join([*SWEEPS, "run", str(file), "--store", str(bench.store.root)])
    piped = subprocess.run(
        ["bash", "-c", f"{command} 2>&1 | head -n 1; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    codes = [piped.returncode]
    words = ["resume", NAME, "--store", str(bench.store.root), "--trials"]
    with Path("/dev/full").open("wb") as full:
        codes.append(subprocess.run([*SWEEPS, *words, "3"], stdout=full, stderr=full).returncode)
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    driver = bench.start("resume", NAME, "--trials", str(TRIALS), environment=ascii_only)
    codes.append(driver.end())
    row = "output into `head -n 1`, a full disk, an ASCII terminal"
    return Row(row, codes, bench.lost(), piped.stdout.strip() or "(nothing)")


FAULTS: dict[str, tuple[Callable[[Bench], Row], list[list[int]]]] = {
    "full_disk": (full_disk, [[0], [STOPPED, 0]]),
    "full_disk_stays": (full_disk_stays, [[STOPPED, 0]]),
    "data_outage": (data_outage, [[0]]),
    "kill_at_start": (kill_at_start, [[-9] * 6 + [0]]),
    "two_starts": (two_starts, [[0, 0, 2], [2, 0, 0]]),
    "moved_store": (moved_store, [[0, 0]]),
    "copied_store": (copied_store, [[0, 0]]),
    "restored_ledger": (restored_ledger, [[0, 0, 0]]),
    "renamed_experiment": (renamed_experiment, [[0, 0]]),
    "group_sigterm": (group_sigterm, [[STOPPED, 0]]),
    "gcs_killed": (gcs_killed, [[STOPPED, 0]]),
    "clock_ahead": (clock_ahead, [[0, 0]]),
    "closed_pipe": (closed_pipe, [[0, 0, 0]]),
}
ON_SMALL_DISK = {"full_disk", "full_disk_stays"}


def fill(disk: Path) -> Path:
    """Fill a disk with a file, and return it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * (1 << 16)):
            pass
    return ballast


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _copy_database(source: Path, target: Path) -> None:
    with sqlite3.connect(source) as before, sqlite3.connect(target) as after:
        before.backup(after)


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _descendants(pid: int) -> list[int]:
    children = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += [int(child) for child in task.read_text().split()]
    return children + [grandchild for child in children for grandchild in _descendants(child)]


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a small disk; only root may."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        raise Skipped("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def happen(name: str, root: Path, scenes: Path) -> Row:
    """Let a fault happen to a sweep of its own."""
    fault, _ = FAULTS[name]
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(small_disk(root / name / "disk", 600)) / "runs" if name in ON_SMALL_DISK else None
        return fault(Bench(root / name / "bench", scenes, store=store))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="names, see --list; default: all")
    parser.add_argument("--list", action="store_true", help="list the faults")
    parser.add_argument("--keep", type=Path, help="folder to work in, kept; default: a temporary one")
    arguments = parser.parse_args()
    if arguments.list:
        for name, (fault, _) in FAULTS.items():
            print(f"{name:20s} {fault.__doc__}")
        return
    if unknown := set(arguments.faults) - FAULTS.keys():
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; --list lists them")
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    table = Table("fault", "exit codes", "lost", "seconds", "what the user reads", title="faults", show_lines=True)
    is_good = True
    with contextlib.ExitStack() as stack:
        root = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        root.mkdir(parents=True, exist_ok=True)
        scenes = root / "scenes"
        made = [*SEGDA, *f"datasets make scenes {scenes} --size 64 --train 6 --val 3".split()]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for name in arguments.faults or FAULTS:
            began = time.monotonic()
            try:
                row = happen(name, root, scenes)
            except Skipped as reason:
                print(f"{name}: skipped, {reason}", flush=True)
                continue
            except RuntimeError as error:
                row = Row(name, lost=[str(error)])
            _, expected = FAULTS[name]
            if row.codes not in expected:
                row.lost.append(f"exit codes should be {' or '.join(map(str, expected))}")
            is_good &= not row.lost
            print(f"{name}: {'; '.join(row.lost) or 'ok'} ({time.monotonic() - began:.0f} s)", flush=True)
            seconds = "" if row.seconds is None else f"{row.seconds:.0f}"
            codes = ", ".join(map(str, row.codes))
            table.add_row(row.fault, codes, "; ".join(row.lost) or "nothing", seconds, row.read)
    Console(width=160).print(table, markup=False)
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
