"""Proof that a sweep lost nothing and counted nothing twice: every trial once, every step once, ledger = files = MLflow.

Only reads. What the files in the trials' folders say is compared in `sweeps.audit.files`, what MLflow says in `sweeps.tracking`.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sweeps.audit.files import (
    History,
    check_files,
    check_folders,
    check_report,
    check_reports,
    read_trial_files,
    segda_history,
)
from sweeps.audit.rows import check_keys, check_rows
from sweeps.checks.makers import stored_spec
from sweeps.execution.task import DEFAULT_TRAIN
from sweeps.file.spec import SweepSpec
from sweeps.findings import Check, check, same
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import is_driven
from sweeps.ledger.records import CLEANED, ORIGIN_DELETED, Point
from sweeps.paths import value_at
from sweeps.store import Store
from sweeps.suggestions import suggest
from sweeps.trial import TrialKind, TrialRecord, TrialState


@dataclass(frozen=True)
class _Sweep:
    """What the ledger has of a sweep."""

    spec: SweepSpec
    records: Sequence[TrialRecord]
    points: Mapping[int, Sequence[Point]]
    is_driven: bool


def audit(
    name: str,
    *,
    ledger: Ledger,
    store: Store,
    mlflow: bool = True,
    train: str = DEFAULT_TRAIN,
    history: History = segda_history,
) -> list[Check]:
    """Check everything that can be checked about a sweep.

    A sweep may be audited while it runs; then nothing is said about what is on its way.

    Args:
        name: the sweep.
        ledger: where it is.
        store: where its files are; those of trials that ran elsewhere are looked up at the sweep's storage address.
        mlflow: whether to compare MLflow too.
        train: training function that it ran, as `module:name`; files that it does not write are not missed.
        history: reads the reports out of a checkpoint of that function.

    Returns:
        Claims, and what contradicts them.

    Raises:
        ConfigError: there is no such sweep.
    """
    record = ledger.sweep(name)
    spec = stored_spec(record)
    records = ledger.trials(name)
    sweep = _Sweep(
        spec=spec,
        records=records,
        points=_points_of(records, ledger.points(name)),
        is_driven=is_driven(ledger, name),
    )
    proofs = ledger.proofs(name)
    events = ledger.events(name)
    cleaned = {event.number for event in events if event.kind == CLEANED and event.number is not None}
    orphans = {event.number for event in events if event.kind == ORIGIN_DELETED and event.number is not None}
    files = read_trial_files(records, store, storage=spec.storage, history=history, proofs=proofs, cleaned=cleaned)
    checks = [
        _numbers(sweep),
        _once(sweep),
        check_rows(spec, ledger=ledger, device=record.info.device, is_driven=sweep.is_driven),
        check_keys(records, proofs, files.results),
        _states(sweep),
        _untrained(sweep),
        _steps(sweep),
        _last_figures(sweep),
        _reused(sweep, ledger, orphans),
        check_folders(records, store),
        check_files(records, files, proofs),
        *(check_reports(file, records, sweep.points, files, store, train=train) for file in files.reports),
        check_report(store.report(name), records, name=name, state=record.state, is_driven=sweep.is_driven),
    ]
    if mlflow:
        from sweeps.tracking import compare  # takes seconds

        checks += compare(spec, ledger=ledger, store=store, is_driven=sweep.is_driven)
    return checks


def _points_of(records: Sequence[TrialRecord], points: Iterable[Point]) -> dict[int, list[Point]]:
    found: dict[int, list[Point]] = {record.number: [] for record in records}
    for point in points:
        found.setdefault(point.number, []).append(point)
    return found


def _numbers(sweep: _Sweep) -> Check:
    numbers = [record.number for record in sweep.records]
    missing = sorted(set(range(max(numbers, default=-1) + 1)) - set(numbers))
    return check(
        "trials are numbered without a gap", len(numbers), (f"there is no trial {number}" for number in missing)
    )


def _once(sweep: _Sweep) -> Check:
    def problems() -> Iterator[str]:
        names = Counter(record.name for record in sweep.records if record.kind is TrialKind.REFERENCE)
        yield from (f"reference {name} is there {times} times" for name, times in names.items() if times > 1)
        repeated = Counter(
            (record.parent, record.seed) for record in sweep.records if record.kind is TrialKind.REPLICATE
        )
        for (parent, seed), times in repeated.items():
            if times > 1:
                yield f"trial {parent} is repeated {times} times with seed {seed}"
        repeatable = {record.number for record in sweep.records if record.kind is not TrialKind.REPLICATE}
        for record in sweep.records:
            if record.kind is TrialKind.REPLICATE and record.parent not in repeatable:
                yield f"trial {record.number} repeats trial {record.parent}, which is none of the search and no reference"
            wrong = [path for path, value in record.params.items() if value_at(record.config, path) != value]
            if wrong:
                yield f"trial {record.number}: its configuration does not have the proposed {', '.join(wrong)}"

    return check("each reference and each repetition is there once, with its settings", len(sweep.records), problems())


def _states(sweep: _Sweep) -> Check:
    def problems() -> Iterator[str]:
        for record in sweep.records:
            which = f"trial {record.number} is {record.state}"
            if record.state is TrialState.RUNNING and not sweep.is_driven:
                yield f"{which}, but no driver works on the sweep; go on with {suggest('resume', record.sweep)}"
            if record.state is TrialState.RUNNING and record.attempt < 1:
                yield f"{which} without an attempt"
            if record.state is TrialState.FAILED and (record.failure is None or not record.error):
                yield f"{which} without a reason"
            if not record.state.is_finished:
                if record.finished is not None:
                    yield f"{which} and has a time at which it ended"
                continue
            if record.finished is None:
                yield f"{which} without a time at which it ended"
            elif record.started is not None and record.finished < record.started:
                yield f"{which} and ended before it began"
            is_trained = record.state in (TrialState.COMPLETE, TrialState.PRUNED)
            if is_trained and record.reused is None and (record.attempt < 1 or record.started is None):
                yield f"{which} without having been handed to a worker"

    return check("states, attempts and times fit together", len(sweep.records), problems())


def _untrained(sweep: _Sweep) -> Check:
    infeasible = [record for record in sweep.records if record.state is TrialState.INFEASIBLE]
    trained = (record.number for record in infeasible if record.attempt or sweep.points[record.number])
    return check(
        "no infeasible architecture was trained", len(infeasible), (f"trial {number} was" for number in trained)
    )


def _steps(sweep: _Sweep) -> Check:
    def problems() -> Iterator[str]:
        for record in sweep.records:
            points = sweep.points[record.number]
            steps = [point.step for point in points]
            expected = _expected_steps(record)
            doubled = sorted(step for step, times in Counter(steps).items() if times > 1)
            yield from (f"trial {record.number} has step {step} more than once" for step in doubled)
            missing = sorted(set(expected) - set(steps))
            if missing:
                yield f"trial {record.number} lacks the report of step {', '.join(map(str, missing[:5]))}"
            foreign = sorted(set(steps) - set(expected))
            if foreign:
                yield f"trial {record.number} has a report of step {', '.join(map(str, foreign[:5]))}, where none is due"
            if sorted(points, key=lambda point: point.id) != points:
                yield f"reports of trial {record.number} arrived out of order"
            if record.state is TrialState.COMPLETE and record.step != record.config["steps"]:
                yield f"trial {record.number} is complete at step {record.step} of {record.config['steps']}"

    count = sum(len(points) for points in sweep.points.values())
    return check("every report is there once, in order, and none is missing", count, problems())


def _expected_steps(record: TrialRecord) -> list[int]:
    """Return the steps at which a trial that has come so far must have reported."""
    every, last = int(record.config["report_every"]), int(record.config["steps"])
    steps = list(range(every, record.step + 1, every))
    return [*steps, last] if record.step == last and last % every else steps


def _last_figures(sweep: _Sweep) -> Check:
    def problems() -> Iterator[str]:
        for record in sweep.records:
            points = sweep.points[record.number]
            newest: dict[str, float] = {}
            for point in points:
                newest |= point.metrics
            last = points[-1].step if points else 0
            if record.step != last:
                yield f"trial {record.number} is at step {record.step}, its last report is of step {last}"
            if newest.keys() != record.metrics.keys() or not all(
                same(value, record.metrics[name]) for name, value in newest.items()
            ):
                yield f"trial {record.number}: its metrics are not those of its last reports"

    return check("each trial's step and metrics are those of its last report", len(sweep.records), problems())


def _reused(sweep: _Sweep, ledger: Ledger, orphans: Collection[int]) -> Check:
    taken = [record for record in sweep.records if record.reused is not None]
    reused = [record for record in taken if record.number not in orphans]
    note = f"{len(taken) - len(reused)} of sweeps that were deleted since" if len(reused) < len(taken) else ""

    def problems() -> Iterator[str]:
        for record in reused:
            origin, _, number = str(record.reused).rpartition("/")
            found = {trial.number: trial for trial in ledger.trials(origin)}.get(int(number))
            which = f"trial {record.number} was taken over from trial {record.reused}"
            if found is None:
                yield f"{which}, which the ledger does not have"
                continue
            if found.key != record.key:
                yield f"{which}, which computes something else"
            if record.state is not TrialState.COMPLETE or found.state is not TrialState.COMPLETE:
                yield f"{which}, but they are {record.state} and {found.state}"
            if not _same_reports(sweep.points[record.number], ledger.points(origin, found.number)):
                yield f"{which}, which has other reports"

    return check("results that were taken over are those of an identical trial", len(reused), problems(), note=note)


def _same_reports(first: Sequence[Point], second: Sequence[Point]) -> bool:
    return [point.step for point in first] == [point.step for point in second] and all(
        mine.metrics.keys() == other.metrics.keys()
        and all(same(value, other.metrics[name]) for name, value in mine.metrics.items())
        for mine, other in zip(first, second, strict=True)
    )
