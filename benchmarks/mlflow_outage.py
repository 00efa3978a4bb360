"""Does an outage of MLflow cost anything? The server is killed in mid-sweep and comes back a minute later.

    python benchmarks/mlflow_outage.py                            60 s without a server
    python benchmarks/mlflow_outage.py --outage 20 --trials 20

Real parts: Ray, an MLflow server over SQLite, a sweep as `sweeps run` drives it; only the training is a fake that reports every
0.1 s. The table says whether a trial failed or waited, whether a figure is missing or double, and how long after the server
answered again MLflow had everything that was reported until then.
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "sweeps"))

import fakes
from servers import MlflowServer

from sweeps.checks.makers import spec_from
from sweeps.commands.driving import begin, drive
from sweeps.execution import cluster
from sweeps.ledger.database import Ledger
from sweeps.store import Store
from sweeps.tracking import MlflowClient, compare
from sweeps.tracking.runs import CURSOR
from sweeps.trial import TrialState

STEPS = 60
CONCURRENCY = 2


class Outage(threading.Thread):
    """Kills the server some time after the first reports, starts it again, and watches MLflow catch up."""

    def __init__(self, server: MlflowServer, ledger: Ledger, *, before: float, seconds: float) -> None:
        super().__init__(daemon=True)
        self.server, self.ledger, self.before, self.seconds = server, ledger, before, seconds
        self.began = self.ended = 0.0
        self.unsent = 0
        self.delay: float | None = None

    def run(self) -> None:
        while not any(record.step for record in self.ledger.trials("demo")):
            time.sleep(0.2)
        time.sleep(self.before)
        self.server.kill()
        self.began = time.time()
        at_kill = self.newest()
        # Starting takes a while; the outage is until it answers.
        time.sleep(max(0.0, self.seconds - 10))
        self.server.start()
        while time.time() < self.began + self.seconds:
            time.sleep(0.1)
        self.ended = time.time()
        reported = self.newest()
        self.unsent = reported - at_kill
        client = MlflowClient(self.server.uri)
        parent = self.ledger.sweep("demo").parent_run_id
        # The tag begins with the id of the last point that MLflow has.
        while int(client.get_run(parent).data.tags.get(CURSOR, "0").partition(" ")[0]) < reported:
            time.sleep(0.2)
        self.delay = time.time() - self.ended

    def newest(self) -> int:
        return max(
            point.id for record in self.ledger.trials("demo") for point in self.ledger.points("demo", record.number)
        )


def gaps(ledger: Ledger, begin: float, end: float) -> list[float]:
    """Seconds between the reports of a trial, for reports in a period."""
    found = []
    for record in ledger.trials("demo"):
        times = [point.timestamp for point in ledger.points("demo", record.number)]
        found += [later - earlier for earlier, later in itertools.pairwise(times) if begin <= later <= end]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outage", type=float, default=60.0, metavar="S", help="seconds without a server")
    parser.add_argument(
        "--before", type=float, default=15.0, metavar="S", help="seconds from the first report to the kill"
    )
    parser.add_argument("--trials", type=int, default=40)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = MlflowServer(Path(folder))
        server.start()
        try:
            measure(server, Path(folder), arguments)
        finally:
            server.kill()


def measure(server: MlflowServer, folder: Path, arguments: argparse.Namespace) -> None:
    cluster.profile_all = lambda architectures, **_: ((item, fakes.profile(item)) for item in architectures)
    # Workers import the fake training by name.
    os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:2], os.environ.get("PYTHONPATH", "")])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    plain = fakes.plain_spec(
        budget={"trials": arguments.trials, "concurrency": CONCURRENCY}, tracking={"uri": server.uri}
    )
    plain["base"] |= {"steps": STEPS}
    spec = spec_from(plain, where="the benchmark's sweep")
    store = Store.at(folder / "runs")
    with Ledger.open(store.ledger) as ledger:
        begin(spec, ledger=ledger, source="benchmark")
        outage = Outage(server, ledger, before=arguments.before, seconds=arguments.outage)
        outage.start()
        began = time.time()
        end = drive(spec, ledger=ledger, store=store, train="fakes:slow", fingerprint=fakes.fingerprint)
        ended = time.time()
        outage.join(30)
        if outage.delay is None or ended < outage.ended:
            raise SystemExit("the sweep was over before the outage was; give it more --trials")
        records = ledger.trials("demo")
        points = [point for record in records for point in ledger.points("demo", record.number)]
        checks = compare(spec, ledger=ledger, store=store, is_driven=False)
        problems = [problem for check in checks for problem in check.problems]
        compared = next(check.count for check in checks if check.claim.startswith("every metric"))
        calm = gaps(ledger, began, outage.began)
        dark = gaps(ledger, outage.began, outage.ended)
        last = max(record.finished or 0.0 for record in records)
    table = Table("what", "", title=f"{arguments.outage:.0f} s without an MLflow server, {os.cpu_count()} processors")
    for what, figure in (
        ("exit code of the sweep", str(end.outcome.exit_code)),
        ("trials, attempts", f"{len(records)}, {sum(record.attempt for record in records)}"),
        ("trials that did not complete", str(sum(record.state is not TrialState.COMPLETE for record in records))),
        ("server dead, of the sweep's time", f"{outage.ended - outage.began:.1f} s of {last - began:.0f} s"),
        ("seconds between reports before, median and longest", f"{statistics.median(calm):.3f}, {max(calm):.2f}"),
        ("seconds between reports while it was dead", f"{statistics.median(dark):.3f}, {max(dark):.2f}"),
        ("reports in the ledger, of these while it was dead", f"{len(points)}, {outage.unsent}"),
        ("figures in MLflow, each compared with the ledger", str(compared)),
        ("missing", str(sum("missing" in problem for problem in problems))),
        ("double", str(sum("more than once" in problem or " runs" in problem for problem in problems))),
        ("anything else that differs", str(len(problems))),
        ("from the server's first answer to MLflow complete", f"{outage.delay:.1f} s"),
    ):
        table.add_row(what, figure)
    Console(width=120).print(table)
    for problem in problems[:10]:
        print(problem)


if __name__ == "__main__":
    main()
