"""What does the orchestrator cost?

    python benchmarks/overhead.py            all three parts
    python benchmarks/overhead.py --part many

trials   no-op trials (one report each) through `sweeps` with its ledger on disk, against the same trials through bare Ray Tune with
         random search; both with the same Ray, two at a time, in turns.
long     one real training of about half a minute as a sweep of one trial, against `segda.train` by itself; time in the training
         loop and time of the whole process.
many     1,000 no-op trials on a simulated cluster of 64 accelerators (a Ray resource; 64 trials at a time), again both ways: time
         per trial, the driver's processor time and its memory when 100, 300 and 1,000 trials have ended. Nothing of ours may grow
         with the number of trials that are done. The first 64 trials wait for each other, and the clock starts when all have
         their worker: Tune gives a trial that waits for its worker's start to any worker that becomes free, ends the starting
         one and starts another, so that trials shorter than a start would measure nothing but processes that start in vain.
         With --gpus the 64 are declared as GPUs. Then each trial has a process of its own, which gives all memory of its GPU back
         when it ends, and on few processors the time is that of their starts.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}

import psutil
from rich.console import Console
from rich.table import Table

from segda.config import TrainConfig
from segda.training import Report
from sweeps.checks.makers import spec_from
from sweeps.file.spec import SweepSpec
from sweeps.planning.profiles import Profile

HERE = Path(__file__).parent
SEARCH = {"optimizer.lr": {"low": 1e-3, "high": 1e-1, "log": True}}
MARKS = (100, 300, 1000)
WAYS = {"bare Ray Tune": "run_bare_tune", "sweeps": "run_no_ops"}


def no_op(config: TrainConfig, report: Report, *, folder: Path, acknowledged: int = 0) -> None:
    """A training that is over at once; it has the contract of `segda.train`."""
    meet()
    report(config.steps, {"source/val/miou": config.optimizer.lr}, folder / "checkpoint.pt")


def plain_spec(*, trials: int, concurrency: int, scenes: str = "/nowhere", **changes: object) -> dict[str, object]:
    data = {"dataset": "scenes", "root": scenes}
    return {
        "name": "overhead",
        "base": {
            "data": {
                "source": data | {"domain": "urban"},
                "target": data | {"domain": "rural"},
                "height": 64,
                "width": 64,
            },
            "model": {"name": "bisenet_v1", "backbone": "resnet18", "pretrained": "none"},
            "method": {"name": "source_only"},
            "steps": 1,
            "report_every": 1,
            "precision": "fp32",
        },
        "search": SEARCH,
        "sampler": {"name": "random"},
        "budget": {"trials": trials, "concurrency": concurrency},
        "reuse": False,
    } | changes


def meet() -> None:
    """Wait, in a worker, until as many workers have been here as trials run at a time; all of them wait for the first time only."""
    folder, number = Path(os.environ["OVERHEAD_WORKERS"]), int(os.environ["OVERHEAD_CONCURRENCY"])
    mine = folder / str(os.getpid())
    if not mine.exists():
        mine.touch()
        while len(list(folder.iterdir())) < number:
            time.sleep(0.05)


# Each of these runs in a process of its own.


def run_no_ops(root: str, trials: str, concurrency: str, accelerator: str = "") -> None:
    """Run no-op trials through sweeps on a simulated cluster and print marks."""
    from sweeps.execution import cluster, runner
    from sweeps.ledger.database import Ledger
    from sweeps.store import Store

    cluster.profile_all = lambda architectures, **_: ((item, Profile({"macs": 1e9})) for item in architectures)
    wanted = resources_of_a_trial(accelerator)
    gpus, custom = wanted.pop("GPU", 0), wanted
    resources = {"cpus": 1, "gpus": gpus, "custom": custom}
    spec = spec_from(
        plain_spec(trials=int(trials), concurrency=int(concurrency), resources=resources), where="the benchmark's sweep"
    )
    workers = start_ray(cluster.ray, int(concurrency), root, accelerator)
    store = Store.at(root)
    marks = Marks(int(trials), workers)

    def hear(kind: str, record: object, message: str) -> None:
        if kind == "point":
            marks.start()
        if kind == "complete":
            marks.end_of_a_trial()

    with Ledger.open(store.ledger) as ledger:
        ledger.create_sweep(spec.name, spec=spec.canonical())
        runner.run_sweep(
            spec, ledger=ledger, store=store, train="overhead:no_op", fingerprint=lambda _: "data", listener=hear
        )


def run_bare_tune(root: str, trials: str, concurrency: str, accelerator: str = "") -> None:
    """Run the same trials through Ray Tune alone and print marks."""
    from sweeps.execution import cluster, runner  # sets the same environment for Ray

    ray, tune = cluster.ray, runner.tune
    workers = start_ray(ray, int(concurrency), root, accelerator)
    marks = Marks(int(trials), workers)

    def trainable(config: dict[str, float]) -> None:
        meet()
        tune.report({"miou": config["lr"]})

    class Noting(tune.Callback):  # type: ignore[misc]
        def on_trial_result(self, **_: object) -> None:
            marks.start()

        def on_trial_complete(self, **_: object) -> None:
            marks.end_of_a_trial()

    resources = {"CPU": 1} | resources_of_a_trial(accelerator)
    tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([resources])),
        param_space={"lr": tune.loguniform(1e-3, 1e-1)},
        tune_config=tune.TuneConfig(
            num_samples=int(trials), max_concurrent_trials=int(concurrency), reuse_actors=accelerator != "GPU"
        ),
        run_config=tune.RunConfig(storage_path=root, verbose=0, callbacks=[Noting()]),
    ).fit()


@dataclass(frozen=True)
class Mark:
    """What had been spent when so many trials had ended, counted from the first report."""

    trials: int
    seconds: float
    processor_seconds: float = 0.0  # of the driver
    bytes: int = 0  # of the driver's memory
    workers: int = 1  # processes that have run trials

    def print(self) -> None:
        print("mark", json.dumps(asdict(self)), flush=True)


class Marks:
    """Prints marks of the process that drives trials."""

    def __init__(self, trials: int, workers: Path) -> None:
        self._at = {*MARKS, trials}
        self._workers = workers
        self._ended = 0
        self._began: float | None = None

    def start(self) -> None:
        if self._began is None:
            self._began, self._processor = time.monotonic(), time.process_time()

    def end_of_a_trial(self) -> None:
        self._ended += 1
        if self._ended in self._at and self._began is not None:
            Mark(
                self._ended,
                time.monotonic() - self._began,
                time.process_time() - self._processor,
                psutil.Process().memory_info().rss,
                len(list(self._workers.iterdir())),
            ).print()


def resources_of_a_trial(accelerator: str) -> dict[str, int]:
    """Return what one trial takes beside a processor: one of the simulated accelerators, if there are any."""
    return {accelerator: 1} if accelerator else {}


def start_ray(ray: object, concurrency: int, root: str, accelerator: str = "") -> Path:
    """Start Ray for that many trials at a time; return the folder in which `meet` notes each worker."""
    workers = Path(root) / "workers"
    workers.mkdir()
    environment = {
        "PYTHONPATH": f"{HERE}:{HERE.parent}",
        "OVERHEAD_WORKERS": str(workers),
        "OVERHEAD_CONCURRENCY": str(concurrency),
    }
    resources = dict.fromkeys(resources_of_a_trial(accelerator), concurrency)
    num_gpus = resources.pop("GPU", 0)
    ray.init(  # type: ignore[attr-defined]
        num_cpus=concurrency,
        num_gpus=num_gpus,
        resources=resources,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": environment},
    )
    return workers


def child(part: str, *words: str) -> list[Mark]:
    """Run a part in a process of its own; return its marks."""
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, __file__, "--child", part, root, *words]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    lines = (line.partition("mark ") for line in done.stdout.splitlines())
    return [Mark(**json.loads(found)) for before, _, found in lines if not before and found]


def part_trials(console: Console, rounds: int, trials: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, part in WAYS.items():
            seconds[name].append(child(part, str(trials), "2")[-1].seconds / trials)
    table = Table(
        "way", "ms per trial", "of bare Ray Tune", title=f"{trials} no-op trials, 2 at a time, {rounds} rounds in turns"
    )
    base = statistics.median(seconds["bare Ray Tune"])
    for name, values in seconds.items():
        middle = statistics.median(values)
        shown = f"{1000 * middle:.1f} [{1000 * min(values):.1f}, {1000 * max(values):.1f}]"
        table.add_row(name, shown, f"{middle / base:.2f}")
    console.print(table)


def part_many(console: Console, trials: int, accelerator: str) -> None:
    table = Table(
        "way",
        "trials ended",
        "ms per trial",
        "of the driver's processor",
        "driver's memory, MiB",
        "workers so far",
        title=f"no-op trials, 64 at a time, each with one {accelerator}; per trial since the mark before",
    )
    for name, part in WAYS.items():
        before = Mark(0, 0.0)
        for mark in child(part, str(trials), "64", accelerator):
            ended = mark.trials - before.trials
            table.add_row(
                name,
                str(mark.trials),
                f"{1000 * (mark.seconds - before.seconds) / ended:.1f}",
                f"{1000 * (mark.processor_seconds - before.processor_seconds) / ended:.1f}",
                f"{mark.bytes / 2**20:.0f}",
                str(mark.workers),
            )
            before = mark
    console.print(table)


def run_bare_training(root: str, scenes: str, steps: str) -> None:
    """Train once with the library alone and print the seconds that the training took."""
    import torch

    from segda.training import train

    torch.set_num_threads(1)
    spec = long_spec(scenes, int(steps))
    began = time.monotonic()
    train(spec.train_config({"optimizer.lr": 0.02}, seed=0), lambda *_: None, folder=Path(root) / "run")
    Mark(1, time.monotonic() - began).print()


def run_sweep_training(root: str, scenes: str, steps: str) -> None:
    """Train the same as a sweep of one trial and print the seconds that its worker had it."""
    from sweeps.execution import cluster, runner
    from sweeps.ledger.database import Ledger
    from sweeps.store import Store

    cluster.profile_all = lambda architectures, **_: ((item, Profile({"macs": 1e9})) for item in architectures)
    spec, store = long_spec(scenes, int(steps)), Store.at(root)
    start_ray(cluster.ray, 1, root)
    with Ledger.open(store.ledger) as ledger:
        ledger.create_sweep(spec.name, spec=spec.canonical())
        runner.run_sweep(spec, ledger=ledger, store=store)
        Mark(1, ledger.trial(spec.name, 0).seconds).print()


def long_spec(scenes: str, steps: int) -> SweepSpec:
    plain = plain_spec(trials=1, concurrency=1, scenes=scenes, search={"optimizer.lr": [0.02]})
    plain["base"] = plain["base"] | {"steps": steps, "report_every": max(1, steps // 10)}  # type: ignore[operator]
    return spec_from(plain, where="the benchmark's sweep")


def part_long(console: Console, rounds: int, steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = f"from segda.cli import main; main()|datasets make scenes {folder} --size 64 --train 24 --val 8".split(
            "|"
        )
        subprocess.run([sys.executable, "-c", made[0], *made[1].split()], check=True, capture_output=True)
        ways = {"segda.train": "run_bare_training", "sweeps, one trial": "run_sweep_training"}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        whole: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, part in ways.items():
                began = time.monotonic()
                seconds[name].append(child(part, folder, str(steps))[-1].seconds)
                whole[name].append(time.monotonic() - began)
    table = Table(
        "way",
        "training, s",
        "ratio",
        "whole process, s",
        "ratio",
        title=f"one training of {steps} steps, {rounds} rounds in turns",
    )
    for name in ways:
        row = [name]
        for values in (seconds, whole):
            middle, base = statistics.median(values[name]), statistics.median(values["segda.train"])
            row += [f"{middle:.1f} [{min(values[name]):.1f}, {max(values[name]):.1f}]", f"{middle / base:.2f}"]
        table.add_row(*row)
    console.print(table)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        globals()[sys.argv[2]](*sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["trials", "long", "many"], help="default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=200, help="of part `trials`")
    parser.add_argument("--steps", type=int, default=300, help="of part `long`; about half a minute")
    parser.add_argument("--many", type=int, default=1000, help="trials of part `many`")
    parser.add_argument("--gpus", action="store_true", help="declare the accelerators of part `many` as GPUs")
    arguments = parser.parse_args()
    console = Console(width=120)
    if arguments.part in (None, "trials"):
        part_trials(console, arguments.rounds, arguments.trials)
    if arguments.part in (None, "long"):
        part_long(console, arguments.rounds, arguments.steps)
    if arguments.part in (None, "many"):
        part_many(console, arguments.many, "GPU" if arguments.gpus else "accelerator")


if __name__ == "__main__":
    main()
