"""Which MLflow run belongs to which trial.

Runs are found by their tags, never by memory alone: making a run is no idempotent call, and one whose answer was lost must be
adopted by the next pass and not made twice. Where a trial has two runs all the same, because two processes made one at the same
time, one is kept; the other one is marked, ended and deleted. So are runs of trials that the ledger does not know, or knows
otherwise because it was restored from a backup.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import yaml
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run

from segda.masking import masked_plain
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import Point
from sweeps.reports.markdown import markdown_line
from sweeps.tracking.aliases import PARAMS, is_alias, tells_otherwise
from sweeps.tracking.experiment import CONFIGURED, open_experiment, sweep_condition, sweep_id
from sweeps.tracking.limits import LONGEST_NAME, Refusals, cut, limited_tags
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
        experiment: where they are.
        parent: the sweep's own run.
        parent_status: MLflow's state of it.
        parent_tags: its tags.
        trials: trial number -> run.
        cursor: id of the ledger's last point that MLflow has.
        refusals: what MLflow refuses for good.
    """

    experiment: Experiment
    parent: str
    parent_status: str
    parent_tags: dict[str, str]
    trials: dict[int, TrialRun]
    cursor: int
    refusals: Refusals

    @property
    def picked(self) -> int | None:
        """Number of the trial that the sweep's run says is picked."""
        number = self.parent_tags.get("sweep.picked")
        return None if number is None else int(number)


def locate(
    client: MlflowClient,
    *,
    experiment: str,
    artifacts: str | None,
    ledger: Ledger,
    spec: SweepSpec,
    refusals: Refusals,
    repair: bool = False,
) -> SweepRuns:
    """Find the runs of a sweep, make what every sweep has, and remove what is double or of another history of the ledger.

    Args:
        client: MLflow.
        experiment: what the sweep file calls the experiment; made or restored if need be.
        artifacts: where a new experiment keeps files; unset: where the server does.
        ledger: what is projected; it is told which runs are whose.
        spec: the sweep.
        refusals: is told what MLflow refuses.
        repair: whether runs whose short names tell something else than the ledger are made anew, since MLflow takes nothing back.

    Raises:
        MlflowException: a call failed.
    """
    place = open_experiment(client, ledger.sweep(spec.name), name=experiment, artifacts=artifacts)
    parent = _open_parent(client, place.experiment_id, ledger, spec, configured=experiment)
    record = ledger.sweep(spec.name)
    by_number: dict[int, list[Run]] = defaultdict(list)
    for run in search(client, place.experiment_id, sweep_condition(record, role="trial")):
        by_number[int(run.data.tags["sweep.number"])].append(run)
    cursor = _cursor(ledger, spec.name, parent.data.tags.get(CURSOR, ""))
    # Read after the search: the ledger has a trial before MLflow has its run.
    records = {trial.number: trial for trial in ledger.trials(spec.name)}
    trials: dict[int, TrialRun] = {}
    for number, found in by_number.items():
        if number not in records:
            _remove(client, found, f"the ledger has no trial {number} in this sweep")
            continue
        kept = _keep(client, found, records[number].run_id)
        if _is_foreign(client, kept, records[number], ledger, look_closely=cursor is None):
            _remove(client, [kept], f"the ledger has another history of trial {number}: it was restored from a backup")
            continue
        if repair and tells_otherwise(kept, records[number], spec):
            _remove(client, [kept], f"its short names are not those of trial {number}, and MLflow changes none")
            continue
        for tag, value in (("mlflow.parentRunId", parent.info.run_id), ("sweep.name", record.name)):
            if kept.data.tags.get(tag) != value:
                client.set_tag(kept.info.run_id, tag, value)
        has_params = kept.data.params.keys() >= PARAMS  # not of a version that had no short names
        is_sent = cursor is not None and has_params
        tags = {name: value for name, value in kept.data.tags.items() if is_sent or name != DONE}
        trials[number] = TrialRun(kept.info.run_id, kept.info.status, tags, has_params=has_params)
    is_whole = True
    for number, trial in records.items():
        is_here = number in trials
        is_whole = is_whole and (trial.run_id is None or (is_here and trials[number].id == trial.run_id))
        if is_here and trial.run_id != trials[number].id:
            ledger.update_trial(spec.name, number, run_id=trials[number].id)
    return SweepRuns(
        experiment=place,
        parent=parent.info.run_id,
        parent_status=parent.info.status,
        parent_tags=dict(parent.data.tags),
        trials=trials,
        # If runs were deleted there, all is sent.
        cursor=(cursor or 0) if is_whole else 0,
        refusals=refusals,
    )


def cursor_text(point: Point) -> str:
    """Return what the sweep's run keeps of the last point that MLflow has.

    It is kept in MLflow because it is only good for the server that it was written for; and it says which point it means, because
    a ledger that was restored from a backup gives the same ids to other points.
    """
    return f"{point.id} trial {point.number} step {point.step} time {point.timestamp!r}"


def _cursor(ledger: Ledger, sweep: str, text: str) -> int | None:
    """Return the id of the last point that MLflow has: 0 if it has none, None if this ledger does not know that point."""
    if text in ("", "0"):
        return 0
    number = text.partition(" ")[0]
    points = ledger.points_after(sweep, int(number) - 1, limit=1) if number.isdecimal() else []
    return points[0].id if points and cursor_text(points[0]) == text else None


def _is_foreign(client: MlflowClient, run: Run, record: TrialRecord, ledger: Ledger, *, look_closely: bool) -> bool:
    """Return whether a run is of another history of the ledger: of another trial, or with points that the ledger does not have.

    MLflow takes no point back, and changes no parameter.
    """
    if run.data.tags.get("sweep.key") != record.key:
        return True
    reported = sorted(name for name in run.data.metrics if not (name.startswith("profile/") or is_alias(name)))
    if not look_closely or not reported:
        return False
    # The metrics of a report share step and time, so one of them is enough.
    history = client.get_metric_history(run.info.run_id, reported[0])
    known = {(point.step, milliseconds(point.timestamp)) for point in ledger.points(record.sweep, record.number)}
    return any((point.step, point.timestamp) not in known for point in history)


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
    place = runs.experiment.experiment_id
    run = client.create_run(place, start_time=started, run_name=run_name(record), tags=tags)
    made = TrialRun(run.info.run_id, run.info.status, tags)
    ledger.update_trial(record.sweep, record.number, run_id=made.id)
    runs.trials[record.number] = made
    return made


def _open_parent(client: MlflowClient, experiment: str, ledger: Ledger, spec: SweepSpec, *, configured: str) -> Run:
    record = ledger.sweep(spec.name)
    found = list(search(client, experiment, sweep_condition(record, role="sweep")))
    if found:
        parent = _keep(client, found, record.parent_run_id)
        if parent.data.tags.get("sweep.name") != spec.name:  # it was renamed
            named = {CONFIGURED: configured, "mlflow.runName": cut(spec.name, LONGEST_NAME), "sweep.name": spec.name}
            for tag, value in named.items():
                client.set_tag(parent.info.run_id, tag, value)
    else:
        parent = client.create_run(
            experiment,
            start_time=milliseconds(record.created),
            run_name=cut(spec.name, LONGEST_NAME),
            tags=limited_tags(
                {
                    "sweep.id": sweep_id(record),
                    "sweep.name": spec.name,
                    "sweep.role": "sweep",
                    "sweep.selection": spec.selection,
                    CONFIGURED: configured,
                    "mlflow.note.content": markdown_line(spec.question),
                }
            ),
        )
    if record.parent_run_id != parent.info.run_id:
        ledger.update_sweep(spec.name, parent_run_id=parent.info.run_id)
    log_text(client, parent.info.run_id, "sweep.yaml", yaml.safe_dump(masked_plain(spec.canonical()), sort_keys=False))
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
