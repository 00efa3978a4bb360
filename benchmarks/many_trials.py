"""What does it cost to look at a large sweep? A ledger is filled with trials that nobody trained, and each command is run on it.

    python benchmarks/many_trials.py                              20,000 trials of 5 reports
    python benchmarks/many_trials.py --before ../other-checkout   the same with other code, and how many times as much that takes
    python benchmarks/many_trials.py --drive 5000                 also what a driver of so many trials costs, event by event

Seconds and the most memory are those of the whole process, imports included; on a busy machine compare the processor's seconds. The
trials have configurations and metrics of the size of real ones, a third was trained in full and the others stopped early; there are
no files beside the ledger.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sweeps.checks.makers import load_spec
from sweeps.commands.driving import changed
from sweeps.execution.coordinator import Coordinator, Wait
from sweeps.failures import FailureClass
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import RETRIED
from sweeps.ledger.tables import EVENT, POINT, TRIAL
from sweeps.paths import with_values
from sweeps.planning.machines import stated
from sweeps.planning.profiles import Profile, reachable
from sweeps.search.quasi_random import value_at_unit
from sweeps.store import Store
from sweeps.trial import TrialKind, TrialState

HERE = Path(__file__).resolve().parents[1]
CLASSES = ("background", "building", "road", "water", "barren", "forest", "agricultural")
PROFILE = {"num_parameters": 12e6, "macs": 3e9, "latency_ms": 20.0, "fps": 50.0, "peak_memory_bytes": 1e8}
COMMANDS = (
    ("status", ["status"]),
    ("status NAME", ["status", "big"]),
    ("report NAME", ["report", "big"]),
    ("export --csv", ["export", "big", "--csv", "trials.csv"]),
    ("export --optuna", ["export", "big", "--optuna", "study.db"]),
    ("audit --no-mlflow", ["audit", "big", "--no-mlflow"]),
)
# The system's figure for a process counts the one that started it as well.
PEAK = """
import atexit, os
status = lambda: next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
atexit.register(lambda: open(os.environ["PEAK"], "w").write(status().split()[1]))
"""
RESULTS = "import sweeps; print(len(sweeps.results('big', store='.')))"
PROGRAM = "from sweeps.main import main; main()"
MOST_SECONDS = 600


def figures(quality: float, draw: random.Random) -> dict[str, float]:
    """Return the metrics of one report."""
    found = {"source/val/miou": quality, "oracle/target/miou": 0.8 * quality, "source/val/pixel_accuracy": quality}
    for split in ("source/val", "oracle/target"):
        found |= {f"{split}/iou/{name}": quality * draw.random() for name in CLASSES}
    found |= {f"train/loss/{name}": draw.random() for name in ("segmentation", "adversarial", "discriminator")}
    found |= {
        "target/largest_class_share": draw.random(),
        "target/missing_classes": 0.0,
        "target/entropy": draw.random(),
    }
    return found | {"train/seconds_per_step": 0.1, "train/images_per_second": 40.0}


def rows(spec: SweepSpec, *, trials: int, points: int) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield trials with their reports, as rows of the ledger's tables."""
    draw = random.Random(0)
    branches = list(spec.space.branches())
    configs: dict[str, dict[str, Any]] = {}
    steps = int(spec.base["steps"])
    for number in range(trials):
        branch = branches[number % len(branches)]
        params: dict[str, Any] = {}
        for item in spec.space.parameters:
            if item.path in branch:
                params[item.path] = branch[item.path]
            elif item.is_active(params):
                params[item.path] = value_at_unit(item.distribution, draw.random())
        shape = repr({path: value for path, value in params.items() if not isinstance(value, float)})
        if shape not in configs:
            configs[shape] = spec.train_config(params, seed=0).model_dump(mode="json")
        config = with_values(configs[shape], params)
        is_complete, is_failed = number % 3 == 0, number % 50 == 49
        state = TrialState.FAILED if is_failed else TrialState.COMPLETE if is_complete else TrialState.PRUNED
        count = points if is_complete else 1 + number % points
        reports = [(steps * (index + 1) // points, figures(draw.random(), draw)) for index in range(count)]
        yield (
            {
                "sweep": spec.name,
                "number": number,
                "key": f"{number:016x}",
                "kind": TrialKind.SEARCH,
                "params": params,
                "config": config,
                "seed": 0,
                "state": state,
                "attempt": 1,
                "metrics": reports[-1][1],
                "step": reports[-1][0],
                "profile": PROFILE,
                "failure": FailureClass.DIVERGED if is_failed else None,
                "error": "the loss is NaN at step 3" if is_failed else None,
                "created": 1e9 + number,
                "started": 1e9 + number,
                "finished": 1e9 + number + 60,
                "worker": "node:1",
                "device": "GPU 0",
                "seconds": 60.0,
            },
            [
                {
                    "sweep": spec.name,
                    "number": number,
                    "step": step,
                    "timestamp": 1e9 + number + step,
                    "metrics": metrics,
                }
                for step, metrics in reports
            ],
        )


def fill(ledger: Ledger, spec: SweepSpec, *, trials: int, points: int) -> None:
    """Put a sweep with its trials, reports and events into a ledger."""
    ledger.create_sweep(spec.name, spec=spec.canonical())
    made = list(rows(spec, trials=trials, points=points))
    lost = {
        "sweep": spec.name,
        "timestamp": 1e9,
        "kind": RETRIED,
        "message": "its process died",
        "failure": FailureClass.WORKER_LOST,
    }
    with ledger.changing(spec.name) as connection:
        connection.execute(TRIAL.insert(), [trial for trial, _ in made])
        connection.execute(POINT.insert(), [point for _, reports in made for point in reports])
        connection.execute(EVENT.insert(), [lost | {"number": number} for number in range(0, trials, 10)])
    ledger.update_sweep(spec.name, state="finished", seconds=3600.0)


def measured(words: Sequence[str], folder: Path, code: Path) -> tuple[float, float, float] | None:
    """Run a program with some checkout's code; return seconds, those of the processor, and peak memory in MB.

    None if it takes too long.
    """
    environment = os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "PEAK": str(folder / "peak")}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if time.perf_counter() - began > MOST_SECONDS:
            process.kill()
            process.wait()
            return None
        time.sleep(0.02)
    if os.waitstatus_to_exitcode(status) not in (0, 1):  # 1: the audit misses files
        assert process.stderr is not None
        sys.exit(f"{words} failed: {process.stderr.read()[-2000:]}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, int((folder / "peak").read_text()) / 1e3


def shown(result: tuple[float, float, float] | None) -> tuple[str, str, str]:
    """Return the figures as text."""
    return (
        (f"> {MOST_SECONDS}", "", "")
        if result is None
        else (f"{result[0]:.1f}", f"{result[1]:.1f}", f"{result[2]:.0f}")
    )


def drive(spec: SweepSpec, folder: Path, *, trials: int) -> None:
    """Print what a driver of a sweep with so many trials takes to start, and for each event."""
    spec = changed(spec, name="driven", trials=2 * trials)
    with Ledger.open(folder / "ledger.db") as ledger:
        fill(ledger, spec, trials=trials, points=5)
        began = time.process_time()
        coordinator = Coordinator(
            spec,
            allotment=stated(spec),
            ledger=ledger,
            store=Store.at(folder),
            profiles={architecture: Profile(metrics=PROFILE) for architecture in reachable(spec)},
            fingerprint=lambda config: "data",
        )
        task = coordinator.next_task()
        print(
            f"a driver of {trials} trials, processor time: {time.process_time() - began:.1f} s until it hands out the first"
        )
        draw, seconds = random.Random(1), {"proposal": 0.0, "report": 0.0, "end": 0.0}
        for _ in range(20):
            assert not isinstance(task, Wait)
            for step in (40, 80, 120):
                began = time.process_time()
                message = {"event": "point", "step": step, "metrics": figures(0.99, draw)}
                coordinator.on_message(task.number, task.attempt, message)
                seconds["report"] += (time.process_time() - began) / 3
            began = time.process_time()
            coordinator.on_message(task.number, task.attempt, {"event": "finished"})
            seconds["end"] += time.process_time() - began
            began = time.process_time()
            task = coordinator.next_task()
            seconds["proposal"] += time.process_time() - began
        print(", ".join(f"{what}: {1000 * took / 20:.1f} ms" for what, took in seconds.items()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--points", type=int, default=5)
    parser.add_argument("--before", type=Path, help="checkout of other code to compare with")
    parser.add_argument("--drive", type=int, metavar="TRIALS", help="trials of a sweep that is driven on")
    parser.add_argument("--only", nargs="*", help="commands to run, by the first column")
    options = parser.parse_args()
    spec = changed(load_spec(HERE / "sweeps" / "configs" / "demo.yaml"), name="big", trials=options.trials)
    programs = [(name, ["-c", PEAK + PROGRAM, *words, "--store", "."]) for name, words in COMMANDS]
    programs.append(("results()", ["-c", PEAK + RESULTS]))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with Ledger.open(folder / "ledger.db") as ledger:
            fill(ledger, spec, trials=options.trials, points=options.points)
        size = (folder / "ledger.db").stat().st_size / 1e6
        table = Table("command", title=f"{options.trials} trials, ledger of {size:.0f} MB")
        for side in ("", " before")[: 2 if options.before else 1]:
            table.add_column(f"seconds{side}", justify="right")
            table.add_column(f"of the processor{side}", justify="right")
            table.add_column(f"MB{side}", justify="right")
        if options.before:
            table.add_column("times faster", justify="right")
        for name, words in programs:
            if options.only and name not in options.only:
                continue
            sides = [measured(words, folder, code) for code in (HERE, options.before) if code is not None]
            (folder / "study.db").unlink(missing_ok=True)
            cells = [cell for side in sides for cell in shown(side)]
            if options.before:
                now, before = (side and side[0] for side in sides)
                cells.append(
                    "" if now is None else f"> {MOST_SECONDS / now:.0f}" if before is None else f"{before / now:.1f}"
                )
            table.add_row(name, *cells)
            print(name, *cells, flush=True)
        Console().print(table)
    if options.drive:
        with tempfile.TemporaryDirectory() as temporary:
            drive(spec, Path(temporary), trials=options.drive)


if __name__ == "__main__":
    main()
