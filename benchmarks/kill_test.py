"""Does a sweep survive everything? 20 processes are killed at random moments, and the table must be the undisturbed sweep's.

    python benchmarks/kill_test.py                         ledger in SQLite
    python benchmarks/kill_test.py --ledger postgresql     ledger in a PostgreSQL server, which is killed too
    python benchmarks/kill_test.py --scheduler mo_asha     trials stop early in two objectives; two networks

Real parts throughout: the `sweeps` command, training of segda on procedural scenes, a Ray of two nodes on this machine, an MLflow
server, the ledger's database; finalists are repeated under a budget of seeds. SIGKILL hits at random moments: the driver, a trial's
worker, a worker in the middle of a round of pseudo-labels, the MLflow server, the raylet of the second node; PostgreSQL is shut
down immediately. All are started again after some seconds, the driver with `sweeps resume`.

At the end: no trial lost, no run of MLflow twice, `sweeps audit` finds nothing wrong, and on a processor the final table is, bit
for bit, the table of the same sweep with the same seed that nobody disturbed (`sampler.reproducible`; times are left out).
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "sweeps"))

from ray.cluster_utils import Cluster
from servers import MlflowServer, PostgresServer

from sweeps.execution.retries import retries
from sweeps.ledger.database import Ledger
from sweeps.store import Store
from sweeps.tracking import MlflowClient
from sweeps.trial import TrialRecord, TrialState

SWEEPS = [sys.executable, "-c", "from sweeps.cli import main; main()"]
SEGDA = [sys.executable, "-c", "from segda.cli import main; main()"]
NAME = "kill_test"
# What depends on the clock and not on the computation.
TIMED = ("train/seconds_per_step", "train/images_per_second")


# Objectives and settings of each rule that stops trials early.
_QUALITY = {"metric": "source/val/miou", "direction": "maximize"}
_BOTH = [_QUALITY, {"metric": "macs", "direction": "minimize"}]
SCHEDULERS: dict[str, tuple[list[dict[str, str]], dict[str, object]]] = {
    "asha": ([_QUALITY], {"reduction_factor": 2}),
    "mo_asha": (_BOTH, {"reduction_factor": 2}),
    "dominance": (_BOTH, {"confidence": 0.5}),  # so that some are stopped among few trials
}


def sweep_file(folder: Path, *, trials: int, steps: int, seed: int, scheduler: str) -> Path:
    objectives, settings = SCHEDULERS[scheduler]
    scenes = str(folder / "scenes")
    plain = {
        "name": NAME,
        "question": "Is the table the same whatever is killed?",
        "base": {
            "data": {
                "source": {"dataset": "scenes", "domain": "urban", "root": scenes},
                "target": {"dataset": "scenes", "domain": "rural", "root": scenes},
                "height": 64,
                "width": 64,
                "cache": str(folder / "cache"),
            },
            "model": {"name": "bisenet_v1", "backbone": "resnet18", "pretrained": "none"},
            "method": {"name": "source_only"},
            "steps": steps,
            "report_every": steps // 6,
            "precision": "fp32",
        },
        "search": {
            "method.name": ["source_only", "adversarial", "dacs", "self_training"],
            "method.lambda_adv": {"low": 1e-4, "high": 1e-2, "log": True, "when": {"method.name": "adversarial"}},
            # The first round begins before the first rung: trials that stop there have been in one.
            "method.warm_up": {"choices": [0.1, 0.2], "when": {"method.name": "self_training"}},
            "optimizer.lr": {"low": 5e-3, "high": 1e-1, "log": True},
        },
        "objectives": objectives,
        "scheduler": {"name": scheduler, "min_steps": steps // 3, **settings},
        "sampler": {"name": "tpe", "startup_trials": 4, "reproducible": True},
        "budget": {"trials": trials, "concurrency": 2},
        "seed": seed,
        "seeds": {"budget": 6, "confidence": 0.99},
        "finalists": 2,
    }
    if len(objectives) > 1:
        plain["search"]["model.name"] = ["bisenet_v1", "fast_scnn"]  # type: ignore[index]
        del plain["base"]["model"]["backbone"]  # type: ignore[index]
    path = folder / f"{NAME}.yaml"
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    return path


@dataclass
class Kill:
    """One kill and what followed."""

    at: float
    what: str
    detail: str
    progress: str
    method: str | None = None  # of the trial whose worker was killed


def method_of(record: TrialRecord) -> str:
    return str(record.params["method.name"])


@dataclass
class Bench:
    """The parts of one sweep and how to kill them."""

    folder: Path
    file: Path
    ledger_url: str | None
    mlflow: MlflowServer
    cluster: Cluster
    postgres: PostgresServer | None = None
    kills: list[Kill] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = Store.at(self.folder / "runs")
        self._driver: subprocess.Popen[bytes] | None = None
        self._node = self.cluster.add_node(num_cpus=1)
        self._began = time.monotonic()
        self.restarts = 0
        self.victim: TrialRecord | None = None

    def command(self, *words: str) -> list[str]:
        ledger = ["--ledger", self.ledger_url] if self.ledger_url else []
        return [*SWEEPS, *words, "--store", str(self.store.root), *ledger]

    def start_driver(self) -> None:
        words = ("resume", NAME) if self.restarts else ("run", str(self.file))
        command = self.command(*words, "--address", self.cluster.address, "--tracking", self.mlflow.uri)
        log = (self.folder / "driver.log").open("ab")
        self._driver = subprocess.Popen(command, stdout=log, stderr=log)
        self.restarts += 1

    def poll(self) -> int | None:
        return self._driver.poll() if self._driver is not None else None

    def ledger(self) -> Ledger:
        return Ledger.open(self.ledger_url or self.store.ledger)

    def progress(self) -> str:
        with self.ledger() as ledger:
            states = Counter(str(record.state) for record in ledger.trials(NAME))
        return ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no trial yet"

    def has_begun(self) -> bool:
        with contextlib.suppress(Exception), self.ledger() as ledger:
            return bool(ledger.sweeps())
        return False

    # What can be killed; each returns what was hit, or None if there was nothing to hit

    def kill_driver(self) -> str | None:
        if self._driver is None or self._driver.poll() is not None:
            return None
        self._driver.kill()
        self._driver.wait()
        pid = self._driver.pid
        self.start_driver()
        return f"process {pid}; resumed at once"

    def running(self) -> list[TrialRecord]:
        with self.ledger() as ledger:
            return [record for record in ledger.trials(NAME) if record.state is TrialState.RUNNING and record.worker]

    def kill_worker(self) -> str | None:
        # Methods about equally often: how many of their workers were killed so far decides.
        hit = Counter(kill.method for kill in self.kills)
        running = self.running()
        fewest = min((hit[method_of(record)] for record in running), default=0)
        return self._kill_one([record for record in running if hit[method_of(record)] == fewest])

    def kill_worker_in_a_round(self) -> str | None:
        """Kill a worker whose method has labelled the target and trains on these labels."""
        return self._kill_one(
            [record for record in self.running() if any(self.store.trial(record).glob("round-*.json"))]
        )

    def _kill_one(self, candidates: list[TrialRecord]) -> str | None:
        if not candidates:
            return None
        victim = random.choice(candidates)
        pid = int(str(victim.worker).rpartition(":")[2])
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return None
        self.victim = victim
        return f"trial {victim.number} ({method_of(victim)}) at step {victim.step}, process {pid}"

    def kill_mlflow(self) -> str | None:
        self.mlflow.kill()
        away = random.uniform(1, 8)
        time.sleep(away)
        self.mlflow.start()
        return f"away for {away:.0f} s and its start"

    def kill_raylet(self) -> str | None:
        self.cluster.remove_node(self._node, allow_graceful=False)
        away = random.uniform(1, 5)
        time.sleep(away)
        self._node = self.cluster.add_node(num_cpus=1)
        return f"second node, another one joins after {away:.0f} s"

    def kill_postgres(self) -> str | None:
        if self.postgres is None:
            return None
        self.postgres.kill()
        away = random.uniform(0, 5)
        time.sleep(away)
        self.postgres.start()
        return f"immediate shutdown, away for {away:.0f} s"

    def disturb(self, num_kills: int, *, pause: float) -> None:
        """Kill until the number is reached, then let the sweep end; at most `pause` seconds lie between two kills."""
        ways: list[tuple[str, Callable[[], str | None]]] = [
            ("driver", self.kill_driver),
            ("worker", self.kill_worker),
            ("worker in a round", self.kill_worker_in_a_round),
            ("MLflow server", self.kill_mlflow),
            ("raylet", self.kill_raylet),
        ]
        if self.postgres is not None:
            ways.append(("PostgreSQL", self.kill_postgres))
        while len(self.kills) < num_kills:
            time.sleep(random.uniform(1, pause))
            if self.poll() == 0:
                return
            self.revive()
            # Each way about equally often, in random order.
            times = Counter(kill.what for kill in self.kills)
            possible = [way for way in ways if way[0] != "worker in a round" or self.has_round()]
            fewest = min(times[name] for name, _ in possible)
            name, way = random.choice([way for way in possible if times[way[0]] <= fewest + 1])
            progress = self.progress()
            self.victim = None
            detail = way()
            if detail is not None:
                method = None if self.victim is None else method_of(self.victim)
                self.kills.append(Kill(time.monotonic() - self._began, name, detail, progress, method))
                print(f"  {len(self.kills):2d} {name}: {detail} ({progress})", flush=True)

    def has_round(self) -> bool:
        return any(any(self.store.trial(record).glob("round-*.json")) for record in self.running())

    def revive(self) -> None:
        """Resume a driver that ended by itself because of what was killed around it."""
        code = self.poll()
        if code not in (None, 0):
            print(f"  driver ended with {code}; resumed", flush=True)
            self.start_driver()

    def finish(self, minutes: float = 20.0) -> None:
        deadline = time.monotonic() + 60 * minutes
        while self.poll() != 0:
            if time.monotonic() > deadline:
                raise TimeoutError("the sweep does not end; see driver.log")
            self.revive()
            time.sleep(0.5)


@contextlib.contextmanager
def bench(folder: Path, *, backend: str, **settings: Any) -> Iterator[Bench]:
    """Start Ray, MLflow and the database around a new sweep; all of it is gone at the end."""
    folder.mkdir()
    shutil.copytree(folder.parent / "scenes", folder / "scenes")
    mlflow = MlflowServer(folder)
    mlflow.start()
    postgres = PostgresServer(folder) if backend == "postgresql" else None
    if postgres is not None:
        postgres.start()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made = Bench(
        folder=folder,
        file=sweep_file(folder, **settings),
        ledger_url=postgres.url if postgres else None,
        mlflow=mlflow,
        cluster=cluster,
        postgres=postgres,
    )
    try:
        yield made
    finally:
        if made._driver is not None and made._driver.poll() is None:
            made._driver.kill()
        cluster.shutdown()
        mlflow.kill()
        if postgres is not None:
            postgres.kill()


def table_of(ledger: Ledger) -> list[tuple[object, ...]]:
    """Everything that a sweep found, without what depends on the clock."""

    def untimed(metrics: object) -> dict[str, float]:
        return {name: value for name, value in dict(metrics).items() if name not in TIMED}  # type: ignore[call-overload]

    return [
        (
            *(
                record.number,
                record.key,
                str(record.kind),
                dict(record.params),
                record.seed,
                str(record.state),
                record.step,
            ),
            [(point.step, untimed(point.metrics)) for point in ledger.points(NAME, record.number)],
        )
        for record in ledger.trials(NAME)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--scheduler", choices=SCHEDULERS, default="asha", help="what stops trials early")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument(
        "--pause", type=float, default=12, help="longest time between two kills, seconds; short: starts are hit"
    )
    parser.add_argument("--trials", type=int, default=24, help="of the search; more last longer")
    parser.add_argument("--steps", type=int, default=48, help="per trial, a multiple of 6")
    parser.add_argument("--seed", type=int, default=0, help="of the sweep and of the moments")
    parser.add_argument("--keep", type=Path, help="folder to work in, kept; default: a temporary one")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    # Workers must compute with one thread each, wherever they run.
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with contextlib.ExitStack() as stack:
        root = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o755)
        made = [*SEGDA, *f"datasets make scenes {root / 'scenes'} --size 64 --train 24 --val 8".split()]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        settings = {
            "backend": arguments.ledger,
            "trials": arguments.trials,
            "steps": arguments.steps,
            "seed": arguments.seed,
            "scheduler": arguments.scheduler,
        }
        sys.exit(0 if compare(root, arguments.kills, arguments.pause, settings) else 1)


def compare(root: Path, num_kills: int, pause: float, settings: dict[str, object]) -> bool:
    from sweeps.audit.audit import audit

    print("undisturbed sweep", flush=True)
    began = time.monotonic()
    with bench(root / "undisturbed", **settings) as calm:  # type: ignore[arg-type]
        calm.start_driver()
        calm.finish()
        with calm.ledger() as ledger:
            expected = table_of(ledger)
    calm_seconds = time.monotonic() - began
    print(f"disturbed sweep, {num_kills} kills", flush=True)
    began = time.monotonic()
    with bench(root / "disturbed", **settings) as wild:  # type: ignore[arg-type]
        wild.start_driver()
        while not wild.has_begun():
            time.sleep(0.2)
        wild.disturb(num_kills, pause=pause)
        wild.finish()
        subprocess.run(wild.command("sync", NAME), check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - began
        with wild.ledger() as ledger:
            found = table_of(ledger)
            events = Counter(str(failure) for _, failure, _ in retries(ledger.events(NAME)))
            checks = audit(NAME, ledger=ledger, store=wild.store)
            attempts = sum(record.attempt for record in ledger.trials(NAME))
        client = MlflowClient(wild.mlflow.uri)
        runs = client.search_runs([client.get_experiment_by_name(NAME).experiment_id], max_results=1000)
    numbers = Counter(run.data.tags.get("sweep.number", "sweep") for run in runs)
    console = Console(width=150)
    shown = Table(
        "#", "at", "killed", "detail", "trials at that moment", title=f"kills, ledger in {settings['backend']}"
    )
    for index, kill in enumerate(wild.kills, 1):
        shown.add_row(str(index), f"{kill.at:.0f} s", kill.what, kill.detail, kill.progress)
    console.print(shown)
    differing = [mine[0] for mine, theirs in zip(found, expected, strict=False) if mine != theirs]
    failed = [check for check in checks if not check.ok]
    hit = Counter(kill.method for kill in wild.kills if kill.method)
    verdicts = {
        f"{len(wild.kills)} kills, of workers by method {dict(hit)}": len(wild.kills) >= num_kills
        and {"dacs", "self_training"} <= hit.keys(),
        f"{len(found)} trials, {len(expected)} undisturbed": len(found) == len(expected),
        f"final table differs in {len(differing)} trials {differing or ''}": not differing,
        f"{sum(count - 1 for count in numbers.values())} runs of MLflow twice, {len(numbers)} in all": (
            set(numbers.values()) == {1} and len(numbers) == len(found) + 1
        ),
        f"runs of MLflow in state {sorted({run.info.status for run in runs})}": {run.info.status for run in runs}
        <= {"FINISHED", "FAILED"},
        f"audit: {len(checks) - len(failed)} of {len(checks)} checks hold {[str(check) for check in failed] or ''}": not failed,
    }
    for text, holds in verdicts.items():
        console.print(f"{'ok    ' if holds else 'FAILED'} {text}", markup=False)
    console.print(
        f"{wild.restarts} drivers, {attempts} attempts for {len(found)} trials, lost attempts: {dict(events)}; "
        f"{seconds:.0f} s disturbed, {calm_seconds:.0f} s undisturbed"
    )
    return all(verdicts.values())


if __name__ == "__main__":
    main()
