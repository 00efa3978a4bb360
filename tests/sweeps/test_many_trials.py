"""What a sweep of thousands of trials costs: operations are counted, since seconds depend on the machine."""

import copy
import subprocess
import sys
from collections import Counter

import pytest
import sqlalchemy as sa
from records import replicate, trial

from sweeps.audit.audit import audit
from sweeps.ledger.database import Ledger
from sweeps.ledger.tables import EVENT, POINT, TRIAL
from sweeps.reports import view as view_module
from sweeps.reports.status import MOST_ROWS, read_status
from sweeps.reports.status_table import overview
from sweeps.reports.sweep_report import report_content, write_report
from sweeps.reports.view import load_view
from sweeps.search.export import export_csv
from sweeps.search.translator import Translator
from sweeps.selection import guards
from sweeps.selection.choice import select
from sweeps.trial import TrialKind, TrialState


def many(count, spec, **changes):
    """Trials of a sweep that was searched: every third one is complete."""
    config = spec.train_config({"optimizer.lr": 0.01}, seed=0).model_dump(mode="json")
    trials = []
    for number in range(count):
        quality = 0.9 + (number * 37 % count) / count / 10
        state = TrialState.COMPLETE if number % 3 == 0 else TrialState.PRUNED
        fields = {"state": state, "config": config, "params": {"optimizer.lr": 0.01}, "finished": float(number)}
        trials.append(trial(number, quality, quality / 2, method="source_only", **(fields | changes)))
    return trials


@pytest.fixture
def filled(ledger, begun, make_spec):
    """A ledger with a sweep of many trials with two reports each, some of them after a lost attempt."""

    def fill(count):
        spec = begun(make_spec())
        trials = many(count, spec)
        columns = [column.name for column in TRIAL.c]
        reports = [
            {
                "sweep": "demo",
                "number": number,
                "step": step,
                "timestamp": float(step),
                "metrics": {"source/val/miou": 0.5},
            }
            for number in range(count)
            for step in (2, 4)
        ]
        lost = {"sweep": "demo", "timestamp": 3.0, "kind": "lost", "message": "gone", "failure": "worker_lost"}
        with ledger.changing("demo") as connection:
            connection.execute(TRIAL.insert(), [{name: getattr(item, name) for name in columns} for item in trials])
            connection.execute(POINT.insert(), reports)
            connection.execute(EVENT.insert(), [lost | {"number": number} for number in range(0, count, 2)])
        return spec

    return fill


@pytest.fixture
def queries(store):
    """Count the statements that something sends to the ledger."""

    def count(action):
        with Ledger.to_read(store.ledger) as reader:
            sent = []
            sa.event.listen(reader._reader, "before_cursor_execute", lambda *arguments: sent.append(arguments[2]))
            action(reader)
            return len([text for text in sent if text.startswith("SELECT")])

    return count


@pytest.mark.parametrize(
    ("action", "most"),
    [
        (lambda ledger, store: overview(ledger, width=100), 3),
        (lambda ledger, store: read_status(ledger, "demo"), 5),
        (lambda ledger, store: load_view(ledger, store, "demo"), 7),
        (lambda ledger, store: export_csv(ledger, "demo", store.root / "trials.csv"), 2),
        (lambda ledger, store: audit("demo", ledger=ledger, store=store, mlflow=False), 12),
    ],
    ids=["all sweeps", "status", "report", "export", "audit"],
)
def test_what_is_read_takes_as_many_queries_for_many_trials_as_for_few(filled, queries, store, action, most):
    filled(60)
    assert queries(lambda reader: action(reader, store)) <= most


def test_status_reads_the_large_parts_of_the_shown_trials_alone(filled, ledger, make_spec):
    filled(60)
    status = read_status(ledger, "demo", rows=5)
    assert list(status.shown) == [55, 56, 57, 58, 59]
    whole = [item.number for item in status.trials if item.config]
    assert whole == sorted({*status.shown, status.best.number})
    assert len(status.trials) == 60


def test_a_look_at_a_sweep_imports_nothing_that_trains_or_draws(filled, store):
    filled(1)
    program = """
import sys
from sweeps.cli import sweeps
try:
    sweeps(["status", "demo", "--store", sys.argv[1]])
except SystemExit as end:
    assert not end.code, end.code
print("imported:", *sorted({"torch", "optuna", "pandas", "plotly", "sklearn", "ray", "mlflow"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program, store.root], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported:"
    assert "1 of " in done.stdout


@pytest.fixture
def few_are_many(monkeypatch):
    monkeypatch.setattr(view_module, "MOST_SHOWN", 20)


def test_a_page_shows_the_part_of_many_trials_that_people_read_and_says_so(filled, ledger, store, few_are_many):
    filled(60)
    view = load_view(ledger, store, "demo")
    numbers = [item.number for item in view.shown]
    assert len(numbers) == 20
    assert numbers == sorted(numbers)
    best = sorted(view.trials[::3], key=lambda item: -item.metrics["source/val/miou"])[:10]
    assert {item.number for item in best} <= set(numbers)
    assert view.picked in view.shown
    content = report_content(view)
    assert len(content["tables"]["trials"].rows) == 20
    assert content["left_out"].startswith(
        "40 more trials are in the table that `sweeps export demo --csv FILE` writes."
    )
    assert content["state"] == "60 trials: 20 complete, 40 pruned"
    paths = write_report(ledger, store, "demo")
    for path in (paths.html, paths.markdown):
        assert "40 more trials are in the table" in path.read_text()


def test_a_page_that_shows_all_leaves_nothing_out(filled, ledger, store):
    filled(12)
    view = load_view(ledger, store, "demo")
    assert view.shown is view.trials
    assert report_content(view)["left_out"] is None


def test_what_a_page_leaves_out_is_neither_a_reference_nor_a_repetition_nor_on_a_front(make_spec, few_are_many):
    spec = make_spec()
    trials = many(60, spec)
    cheap = trial(60, 0.01, 0.01, method="source_only", profile={"latency_ms": 0.1, "macs": 1.0})
    trials += [cheap, trial(61, kind=TrialKind.REFERENCE, name="upper"), replicate(62, trials[0], 0.5)]
    trials += many(100, spec)[63:]
    view = view_module.SweepView(record=None, spec=spec, trials=trials)
    assert {60, 61, 62} <= {item.number for item in view.shown}


def test_guards_look_once_at_each_trial_however_many_are_judged(make_spec, monkeypatch):
    spec, looks = make_spec(), Counter()
    name = guards.method_name

    def counted(record):
        looks[record.number] += 1
        return name(record)

    monkeypatch.setattr(guards, "method_name", counted)
    select(many(60, spec), spec)
    assert set(looks.values()) <= {1, 2, 3}  # for the ranking, for the finalists, and where it is judged itself


def test_a_trial_that_was_told_is_shared_by_all_studies_and_each_may_number_it(make_spec):
    spec = make_spec()
    told = Translator(spec, spec.space).reported(trial(0, params={"optimizer.lr": 0.01}))
    copied = copy.deepcopy(told)
    copied.number = 7
    assert copied.params is told.params
    assert (copied.params, copied.values, told.number) == (told.params, told.values, -1)


def test_a_table_says_where_the_rest_is(filled, call, store):
    filled(MOST_ROWS + 1)
    _, out, _ = call("status", "demo", "--store", store.root)
    assert "and 1 more that ended earlier; `sweeps export demo --csv FILE --store " in out
