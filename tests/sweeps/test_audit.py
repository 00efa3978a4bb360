"""Every kind of loss and doubling is found, and a sound sweep has none."""

import json
import shutil
from dataclasses import replace

import fakes
import pytest
import sqlalchemy as sa
import torch

from segda.cli_errors import run_cli
from segda.environment import code_fingerprint
from sweeps import cli
from sweeps.audit.audit import audit
from sweeps.execution.remote import keep
from sweeps.execution.remote_folder import StorageError
from sweeps.execution.reuse import take_over
from sweeps.failures import FailureClass
from sweeps.ledger.lease import Lease
from sweeps.ledger.tables import POINT, TRIAL
from sweeps.tracking import Tracker
from sweeps.trial import TrialKind, TrialRecord, TrialState, trial_key

TIME = "train/seconds_per_step"


def values(step):
    return {"source/val/miou": step / 10, "train/loss_seg": float("nan")}


def write_files(folder, steps, metrics=values):
    """What a training leaves, as far as an audit reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    history = [{"step": step, "time": 1.0, "seconds": 1.0, "metrics": metrics(step)} for step in steps]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(kept) + "\n" for kept in history))
    state = {"step": steps[-1], "history": json.dumps(history), "weights": torch.zeros(3), "round": None}
    torch.save(state, folder / "checkpoint.pt")
    (folder / "attempt").write_text("1\n")


@pytest.fixture
def sweep(make_spec, begun, ledger, store):
    """A sweep of four trials: two complete, one stopped at a rung, one that waits."""
    spec = begun(make_spec(scheduler={"name": "asha", "min_steps": 2, "reduction_factor": 2}))
    for number, steps in enumerate((6, 6, 2, 0)):
        config = spec.train_config({"optimizer.lr": 0.01 * (number + 1)}, seed=0)
        record = TrialRecord(
            sweep="demo",
            number=number,
            key=trial_key(config.canonical(), "0123456789abcdef", f"segda.training:train {code_fingerprint(config)}"),
            kind=TrialKind.SEARCH,
            params={"optimizer.lr": 0.01 * (number + 1)},
            config=config.model_dump(mode="json"),
            seed=0,
        )
        ledger.add_trial(record)
        if steps:
            ledger.start_attempt("demo", number, worker="host:1")
            write_files(store.trial(record), range(1, steps + 1))
            for step in range(1, steps + 1):
                ledger.add_point("demo", number, attempt=1, step=step, timestamp=1.0 + step, metrics=values(step))
            state = TrialState.COMPLETE if steps == 6 else TrialState.PRUNED
            ledger.update_trial("demo", number, state=state, finished=4e9)
        if steps == 6:
            result = {"classes": [], "splits": {}, "data_fingerprint": "0123456789abcdef"}
            (store.trial(record) / "result.json").write_text(json.dumps(result))
    return spec


@pytest.fixture
def problems(sweep, ledger, store):
    def find(**options):
        return [
            problem
            for check in audit("demo", ledger=ledger, store=store, **{"mlflow": False} | options)
            for problem in check.problems
        ]

    return find


def change(ledger, statement):
    with ledger.writing() as connection:
        connection.execute(statement)


def test_a_sound_sweep_has_nothing_wrong_and_everything_was_looked_at(sweep, ledger, store):
    checks = audit("demo", ledger=ledger, store=store, mlflow=False)
    assert [problem for check in checks for problem in check.problems] == []
    counts = {check.claim: check.count for check in checks}
    assert counts["trials are numbered without a gap"] == 4
    assert counts["keys follow from configuration, data and code"] == 4
    assert counts["every report is there once, in order, and none is missing"] == 14
    assert counts["the trials' metrics.jsonl have the same reports"] == 14
    assert counts["the trials' checkpoints have the same reports"] == 14


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (sa.delete(POINT).where(POINT.c.number == 0, POINT.c.step == 3), "trial 0 lacks the report of step 3"),
        (
            sa.update(POINT).where(POINT.c.number == 0, POINT.c.step == 3).values(step=7),
            "trial 0 has a report of step 7, where none is due",
        ),
        (
            sa.update(POINT).where(POINT.c.number == 0, POINT.c.step == 3).values(id=1000),
            "reports of trial 0 arrived out of order",
        ),
        (
            sa.update(POINT).where(POINT.c.number == 0, POINT.c.step == 6).values(metrics=values(5)),
            "trial 0: its metrics are not those of its last reports",
        ),
        (
            sa.update(POINT).where(POINT.c.number == 0, POINT.c.step == 3).values(metrics=values(5)),
            "trial 0, step 3: metrics.jsonl has other values of source/val/miou",
        ),
        (
            sa.update(POINT).where(POINT.c.number == 0, POINT.c.step == 3).values(metrics=values(5)),
            "trial 0, step 3: checkpoint.pt has other values of source/val/miou",
        ),
        (sa.update(TRIAL).where(TRIAL.c.number == 0).values(step=5), "trial 0 is complete at step 5 of 6"),
        (
            sa.update(TRIAL).where(TRIAL.c.number == 3).values(state="running", attempt=1),
            "no driver works on the sweep",
        ),
        (sa.update(TRIAL).where(TRIAL.c.number == 0).values(finished=None), "without a time at which it ended"),
        (sa.update(TRIAL).where(TRIAL.c.number == 0).values(finished=1.0), "ended before it began"),
        (sa.update(TRIAL).where(TRIAL.c.number == 3).values(finished=1.0), "has a time at which it ended"),
        (sa.update(TRIAL).where(TRIAL.c.number == 2).values(state="failed"), "trial 2 is failed without a reason"),
        (sa.update(TRIAL).where(TRIAL.c.number == 0).values(attempt=0), "without having been handed to a worker"),
        (sa.update(TRIAL).where(TRIAL.c.number == 0).values(attempt=0), "a worker made attempt 1, the ledger knows 0"),
        (sa.update(TRIAL).where(TRIAL.c.number == 2).values(state="infeasible"), "trial 2 was"),
        (sa.delete(TRIAL).where(TRIAL.c.number == 3), None),
        (sa.update(TRIAL).where(TRIAL.c.number == 3).values(number=5), "there is no trial 3"),
        (sa.update(TRIAL).where(TRIAL.c.number == 3).values(params={"optimizer.lr": 0.5}), "proposed optimizer.lr"),
        (
            sa.update(TRIAL).where(TRIAL.c.number.in_([1, 3])).values(kind="replicate", parent=0, seed=1),
            "trial 0 is repeated 2 times with seed 1",
        ),
        (
            sa.update(TRIAL).where(TRIAL.c.number.in_([1, 3])).values(kind="reference", name="upper"),
            "reference upper is there 2 times",
        ),
    ],
)
def test_what_is_wrong_in_the_ledger_is_found(problems, ledger, statement, expected):
    change(ledger, statement)
    found = problems()
    assert (found == []) if expected is None else any(expected in problem for problem in found), found


@pytest.mark.parametrize(
    ("break_files", "expected"),
    [
        (lambda folder: write_files(folder, [1, 2, 3, 4, 5]), "the ledger has step 6, which checkpoint.pt lacks"),
        (lambda folder: write_files(folder, range(1, 8)), "metrics.jsonl has step 7, which the ledger lacks"),
        (lambda folder: write_files(folder, [1, 1, 2, 3, 4, 5, 6]), "metrics.jsonl has a step more than once"),
        (lambda folder: (folder / "checkpoint.pt").write_bytes(b"half"), "checkpoint.pt cannot be read"),
        (lambda folder: (folder / "metrics.jsonl").unlink(), "trial 0: metrics.jsonl is missing in"),
        (lambda folder: (folder / "checkpoint.pt").unlink(), "trial 0: checkpoint.pt is missing in"),
        (lambda folder: (folder.parent / "0009-stray").mkdir(), "0009-stray belongs to no trial"),
    ],
)
def test_what_is_wrong_in_the_files_is_found(problems, ledger, store, break_files, expected):
    break_files(store.trial(ledger.trial("demo", 0)))
    assert any(expected in problem for problem in problems())


@pytest.mark.parametrize(
    ("step", "of_round", "is_sound"),
    [(3, (1, "digest"), True), (3, None, False), (2, (1, "digest"), True), (1, (1, "digest"), False)],
)
def test_only_the_beginning_of_a_round_is_kept_between_reports(problems, ledger, store, step, of_round, is_sound):
    """Trial 2 was stopped when it had reported step 2; a training with rounds may have gone on from there a little."""
    folder = store.trial(ledger.trial("demo", 2))
    state = torch.load(folder / "checkpoint.pt") | {"step": step, "round": of_round}
    torch.save(state, folder / "checkpoint.pt")
    for name in ("round-1-labels.npy", "round-1.json"):
        (folder / name).touch()
    found = problems()
    if is_sound:
        assert found == []
    else:
        assert (
            f"trial 2: checkpoint.pt cannot be read (ValueError: it is of step {step}, its last report is of step 2)"
            in found
        )


def test_a_sweep_without_any_files_has_lost_them(problems, store):
    shutil.rmtree(store.sweep("demo"))
    found = problems()
    assert len([problem for problem in found if "checkpoint.pt is missing" in problem]) == 3
    assert len([problem for problem in found if "metrics.jsonl is missing" in problem]) == 3
    assert all("--store" in problem for problem in found)


def test_a_training_function_of_ones_own_may_write_no_such_files(problems, store):
    shutil.rmtree(store.sweep("demo"))
    assert problems(train="other:train") == []


def test_speeds_may_differ_where_reported_steps_were_trained_again(problems, ledger, store):
    write_files(store.trial(ledger.trial("demo", 0)), range(1, 7), lambda step: values(step) | {TIME: 0.2})
    for step in range(1, 7):
        metrics = values(step) | {TIME: 0.1}
        change(ledger, sa.update(POINT).where(POINT.c.number == 0, POINT.c.step == step).values(metrics=metrics))
    change(ledger, sa.update(TRIAL).where(TRIAL.c.number == 0).values(metrics=values(6) | {TIME: 0.1}))
    assert problems() == []


@pytest.fixture
def elsewhere(sweep, ledger, store, tmp_path):
    """Let the sweep keep its files at a storage address; the driver's node has those of an earlier attempt of trial 0."""
    spec = sweep.model_copy(update={"storage": f"file://{tmp_path}/bucket"})
    ledger.update_sweep("demo", spec=spec.canonical())
    for record in ledger.trials("demo"):
        if record.attempt:
            keep(record, store=store, storage=spec.storage)
    shutil.rmtree(store.sweep("demo"))
    change(ledger, sa.update(TRIAL).where(TRIAL.c.number == 0).values(attempt=2))
    write_files(store.trial(ledger.trial("demo", 0)), [1, 2])
    return tmp_path / "bucket"


def test_files_at_the_storage_address_are_compared_and_none_is_brought_here(problems, elsewhere, ledger, store):
    before = sorted(store.root.rglob("*"))
    assert problems() == []
    checks = {check.claim: check for check in audit("demo", ledger=ledger, store=store, mlflow=False)}
    assert checks["the trials' checkpoints have the same reports"].count == 14
    assert checks["the trials' metrics.jsonl have the same reports"].count == 14
    assert checks["keys follow from configuration, data and code"].count == 4
    assert sorted(store.root.rglob("*")) == before


def test_a_loss_at_the_storage_address_is_found(problems, elsewhere):
    for path in elsewhere.rglob("checkpoint-00000006-*.pt"):
        path.unlink()
    assert sorted(problem.partition(" in ")[0] for problem in problems()) == [
        "trial 0: checkpoint.pt is missing",
        "trial 1: checkpoint.pt is missing",
    ]


def test_a_storage_address_that_does_not_answer_is_told_once_per_kind_of_file(problems, elsewhere, monkeypatch):
    def names(self):
        raise StorageError("bucket is away")

    monkeypatch.setattr("sweeps.execution.remote_folder.RemoteFolder.names", names)
    assert problems() == ["bucket is away; the files of trial 0 and later ones were not looked at"] * 2


def test_files_may_be_ahead_of_the_ledger_while_a_trial_is_open(problems, ledger, store):
    ledger.update_trial("demo", 2, state=TrialState.QUEUED, finished=None)
    write_files(store.trial(ledger.trial("demo", 2)), [1, 2, 3])
    assert problems() == []


def test_trials_of_other_code_keep_their_keys(sweep, ledger, store, monkeypatch):
    monkeypatch.setattr("sweeps.audit.files.code_fingerprint", lambda config: "newer")
    check = audit("demo", ledger=ledger, store=store, mlflow=False)[2]
    assert (check.count, check.problems, check.note) == (0, (), "4 of other code than this: not computed anew")


def test_a_result_that_was_taken_over_is_compared_with_its_origin(problems, ledger, store):
    record = replace(ledger.trial("demo", 0), number=4, state=TrialState.QUEUED, attempt=0, started=None, created=5e9)
    finished, points = take_over(record, ledger=ledger, store=store, train="fakes:quadratic")
    ledger.add_trial(finished, points=points)
    assert problems() == []
    change(ledger, sa.update(TRIAL).where(TRIAL.c.number == 4).values(reused="demo/1"))
    assert "trial 4 was taken over from trial demo/1, which computes something else" in problems()
    change(ledger, sa.update(TRIAL).where(TRIAL.c.number == 4).values(reused="demo/9"))
    assert "trial 4 was taken over from trial demo/9, which the ledger does not have" in problems()


def test_a_running_trial_is_fine_while_a_driver_lives(problems, ledger):
    ledger.start_attempt("demo", 3, worker="host:1")
    assert len(problems()) == 1
    Lease(ledger, "demo").take()
    assert problems() == []


@pytest.fixture
def call(capsys, store):
    def invoke(*words):
        with pytest.raises(SystemExit) as ended:
            run_cli(cli.sweeps, [*words, "--store", str(store.root)])
        shown = capsys.readouterr()
        return ended.value.code, shown.out, shown.err

    return invoke


def test_the_command_compares_mlflow_too_and_exits_with_1_when_something_differs(sweep, call, ledger, mlflow_store):
    code, out, _ = call("audit", "demo")
    assert code == 1
    assert "no experiment 'demo'" in out
    code, _, _ = call("sync", "demo")
    assert code == 0
    code, out, _ = call("audit", "demo")
    assert code == 0, out
    assert "every metric in MLflow is there once" in out
    change(ledger, sa.update(POINT).where(POINT.c.number == 0, POINT.c.step == 3).values(timestamp=99.0))
    code, out, _ = call("audit", "demo")
    assert code == 1
    assert "trial 0, source/val/miou: another value or time than reported at step 3" in out


def test_a_point_that_mlflow_has_twice_is_found(problems, sweep, ledger, mlflow_store):
    tracker = Tracker(None, experiment=None, ledger=ledger, spec=sweep, store=mlflow_store)
    tracker.connect()
    tracker.send(final=True)
    assert problems(mlflow=True) == []
    run = ledger.trial("demo", 0).run_id
    tracker._client.log_metric(run, "source/val/miou", 0.3, timestamp=77, step=3)
    assert problems(mlflow=True) == [
        "trial 0, source/val/miou: more than once at step 3",
        "trial 0, source/val/miou: another value or time than reported at step 3",
    ]


def test_states_in_mlflow_are_compared(problems, sweep, ledger, mlflow_store):
    tracker = Tracker(None, experiment=None, ledger=ledger, spec=sweep, store=mlflow_store)
    tracker.connect()
    tracker.send(final=True)
    tracker._client.update_run(ledger.trial("demo", 3).run_id, status="RUNNING")
    ledger.update_trial("demo", 2, failure=FailureClass.ERROR, error="late")
    assert problems(mlflow=True) == [
        "trial 2: other tags than the ledger says: sweep.failure, sweep.error",
        "trial 3 is queued: its run should be SCHEDULED, it is RUNNING",
    ]


def test_an_audit_works_while_mlflow_is_down_and_says_so(call, make_spec, begun):
    begun(make_spec(tracking={"uri": "http://127.0.0.1:9"}))
    code, out, _ = call("audit", "demo")
    assert code == 1
    assert "MLflow at http://127.0.0.1:9 cannot be asked" in out
    assert "--no-mlflow" in out
    code, out, _ = call("audit", "demo", "--no-mlflow")
    assert code == 0
    assert "trials are numbered without a gap" in out


def test_a_training_function_of_ones_own_brings_its_own_reader_of_checkpoints(sweep, ledger, store):
    folder = store.trial(ledger.trial("demo", 0))
    (folder / "checkpoint.pt").write_text(json.dumps([[1, fakes.profile.__name__]]))
    found = audit("demo", ledger=ledger, store=store, mlflow=False, history=lambda path: [(1, values(1))])[-1]
    assert "trial 0: the ledger has step 2, which checkpoint.pt lacks" in found.problems
