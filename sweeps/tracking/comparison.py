"""Whether MLflow holds what the ledger says: the same runs, states, parameters and figures, each once. Only reads."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run

from segda.masking import masked, reason
from sweeps.file.spec import SweepSpec
from sweeps.findings import Check, check, same
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import SweepRecord
from sweeps.metrics import sound
from sweeps.store import Store
from sweeps.suggestions import suggest
from sweeps.tracking.aliases import alias_metrics, compared_metrics, every_metric, is_alias, is_alias_param
from sweeps.tracking.artifacts import check_artifacts
from sweeps.tracking.experiment import find_experiment, sweep_condition
from sweeps.tracking.limits import key_name
from sweeps.tracking.server import (
    FAILURES,
    TrackingError,
    default_uri,
    look_at,
    milliseconds,
    search,
)
from sweeps.tracking.trial_run import params_of, run_status, state_tags
from sweeps.trial import TrialRecord

_Reports = dict[int, tuple[int, float]]  # step -> (time stamp in milliseconds, value)


@dataclass(frozen=True)
class _Both:
    """A sweep as the ledger and as MLflow know it."""

    spec: SweepSpec
    sweep: SweepRecord
    records: Mapping[int, TrialRecord]
    parents: Sequence[Run]
    runs: Mapping[int, Sequence[Run]]
    is_driven: bool

    def pairs(self) -> Iterator[tuple[TrialRecord, Run]]:
        """Yield each trial with its run, where there is one."""
        for number, record in self.records.items():
            for run in self.runs.get(number, ())[:1]:
                yield record, run


def compare(spec: SweepSpec, *, ledger: Ledger, store: Store, is_driven: bool) -> list[Check]:
    """Compare MLflow with the ledger.

    Args:
        spec: the sweep.
        ledger: where it is.
        store: where MLflow's database is, unless a server is named.
        is_driven: whether a driver works on it; MLflow may then be a little behind, which is noted.

    Returns:
        One check that failed if MLflow cannot be reached.
    """
    uri = spec.tracking.uri or default_uri(store)
    try:
        client = look_at(uri)
        both = _read_both(client, ledger, spec, is_driven=is_driven)
        return [
            _one_run_each(both),
            _states(both),
            _params(both),
            _figures(both, client, ledger),
            check_artifacts(
                {record.number: (record, run) for record, run in both.pairs()},
                client,
                store=store,
                proofs=ledger.proofs(spec.name),
                is_own=spec.tracking.uri is None,
            ),
        ]
    except (*FAILURES, TrackingError) as error:
        problem = (
            f"MLflow at {masked(uri)} cannot be asked: {reason(error)}; start it, or leave it out with --no-mlflow"
        )
        return [Check("MLflow holds what the ledger says", 0, (problem,))]


def _read_both(client: MlflowClient, ledger: Ledger, spec: SweepSpec, *, is_driven: bool) -> _Both:
    name = spec.tracking.experiment or spec.name
    sweep = ledger.sweep(spec.name)
    experiment = find_experiment(client, sweep, name=name)
    if experiment is None or experiment.lifecycle_stage == "deleted":
        raise TrackingError(f"it has no experiment {name!r}; {suggest('sync', spec.name)} makes it from the ledger")
    place = experiment.experiment_id
    parents = list(search(client, place, sweep_condition(sweep, role="sweep")))
    runs: dict[int, list[Run]] = defaultdict(list)
    for run in search(client, place, sweep_condition(sweep, role="trial")):
        runs[int(run.data.tags["sweep.number"])].append(run)
    records = {record.number: record for record in ledger.trials(spec.name)}
    return _Both(spec, sweep, records, parents, runs, is_driven)


def _one_run_each(both: _Both) -> Check:
    note = ""

    def problems() -> Iterator[str]:
        nonlocal note
        sync = suggest("sync", both.sweep.name)
        if len(both.parents) != 1:
            yield f"the sweep has {len(both.parents)} runs of its own, expected 1; {sync} puts it right"
        elif both.sweep.parent_run_id != both.parents[0].info.run_id:
            there = both.parents[0].info.run_id
            yield f"the ledger names run {both.sweep.parent_run_id} as the sweep's, MLflow has {there}; {sync}"
        missing = [number for number in both.records if number not in both.runs]
        if missing and both.is_driven:
            note = f"{len(missing)} not there yet: a driver is at work"
        elif missing:
            yield f"no run of trial {', '.join(map(str, missing))}; {sync} makes it"
        for number, runs in both.runs.items():
            if number not in both.records:
                yield f"MLflow has a run of trial {number}, the ledger has no such trial; {sync} removes it"
            elif len(runs) > 1:
                yield f"trial {number} has {len(runs)} runs; {sync} removes all but one"
        for record, run in both.pairs():
            if record.run_id != run.info.run_id:
                yield f"trial {record.number}: the ledger names run {record.run_id}, MLflow has {run.info.run_id}; {sync}"
            parent = run.data.tags.get("mlflow.parentRunId")
            if both.parents and parent != both.parents[0].info.run_id:
                yield f"trial {record.number}: its run is not under the sweep's; {sync}"

    found = tuple(problems())
    return Check("MLflow has one run of the sweep and one of each trial", len(both.records), found, note)


def _states(both: _Both) -> Check:
    def problems() -> Iterator[str]:
        for record, run in both.pairs():
            status = run_status(record.state, is_driven=both.is_driven)
            if run.info.status != status:
                yield f"trial {record.number} is {record.state}: its run should be {status}, it is {run.info.status}"
            is_picked = any(parent.data.tags.get("sweep.picked") == str(record.number) for parent in both.parents)
            wanted = state_tags(record, processes=both.spec.resources.processes, is_picked=is_picked)
            wrong = [name for name, value in wanted.items() if run.data.tags.get(name) != value]
            if wrong:
                yield f"trial {record.number}: other tags than the ledger says: {', '.join(wrong)}"
        for parent in both.parents:
            is_done = all(record.state.is_finished for record in both.records.values())
            status = "RUNNING" if both.is_driven else "FINISHED" if is_done else "SCHEDULED"
            if parent.info.status != status:
                yield f"the sweep's run should be {status}, it is {parent.info.status}"

    if both.is_driven:
        return Check("states in MLflow are those of the ledger", 0, note="not looked at: a driver is at work")
    return check("states in MLflow are those of the ledger", len(both.records) + 1, problems())


def _params(both: _Both) -> Check:
    def problems() -> Iterator[str]:
        for record, run in both.pairs():
            if run.data.params != params_of(record):
                wrong = dict(run.data.params.items() ^ params_of(record).items())
                hint = _of_short_names(filter(is_alias_param, wrong), both.sweep.name)
                yield f"trial {record.number}: parameters differ: {', '.join(sorted(wrong))}{hint}"

    count = sum(len(run.data.params) for _, run in both.pairs())
    return check("parameters in MLflow are those of the ledger", count, problems())


def _figures(both: _Both, client: MlflowClient, ledger: Ledger) -> Check:
    found: list[str] = []
    count = behind = 0
    for record, run in both.pairs():
        expected = _expected(ledger, record, both.spec)
        old = {item.key: item for item in alias_metrics(record, every_metric(record, both.spec))}
        # Whatever is there is looked at, so that a figure that nobody reported is found too.
        for name in expected.keys() | set(run.data.metrics):
            wanted = expected.get(name, {})
            if not wanted and name in old:  # of an objective that the sweep had before it was changed
                wanted = {old[name].step: (old[name].timestamp, old[name].value)}
            history = client.get_metric_history(run.info.run_id, name)
            count += len(history)
            there = [point.step for point in history]
            doubled = sorted({step for step in there if there.count(step) > 1}) if len(set(there)) < len(there) else []
            missing = sorted(wanted.keys() - set(there))
            foreign = sorted(set(there) - wanted.keys())
            changed = [
                point.step
                for point in history
                if point.step in wanted
                and not (_same(wanted[point.step][1], point.value) and wanted[point.step][0] == point.timestamp)
            ]
            if both.is_driven:
                behind += len(missing)
                missing = []
            for steps, what in (
                (doubled, "more than once"),
                (missing, "missing"),
                (foreign, "not reported by the trial"),
                (changed, "another value or time than reported"),
            ):
                if steps:
                    hint = _of_short_names(filter(is_alias, [name]), both.sweep.name)
                    where = ", ".join(map(str, steps[:5]))
                    found.append(f"trial {record.number}, {name}: {what} at step {where}{hint}")
    note = f"{behind} not there yet: a driver is at work" if behind else ""
    return Check("every metric in MLflow is there once, with the reported value and time", count, tuple(found), note)


def _of_short_names(wrong: Iterable[str], sweep: str) -> str:
    return f"; {suggest('sync', sweep)} puts short names right" if any(wrong) else ""


def _expected(ledger: Ledger, record: TrialRecord, spec: SweepSpec) -> dict[str, _Reports]:
    expected: dict[str, _Reports] = defaultdict(dict)
    for point in ledger.points(record.sweep, record.number):
        for name, value in point.metrics.items():
            expected[key_name(name)][point.step] = milliseconds(point.timestamp), value
    # Sent behind the first figures, or at the end.
    if expected or record.state.is_finished:
        for metric in alias_metrics(record, compared_metrics(spec)):
            expected[metric.key][metric.step] = metric.timestamp, metric.value
        for name, value in sound(record.profile).items():
            expected[f"profile/{name}"][0] = milliseconds(record.created), value
    return expected


def _same(reported: float, kept: float) -> bool:
    """Compare with what MLflow's databases can hold: the largest number stands for infinity."""
    return same(reported, kept) or (
        abs(reported) == float("inf") and abs(kept) >= sys.float_info.max and (reported > 0) == (kept > 0)
    )
