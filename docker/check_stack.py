"""Check what a sweep left behind in a running stack: ledger, MLflow and report must tell the same story.

Run inside the stack, where the databases are reachable; `docker/run-stack` does so. MLflow is asked over its REST interface,
so that what is checked is what other programs would see.
"""

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any, cast
from urllib.request import Request, urlopen

from sweeps.ledger.database import Ledger  # noqa: TID251 (the ban is segda's)


def search_runs(server: str, sweep: str) -> list[dict[str, str]]:
    """Return the MLflow runs of a sweep's trials as {tag: value} with their `status`.

    Args:
        server: address of the MLflow server.
        sweep: name of the sweep.
    """
    runs: list[dict[str, str]] = []
    for experiment in call(server, "experiments/search", {"max_results": 100})["experiments"]:
        wanted = {
            "experiment_ids": [experiment["experiment_id"]],
            "filter": f"tags.`sweep.name` = '{sweep}' and tags.`sweep.role` = 'trial'",
            "max_results": 1000,
        }
        for run in call(server, "runs/search", wanted).get("runs", []):
            tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
            runs.append({**tags, "status": run["info"]["status"]})
    return runs


def call(server: str, what: str, body: dict[str, object]) -> dict[str, list[dict[str, Any]]]:
    """Send one request to MLflow's REST interface."""
    request = Request(
        f"{server}/api/2.0/mlflow/{what}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urlopen(request, timeout=30) as response:
        return cast(dict[str, list[dict[str, Any]]], json.load(response))


def main() -> None:
    """Check a sweep; the arguments are its name, its store, and the number of nodes that must have run trials."""
    sweep, store, num_nodes = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    location = os.environ["SWEEPS_LEDGER"]
    with Ledger.open(location, create=False) as ledger:
        trials = ledger.trials(sweep)
    runs = search_runs(os.environ["SWEEPS_TRACKING"], sweep)
    numbers = Counter(int(run["sweep.number"]) for run in runs)
    faults = [f"trial {trial.number} is {trial.state}" for trial in trials if not trial.state.is_finished]
    faults += [f"trial {trial.number} failed: {trial.error}" for trial in trials if trial.state == "failed"]
    faults += [
        f"trial {trial.number} has {numbers[trial.number]} runs" for trial in trials if numbers[trial.number] != 1
    ]
    faults += [f"run of trial {run['sweep.number']} is {run['status']}" for run in runs if run["status"] != "FINISHED"]
    faults += [
        f"no {report.name}"
        for report in (store / sweep / "report.html", store / sweep / "report.md")
        if not report.is_file()
    ]
    if not trials:
        faults.append(f"the ledger has no trial of {sweep}")
    if not location.startswith("postgresql"):
        faults.append("the ledger is not on PostgreSQL")
    nodes = Counter(trial.worker.split(":")[0] for trial in trials if trial.worker)
    if len(nodes) < num_nodes:
        faults.append(f"{len(nodes)} nodes ran trials, not {num_nodes}")
    lines = [
        f"ledger: {len(trials)} trials, {dict(Counter(str(trial.state) for trial in trials))}",
        f"nodes: {dict(nodes)}",
        f"MLflow: {len(runs)} runs, {dict(Counter(str(run['status']) for run in runs))}",
        *faults,
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
