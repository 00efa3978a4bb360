"""Which MLflow run belongs to which trial.

Runs are found by their tags, never by memory alone: making a run is no idempotent call, and one whose answer was lost must be
adopted by the next pass and not made twice. Where a trial has two runs all the same, because two processes made one at the same
time, one is kept; the other one is marked, ended and deleted. So are runs of trials that the ledger does not know.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import yaml
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException

from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import SweepRecord
from sweeps.tracking.server import log_text, milliseconds, search
from sweeps.tracking.trial_run import identity_tags, run_name
from sweeps.trial import TrialRecord

log = logging.getLogger(__name__)

CURSOR = "sweep.cursor"  # on the sweep's run: the ledger's last point that MLflow has
DONE = "sweep.sent"  # on a trial's run, written last: the final state that everything was sent of


@dataclass
class TrialRun:
    """The run of a trial, as MLflow has it.

    Attributes:
        id: the run.
        status: MLflow's state of it.
        tags: its tags.
        files: names of the trial's files that are known to be there.
        has_params: whether the trial's parameters are there.
        has_profile: whether the architecture's efficiency is known to be there.
    """

    id: str
    status: str
    tags: dict[str, str]
    files: set[str] = field(default_factory=set)
    has_params: bool = False
    has_profile: bool = False


@dataclass
class SweepRuns:
    """The runs of a sweep, as MLflow has them.

    Attributes:
        experiment: id of the MLflow experiment.
        parent: the sweep's own run.
        parent_status: MLflow's state of it.
        parent_tags: its tags.
        trials: trial number -> run.
        cursor: id of the ledger's last point that MLflow has.
    """

    experiment: str
    parent: str
    parent_status: str
    parent_tags: dict[str, str]
    trials: dict[int, TrialRun]
    cursor: int


def sweep_id(record: SweepRecord) -> str:
    """Return what tags a sweep's runs: the name alone could be another sweep's in another ledger that uses the same server."""
    return f"{record.name}@{record.created:.6f}"


def sweep_condition(record: SweepRecord, *, role: str) -> str:
    """Return the search condition for a sweep's runs.

    Args:
        record: the sweep.
        role: `sweep` for its own run, `trial` for those of its trials.
    """
    return f"tags.`sweep.id` = '{sweep_id(record)}' and tags.`sweep.role` = '{role}'"


def locate(
    client: MlflowClient, *, experiment: str, artifacts: str | None, ledger: Ledger, spec: SweepSpec
) -> SweepRuns:
    """Find the runs of a sweep, make what every sweep has, and remove what is double.

    Args:
        client: MLflow.
        experiment: name of the experiment; made or restored if need be.
        artifacts: where a new experiment keeps files; unset: where the server does.
        ledger: what is projected; it is told which runs are whose.
        spec: the sweep.

    Raises:
        MlflowException: a call failed.
    """
    place = _open_experiment(client, experiment, artifacts)
    parent = _open_parent(client, place, ledger, spec)
    record = ledger.sweep(spec.name)
    by_number: dict[int, list[Run]] = defaultdict(list)
    for run in search(client, place, sweep_condition(record, role="trial")):
        by_number[int(run.data.tags["sweep.number"])].append(run)
    # Read after the search: the ledger has a trial before MLflow has its run.
    records = {trial.number: trial for trial in ledger.trials(spec.name)}
    trials: dict[int, TrialRun] = {}
    for number, found in by_number.items():
        if number not in records:
            _remove(client, found, f"the ledger has no trial {number} in this sweep")
            continue
        kept = _keep(client, found, records[number].run_id)
        if kept.data.tags.get("mlflow.parentRunId") != parent.info.run_id:
            client.set_tag(kept.info.run_id, "mlflow.parentRunId", parent.info.run_id)
        trials[number] = TrialRun(
            kept.info.run_id, kept.info.status, dict(kept.data.tags), has_params=bool(kept.data.params)
        )
    is_whole = True
    for number, trial in records.items():
        is_here = number in trials
        is_whole = is_whole and (trial.run_id is None or (is_here and trials[number].id == trial.run_id))
        if is_here and trial.run_id != trials[number].id:
            ledger.update_trial(spec.name, number, run_id=trials[number].id)
    # Kept in MLflow: a cursor is only good for the server that it was written for. If runs were deleted there, all is sent.
    cursor = int(parent.data.tags.get(CURSOR, "0")) if is_whole else 0
    return SweepRuns(place, parent.info.run_id, parent.info.status, dict(parent.data.tags), trials, cursor)


def create_trial_run(client: MlflowClient, runs: SweepRuns, record: TrialRecord, *, ledger: Ledger) -> TrialRun:
    """Make the run of a trial that has none.

    Args:
        client: MLflow.
        runs: the sweep's runs, which were looked up since the last call that failed; the new one is added.
        record: the trial.
        ledger: is told which run it is.
    """
    sweep = ledger.sweep(record.sweep)
    tags = {
        "mlflow.parentRunId": runs.parent,
        "sweep.id": sweep_id(sweep),
        "sweep.name": sweep.name,
        "sweep.role": "trial",
        **identity_tags(record),
    }
    started = milliseconds(record.started or record.created)
    run = client.create_run(runs.experiment, start_time=started, run_name=run_name(record), tags=tags)
    made = TrialRun(run.info.run_id, run.info.status, tags)
    ledger.update_trial(record.sweep, record.number, run_id=made.id)
    runs.trials[record.number] = made
    return made


def _open_experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    found: Experiment | None = client.get_experiment_by_name(name)
    if found is None:
        try:
            made: str = client.create_experiment(name, artifact_location=artifacts)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another sweep's driver was faster
        else:
            return made
    assert found is not None
    if found.lifecycle_stage == "deleted":
        # MLflow gives the name to no other experiment as long as it can be restored.
        client.restore_experiment(found.experiment_id)
        log.warning("MLflow experiment %r had been deleted and was restored", name)
    place: str = found.experiment_id
    return place


def _open_parent(client: MlflowClient, experiment: str, ledger: Ledger, spec: SweepSpec) -> Run:
    record = ledger.sweep(spec.name)
    found = list(search(client, experiment, sweep_condition(record, role="sweep")))
    if found:
        parent = _keep(client, found, record.parent_run_id)
    else:
        parent = client.create_run(
            experiment,
            start_time=milliseconds(record.created),
            run_name=spec.name,
            tags={
                "sweep.id": sweep_id(record),
                "sweep.name": spec.name,
                "sweep.role": "sweep",
                "sweep.selection": spec.selection,
                "mlflow.note.content": spec.question or "",
            },
        )
    if record.parent_run_id != parent.info.run_id:
        ledger.update_sweep(spec.name, parent_run_id=parent.info.run_id)
    log_text(client, parent.info.run_id, "sweep.yaml", yaml.safe_dump(spec.canonical(), sort_keys=False))
    return parent


def _keep(client: MlflowClient, found: Sequence[Run], known: str | None) -> Run:
    """Return the run to keep of those that stand for the same thing, and remove the others.

    Every process that looks makes the same choice: the run that the ledger names, or else the first by name.
    """
    kept = min(found, key=lambda run: (run.info.run_id != known, run.info.run_id))
    others = [run for run in found if run is not kept]
    _remove(client, others, f"the same as run {kept.info.run_id}")
    return kept


def _remove(client: MlflowClient, runs: Sequence[Run], why: str) -> None:
    for run in runs:
        client.set_tag(run.info.run_id, "sweep.removed", why)
        client.set_terminated(run.info.run_id, "KILLED")
        client.delete_run(run.info.run_id)
        log.info("MLflow run %s was removed: %s", run.info.run_id, why)
