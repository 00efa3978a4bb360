"""A sweep whose ledger is filled by hand, and what MLflow has of it."""

from dataclasses import replace

from sweeps.tracking import compare
from sweeps.trial import TrialKind, TrialRecord, TrialState


def add(ledger, spec, number, **changes):
    config = spec.train_config({"optimizer.lr": 0.01}, seed=0)
    record = TrialRecord(
        sweep=spec.name,
        number=number,
        key=f"key{number}",
        kind=TrialKind.SEARCH,
        params={"optimizer.lr": 0.01},
        config=config.model_dump(mode="json"),
        seed=0,
        profile={"macs": 1e9},
    )
    ledger.add_trial(replace(record, **changes))
    ledger.start_attempt(spec.name, number, worker="host:1")
    return record


def report(ledger, spec, number, step, value=0.5):
    metrics = {"source/val/miou": value, "source/val/iou/Road (wet)": value}
    ledger.add_point(spec.name, number, attempt=1, step=step, timestamp=1000.0 + step, metrics=metrics)


def runs(client, spec, role="trial"):
    experiment = client.get_experiment_by_name(spec.name)
    found = client.search_runs([experiment.experiment_id], f"tags.`sweep.role` = '{role}'")
    return {int(run.data.tags.get("sweep.number", -1)): run for run in found}


def synced(tracker, **options):
    tracker.connect()
    tracker.sync(**options)
    return tracker


def compared(tracker, *, is_driven=False):
    checks = compare(tracker._spec, ledger=tracker._ledger, store=tracker._store, is_driven=is_driven)
    return [problem for check in checks for problem in check.problems]


def repaired(tracker, *, final=True):
    """What `sweeps sync` does."""
    tracker.connect()
    tracker.send(final=final)


def complete(ledger, spec, number, value):
    record = add(ledger, spec, number)
    for step in (3, 6):
        ledger.add_point(
            spec.name,
            number,
            attempt=1,
            step=step,
            timestamp=1000.0 + step,
            metrics={"source/val/miou": value, "oracle/target/miou": value / 2},
        )
    ledger.update_trial(spec.name, number, state=TrialState.COMPLETE, finished=2000.0 + number)
    return record
