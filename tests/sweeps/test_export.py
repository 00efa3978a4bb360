"""What other tools get of a sweep."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from segda.cli_errors import run_cli
from segda.errors import ConfigError
from sweeps import cli
from sweeps.failures import FailureClass
from sweeps.search.export import export_csv, export_optuna
from sweeps.trial import TrialKind, TrialRecord, TrialState

MIOU, TARGET = "source/val/miou", "oracle/target/miou"
PARETO = [{"metric": MIOU, "direction": "maximize"}, {"metric": "macs", "direction": "minimize"}]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """An Optuna database without studies, made once because that takes seconds."""
    path = tmp_path_factory.mktemp("optuna") / "empty.db"
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    storage.engine.dispose()
    return path


@pytest.fixture
def database(empty_database, tmp_path):
    """A database of one's own."""
    return Path(shutil.copy(empty_database, tmp_path / "study.db"))


@pytest.fixture
def filled(ledger, begun, make_spec):
    """Add a sweep with a trial of every kind of end."""

    def fill(name="demo", **changes):
        spec = begun(make_spec(name=name, constraints=["macs <= 4e9"], **changes))
        base = TrialRecord(name, 0, "key", TrialKind.SEARCH, {"optimizer.lr": 0.01}, {}, 0, created=1e9)
        done = {
            "state": TrialState.COMPLETE,
            "step": 6,
            "metrics": {MIOU: 0.5, TARGET: 0.25},
            "profile": {"macs": 2e9},
            "started": 1.0e9 + 1,
            "finished": 1.0e9 + 61,
        }
        records = [
            replace(base, **done, run_id="abc"),
            replace(base, **done | {"state": TrialState.PRUNED, "step": 2, "metrics": {MIOU: 0.2}}),
            replace(base, state=TrialState.INFEASIBLE, profile={"macs": 8e9}, error="macs <= 4e+09 is broken: 8e+09"),
            replace(base, state=TrialState.FAILED, failure=FailureClass.DIVERGED, error="loss, NaN"),
            replace(base, state=TrialState.FAILED, failure=FailureClass.NODE_LOST, error="node gone"),
            replace(base, state=TrialState.RUNNING),
            replace(base, **done, kind=TrialKind.REFERENCE, name="upper", params={"method.name": "target_only"}),
            replace(base, **done, kind=TrialKind.REPLICATE, parent=0, seed=1),
        ]
        for number, record in enumerate(records):
            ledger.add_trial(replace(record, number=number))
        return spec

    return fill


def with_points(ledger, number, values):
    """Put a trial's course into the ledger."""
    ledger.update_trial("demo", number, state=TrialState.RUNNING)
    attempt = ledger.start_attempt("demo", number, worker="w").attempt
    for step, value in values.items():
        ledger.add_point("demo", number, attempt=attempt, step=step, timestamp=float(step), metrics={MIOU: value})
    ledger.update_trial("demo", number, state=TrialState.COMPLETE)


def load(path, name="demo"):
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    study = optuna.load_study(study_name=name, storage=storage)
    trials = study.trials
    storage.remove_session()
    storage.engine.dispose()
    return study, trials


def test_a_study_has_every_trial_under_its_number_with_state_and_objective(filled, ledger, tmp_path):
    filled()
    assert export_optuna(ledger, "demo", str(tmp_path / "new.db")) == f"sqlite:///{tmp_path}/new.db"
    study, trials = load(tmp_path / "new.db")
    assert [trial.number for trial in trials] == list(range(8))
    assert [trial.state.name for trial in trials] == [
        *("COMPLETE", "PRUNED", "PRUNED", "FAIL", "FAIL", "RUNNING", "COMPLETE", "COMPLETE")
    ]
    assert trials[0].values == [0.5]
    assert trials[0].params == {"optimizer.lr": 0.01}
    assert study.direction.name == "MAXIMIZE"
    assert study.metric_names == [MIOU]
    assert (trials[0].datetime_complete - trials[0].datetime_start).total_seconds() == 60


def test_a_study_has_a_trials_course_over_the_steps(filled, ledger, database):
    filled()
    with_points(ledger, 0, {2: 0.25, 4: 0.375, 6: 0.5})
    export_optuna(ledger, "demo", str(database))
    _, trials = load(database)
    assert trials[0].intermediate_values == {2: 0.25, 4: 0.375, 6: 0.5}


def test_constraints_are_there_for_optuna_and_for_its_dashboard(filled, ledger, database):
    filled()
    export_optuna(ledger, "demo", str(database))
    _, trials = load(database)
    broken = [sorted(name for name, amount in trial.constraints.items() if amount > 0) for trial in trials]
    # Each under the place that the dashboard numbers it by and under its name.
    assert broken == [[], [], ["1", "macs <= 4e+09"], ["0", "failed"], [], [], [], []]
    assert trials[2].constraints["macs <= 4e+09"] == 1.0
    assert trials[2].system_attrs["constraints"] == [0.0, 1.0]
    assert trials[0].system_attrs["constraints"] == [0.0, -0.5]


def test_a_study_says_what_optuna_has_no_place_for(filled, ledger, database):
    filled()
    export_optuna(ledger, "demo", str(database))
    study, trials = load(database)
    attrs = trials[0].user_attrs
    assert (attrs["number"], attrs["kind"], attrs["run_id"], attrs["macs"]) == (0, "search", "abc", 2e9)
    assert trials[3].user_attrs["error"] == "loss, NaN"
    assert trials[3].user_attrs["failure"] == "diverged"
    assert (trials[7].user_attrs["kind"], trials[7].user_attrs["parent"]) == ("replicate", 0)
    # Outside of the space a reference has no parameters that a study could hold.
    assert trials[6].params == {}
    assert trials[6].user_attrs["params"] == '{"method.name": "target_only"}'
    assert study.user_attrs["question"] == "Does the runner work?"


@pytest.mark.parametrize("selection", ["source_validation", "oracle"])
def test_figures_made_from_target_labels_are_exported_only_where_they_may_steer(filled, ledger, database, selection):
    filled(selection=selection)
    export_optuna(ledger, "demo", str(database))
    _, trials = load(database)
    assert (TARGET in trials[0].user_attrs) == (selection == "oracle")


def test_a_sweep_of_two_objectives_becomes_such_a_study(filled, ledger, database):
    filled(objectives=PARETO)
    export_optuna(ledger, "demo", str(database))
    study, trials = load(database)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert trials[0].values == [0.5, 2e9]
    assert study.metric_names == [MIOU, "macs"]


def test_a_study_of_that_name_is_only_replaced_on_request_and_others_stay(filled, ledger, database):
    filled("first")
    filled("demo")
    for name in ("first", "demo"):
        export_optuna(ledger, name, str(database))
    ledger.update_trial("demo", 0, metrics={MIOU: 0.75})
    with pytest.raises(ConfigError, match=r"has a study 'demo' already; replace it with --force"):
        export_optuna(ledger, "demo", str(database))
    assert load(database)[1][0].values == [0.5]
    export_optuna(ledger, "demo", str(database), force=True)
    assert load(database)[1][0].values == [0.75]
    assert load(database, "first")[1][0].values == [0.5]


def test_an_export_that_fails_leaves_nothing_half_written(filled, ledger, database, tmp_path, monkeypatch):
    filled()
    path = tmp_path / "new.db"

    def broken(self, trials):
        self.add_trial(trials[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(optuna.Study, "add_trials", broken)
    with pytest.raises(KeyboardInterrupt):
        export_optuna(ledger, "demo", str(path))
    assert list(tmp_path.glob("*new*")) == []
    monkeypatch.undo()
    filled("other")
    export_optuna(ledger, "other", str(database))
    monkeypatch.setattr(optuna.Study, "add_trials", broken)
    with pytest.raises(KeyboardInterrupt):
        export_optuna(ledger, "demo", str(database))
    storage = optuna.storages.RDBStorage(f"sqlite:///{database}")
    assert optuna.get_all_study_names(storage) == ["other"]
    storage.engine.dispose()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nonsense://x", "cannot open nonsense://x"),
        ("postgresql+nodriver://me:secret@host/db", r"cannot open postgresql\+nodriver://me:\*\*\*@host/db"),
    ],
)
def test_a_database_that_cannot_be_opened_is_named_without_its_password(filled, ledger, target, message):
    filled()
    with pytest.raises(ConfigError, match=message) as raised:
        export_optuna(ledger, "demo", target)
    assert "secret" not in str(raised.value)


def test_a_file_that_is_no_database_is_left_alone(filled, ledger, tmp_path):
    filled()
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to look like a file of one" * 20)
    with pytest.raises(ConfigError, match=r"cannot open sqlite:////.*notes.txt for Optuna: .*; name another file"):
        export_optuna(ledger, "demo", str(path))
    assert path.read_text().startswith("not a database")


def test_the_table_has_a_row_for_each_trial_and_a_column_for_each_figure(filled, ledger, tmp_path):
    filled()
    export_csv(ledger, "demo", tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows][:3] == ["complete", "pruned", "infeasible"]
    assert float(rows[0]["metric.source/val/miou"]) == 0.5
    assert float(rows[0]["metric.oracle/target/miou"]) == 0.25
    assert float(rows[2]["profile.macs"]) == 8e9
    assert rows[2]["metric.source/val/miou"] == ""
    assert rows[3]["error"] == "loss, NaN"
    assert rows[6]["param.method.name"] == "target_only"
    assert float(rows[0]["param.optimizer.lr"]) == 0.01


def test_the_command_writes_both_and_says_where(filled, ledger, store, database, tmp_path, capsys):
    filled()
    words = ["export", "demo", "--store", str(store.root)]
    with pytest.raises(SystemExit) as ended:
        run_cli(cli.sweeps, [*words, "--optuna", str(database), "--csv", str(tmp_path / "t.csv")])
    assert ended.value.code == 0
    assert capsys.readouterr().out.splitlines() == [f"sqlite:///{database}", str(tmp_path / "t.csv")]
    with pytest.raises(SystemExit) as ended:
        run_cli(cli.sweeps, words)
    assert ended.value.code == 2
    assert "say where to with --optuna FILE_OR_URL or --csv FILE" in capsys.readouterr().err


def test_an_unknown_sweep_is_an_error_with_the_nearest_name(filled, ledger, tmp_path):
    filled()
    with pytest.raises(ConfigError, match="demo"):
        export_optuna(ledger, "deno", str(tmp_path / "s.db"))
