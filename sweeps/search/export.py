"""A sweep for other tools: as an Optuna study in a database, and as a table.

The study is a copy to look at and to go on from; the ledger does not read it back.
"""

import csv
import io
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from segda.errors import ConfigError
from segda.files import expanded, replacing, write_text
from segda.masking import masked, reason
from sweeps.checks.makers import stored_spec
from sweeps.file.spec import SweepSpec
from sweeps.ledger.connection import database_url
from sweeps.ledger.database import Ledger
from sweeps.metrics import visible_metrics
from sweeps.search.translator import Translator
from sweeps.trial import TrialRecord, TrialState

# What optuna-dashboard up to 0.21 reads; Optuna 5 has a key of its own for each constraint.
_LEGACY_CONSTRAINTS = "constraints"
_COLUMNS = (
    *("number", "kind", "name", "parent", "seed", "state", "failure", "error", "step", "attempt", "seconds"),
    *("created", "started", "finished", "worker", "device", "reused", "key", "run_id"),
)
_ATTRIBUTES = ("number", "kind", "name", "parent", "seed", "state", "failure", "error", "step", "run_id")
_STATES = {
    TrialState.QUEUED: OptunaState.RUNNING,  # a waiting trial would be taken up by whoever goes on with the study
    TrialState.RUNNING: OptunaState.RUNNING,
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.INFEASIBLE: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}


def export_optuna(ledger: Ledger, name: str, target: str, *, force: bool = False) -> str:
    """Write a sweep as an Optuna study of the same name.

    Every trial is there under its number, with its state, objectives and constraints. With one objective a trial has its course
    over the steps too. A reference whose parameters lie outside the search space stands there without them. User attributes hold
    what Optuna has no place for: `kind`, `state`, `seed`, `step`, `run_id`, `error` and more, among them the figures that may
    steer the sweep, but for those of single classes.

    Args:
        ledger: has the sweep.
        name: the sweep.
        target: SQLite file, made if it is missing, or SQLAlchemy URL of a database.
        force: whether a study of that name there is replaced.

    Returns:
        The URL of the database, without a password, as `optuna.load_study` and optuna-dashboard want it.

    Raises:
        ConfigError: there is no such sweep, a study of that name exists, or the database cannot be opened.
    """
    spec = stored_spec(ledger.sweep(name))
    trials = list(_frozen_trials(ledger, spec))
    if "://" in target:
        _write_study(target, spec, trials, force=force)
        return masked(target, with_user=True)
    path = expanded(target).absolute()
    if path.exists():
        _write_study(_sqlite(path), spec, trials, force=force)
    else:
        with replacing(path) as partial:
            _write_study(_sqlite(partial), spec, trials, force=force)
    return _sqlite(path)


def export_csv(ledger: Ledger, name: str, path: Path) -> None:
    """Write the trials of a sweep as a table, one row each.

    Columns are what a trial is and how it stands, then `param.*`, `metric.*` (last reported; `oracle/...` is made from target
    labels) and `profile.*`. A cell is empty where a trial has no such figure.

    Args:
        ledger: has the sweep.
        name: the sweep.
        path: the file, which is replaced.

    Raises:
        ConfigError: there is no such sweep.
    """
    ledger.sweep(name)
    rows = [_row(record) for record in ledger.trials(name)]
    columns = list(_COLUMNS)
    for prefix in ("param.", "metric.", "profile."):
        columns += sorted({key for row in rows for key in row if key.startswith(prefix)})
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _sqlite(path: Path) -> str:
    return sa.URL.create("sqlite", database=str(path)).render_as_string()


def _write_study(url: str, spec: SweepSpec, trials: list[FrozenTrial], *, force: bool) -> None:
    with _storage(url) as storage:
        if spec.name in optuna.get_all_study_names(storage):
            if not force:
                where = masked(url, with_user=True)
                raise ConfigError(
                    f"{where} has a study {spec.name!r} already; replace it with --force, or name another file or database"
                )
            optuna.delete_study(study_name=spec.name, storage=storage)
        directions = [objective.direction for objective in spec.objectives]
        study = optuna.create_study(study_name=spec.name, storage=storage, directions=directions)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names([objective.metric for objective in spec.objectives])
            study.set_user_attr("question", spec.question)
            study.set_user_attr("selection", spec.selection)
            study.add_trials(trials)
        except BaseException:
            # Half a study would look like a whole one.
            optuna.delete_study(study_name=spec.name, storage=storage)
            raise


@contextmanager
def _storage(url: str) -> Iterator[RDBStorage]:
    shown = masked(url, with_user=True)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = RDBStorage(database_url(url).render_as_string(hide_password=False))
    except ImportError as error:
        raise ConfigError(f"cannot open {shown}: {error}; install that driver or name a file") from error
    except (sa.exc.ArgumentError, sa.exc.DBAPIError, OSError, RuntimeError) as error:
        why = reason(getattr(error, "orig", None) or error)
        raise ConfigError(f"cannot open {shown} for Optuna: {why}; name another file or database") from error
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()
        optuna.logging.set_verbosity(verbosity)


def _frozen_trials(ledger: Ledger, spec: SweepSpec) -> Iterator[FrozenTrial]:
    space = spec.space
    translator = Translator(spec, space)
    # Optuna has no room for it with several objectives.
    metric = spec.objectives[0].metric
    courses = ledger.curves(spec.name, [metric])[metric] if len(spec.objectives) == 1 else {}
    for record in ledger.trials(spec.name):
        state = _STATES[record.state]
        values = translator.values(record) if state is OptunaState.COMPLETE else None
        if state is OptunaState.COMPLETE and values is None:
            state = OptunaState.FAIL
        constraints = translator.constraints(record) if record.state.is_finished else None
        is_outside = not space.contains(record.params)
        trial = translator.frozen(
            {} if is_outside else record.params,
            state,
            constraints=constraints,
            values=values,
            reached=dict(courses.get(record.number, ())),
            user_attrs=_user_attrs(record, spec, is_outside=is_outside),
            system_attrs=None if constraints is None else {_LEGACY_CONSTRAINTS: list(constraints.values())},
        )
        trial.datetime_start = datetime.fromtimestamp(record.started or record.created)
        if state.is_finished():
            trial.datetime_complete = datetime.fromtimestamp(record.finished or record.started or record.created)
        yield trial


def _user_attrs(record: TrialRecord, spec: SweepSpec, *, is_outside: bool) -> dict[str, Any]:
    head = {column: value for column, value in _row_head(record).items() if column in _ATTRIBUTES and value is not None}
    figures = {**record.profile, **visible_metrics(record.metrics, spec.selection)}
    # Optuna keeps them as JSON, which has no other numbers, in a row each: those of single classes would be most of the database.
    kept = {name: value for name, value in figures.items() if math.isfinite(value) and "/iou/" not in name}
    return head | kept | ({"params": json.dumps(dict(record.params))} if is_outside else {})


def _row(record: TrialRecord) -> dict[str, Any]:
    groups: dict[str, Mapping[str, Any]] = {
        "param": record.params,
        "metric": record.metrics,
        "profile": record.profile,
    }
    return _row_head(record) | {
        f"{group}.{key}": value for group, items in groups.items() for key, value in items.items()
    }


def _row_head(record: TrialRecord) -> dict[str, Any]:
    """Return what a trial is and how it stands, by column."""
    plain = {column: getattr(record, column) for column in _COLUMNS}
    return {column: str(value) if isinstance(value, str) else value for column, value in plain.items()}
