"""Every kind of loss and doubling is found, and a sound sweep has none."""

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import fakes
import pytest
import sqlalchemy as sa
import torch

from segda.cli_errors import run_cli
from sweeps import cli
from sweeps.audit.audit import audit
from sweeps.execution.digests import digests_of
from sweeps.execution.remote import keep
from sweeps.execution.remote_folder import StorageError
from sweeps.execution.reuse import take_over
from sweeps.failures import FailureClass
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import Lease
from sweeps.ledger.proofs import TRIAL_ROW, current_chains, current_digests
from sweeps.ledger.records import Device, SweepState
from sweeps.ledger.tables import POINT, PROFILE, PROOF, SWEEP, TRIAL
from sweeps.planning.profiles import profile_key, reachable
from sweeps.reports.sweep_report import write_report
from sweeps.store import Store
from sweeps.tracking import MlflowClient, Tracker, default_uri
from sweeps.trial import TrialKind, TrialRecord, TrialState, code_of, trial_key

TIME = "train/seconds_per_step"
DATA = "0123456789abcdef"


def values(step):
    return {"source/val/miou": step / 10, "train/loss_seg": float("nan")}


def write_files(folder, steps, metrics=values, weight=0):
    """What a training leaves, as far as an audit reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    history = [{"step": step, "time": 1.0, "seconds": 1.0, "metrics": metrics(step)} for step in steps]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(kept) + "\n" for kept in history))
    state = {"step": steps[-1], "history": json.dumps(history), "weights": torch.full((3,), weight), "round": None}
    torch.save(state, folder / "checkpoint.pt")
    (folder / "attempt").write_text("1\n")


@pytest.fixture
def sweep(make_spec, begun, ledger, store):
    """A sweep of four trials: two complete, one stopped at a rung, one that waits."""
    spec = begun(make_spec(scheduler={"name": "asha", "min_steps": 2, "reduction_factor": 2}))
    for number, steps in enumerate((6, 6, 2, 0)):
        config = spec.train_config({"optimizer.lr": 0.01 * (number + 1)}, seed=0)
        code = code_of(config, train="segda.training:train")
        record = TrialRecord(
            sweep="demo",
            number=number,
            key=trial_key(config.canonical(), DATA, code),
            kind=TrialKind.SEARCH,
            params={"optimizer.lr": 0.01 * (number + 1)},
            config=config.model_dump(mode="json"),
            seed=0,
        )
        ledger.add_trial(record, data=DATA, code=code)
        if steps:
            ledger.start_attempt("demo", number, worker="host:1")
            write_files(store.trial(record), range(1, steps + 1), weight=number)
            for step in range(1, steps + 1):
                ledger.add_point("demo", number, attempt=1, step=step, timestamp=1.0 + step, metrics=values(step))
            state = TrialState.COMPLETE if steps == 6 else TrialState.PRUNED
        if steps == 6:
            result = {"classes": [], "splits": {}, "data_fingerprint": DATA}
            (store.trial(record) / "result.json").write_text(json.dumps(result))
            ledger.put_files("demo", number, digests_of(store.trial(record)), attempt=1)
        if steps:
            ledger.update_trial("demo", number, state=state, finished=4e9)
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


def forget_proofs(ledger):
    """Let the ledger be one of a version that kept no digests."""
    change(ledger, sa.delete(PROOF))


def accept(ledger):
    """Let the rows be as if this program had written them."""
    with ledger.writing() as connection:
        digests, chains = current_digests(connection, TRIAL_ROW, "demo"), current_chains(connection, "demo")
        for number, digest in digests.items():
            proof = sa.update(PROOF).where(PROOF.c.kind == TRIAL_ROW, PROOF.c.number == number)
            connection.execute(proof.values(digest=digest, points=chains.get(number)))


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
        (sa.delete(TRIAL).where(TRIAL.c.number == 3), "trial 3 was in the ledger and is gone"),
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
    assert any(expected in problem for problem in found), found


@pytest.mark.parametrize(
    ("kind", "is_sound"), [("search", True), ("reference", True), ("replicate", False)], ids=lambda value: str(value)
)
def test_trials_of_the_search_and_references_may_be_repeated_and_repetitions_not(problems, ledger, kind, is_sound):
    change(ledger, sa.update(TRIAL).where(TRIAL.c.number == 1).values(kind=kind, name="upper", parent=0, seed=1))
    change(ledger, sa.update(TRIAL).where(TRIAL.c.number == 3).values(kind="replicate", parent=1, seed=2))
    found = "trial 3 repeats trial 1, which is none of the search and no reference"
    assert (found in problems()) != is_sound


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
    assert all("--store" in problem for problem in found if "result.json" not in problem)


def test_a_training_function_of_ones_own_may_write_no_such_files(problems, ledger, store):
    forget_proofs(ledger)
    shutil.rmtree(store.sweep("demo"))
    assert problems(train="other:train") == []


def test_speeds_may_differ_where_reported_steps_were_trained_again(problems, ledger, store):
    write_files(store.trial(ledger.trial("demo", 0)), range(1, 7), lambda step: values(step) | {TIME: 0.2})
    for step in range(1, 7):
        metrics = values(step) | {TIME: 0.1}
        change(ledger, sa.update(POINT).where(POINT.c.number == 0, POINT.c.step == step).values(metrics=metrics))
    change(ledger, sa.update(TRIAL).where(TRIAL.c.number == 0).values(metrics=values(6) | {TIME: 0.1}))
    accept(ledger)
    ledger.put_files("demo", 0, digests_of(store.trial(ledger.trial("demo", 0))), attempt=1)
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
    accept(ledger)
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


@pytest.mark.parametrize("name", ["checkpoint-00000006-*.pt", "*-result.json"])
def test_a_loss_at_the_storage_address_is_found_although_the_files_are_here(
    problems, sweep, ledger, store, tmp_path, name
):
    storage = f"file://{tmp_path}/bucket"
    ledger.update_sweep("demo", spec=sweep.model_copy(update={"storage": storage}).canonical())
    for record in ledger.trials("demo"):
        if record.attempt:
            keep(record, store=store, storage=storage)
    assert problems() == []
    (path,) = (tmp_path / "bucket").rglob(f"0000-*/{name}")
    path.unlink()
    local = "checkpoint.pt" if name.startswith("checkpoint") else "result.json"
    assert problems() == [f"trial 0: {local} is missing under {storage}"]


def test_a_storage_address_that_does_not_answer_is_told_once_per_kind_of_file(problems, elsewhere, monkeypatch):
    def names(self):
        raise StorageError("bucket is away")

    monkeypatch.setattr("sweeps.execution.remote_folder.RemoteFolder.names", names)
    assert problems() == ["bucket is away; the files of trial 0 and later ones were not looked at"] * 2


def test_files_may_be_ahead_of_the_ledger_while_a_trial_is_open(problems, ledger, store):
    ledger.update_trial("demo", 2, state=TrialState.QUEUED, finished=None)
    write_files(store.trial(ledger.trial("demo", 2)), [1, 2, 3])
    assert problems() == []


def test_keys_do_not_depend_on_the_code_that_audits(sweep, ledger, store, monkeypatch):
    monkeypatch.setattr("segda.environment.code_fingerprint", lambda config: "newer")
    checks = {check.claim: check for check in audit("demo", ledger=ledger, store=store, mlflow=False)}
    check = checks["keys follow from configuration, data and code"]
    assert (check.count, check.problems, check.note) == (4, (), "")


def test_a_ledger_without_digests_is_audited_as_far_as_that_goes(problems, sweep, ledger, store):
    forget_proofs(ledger)
    checks = {check.claim: check for check in audit("demo", ledger=ledger, store=store, mlflow=False)}
    assert [problem for check in checks.values() for problem in check.problems] == []
    assert {check.note for check in checks.values() if check.note} == {
        "4 written by a version that kept no digests",
        "4 of a version that did not note data and code",
        "2 trials of a version that kept no digests",
    }
    change(ledger, sa.update(TRIAL).where(TRIAL.c.number == 0).values(step=5))
    assert problems() != []


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
    def invoke(*words, root=store.root):
        with pytest.raises(SystemExit) as ended:
            run_cli(cli.sweeps, [*words, "--store", str(root)])
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
    found = audit("demo", ledger=ledger, store=store, mlflow=False, history=lambda path: [(1, values(1))])
    problems = [problem for check in found for problem in check.problems]
    assert "trial 0: the ledger has step 2, which checkpoint.pt lacks" in problems


# Damage planted into a good store


@pytest.fixture
def good(sweep, ledger, store):
    """A sweep that has ended, with a report and figures of its network."""
    device = Device(kind="cpu", name="some processor", threads=1)
    (architecture,) = reachable(sweep)
    ledger.put_profile(profile_key(architecture, device), {"macs": 1e9})
    ledger.update_info("demo", device=device)
    ledger.update_trial("demo", 3, state=TrialState.FAILED, failure=FailureClass.ERROR, error="bug", finished=4e9)
    ledger.update_sweep("demo", state=SweepState.FINISHED)
    write_report(ledger, store, "demo")
    return sweep


def of_trial(number):
    return TRIAL.c.sweep == "demo", TRIAL.c.number == number


def row(number, **values):
    return lambda ledger, store: change(ledger, sa.update(TRIAL).where(*of_trial(number)).values(**values))


def report_of(number, step, **values):
    chosen = (POINT.c.number == number, POINT.c.step == step)
    return lambda ledger, store: change(ledger, sa.update(POINT).where(*chosen).values(**values))


def file_of(number, damage, name="checkpoint.pt"):
    return lambda ledger, store: damage(store.trial(ledger.trial("demo", number)) / name)


def flip(path):
    content = bytearray(path.read_bytes())
    content[content.find(b"PK", 64) - 70] ^= 1
    path.write_bytes(bytes(content))


def append(path):
    with path.open("a") as file:
        file.write(" ")


def other_config(ledger, store):
    config = ledger.trial("demo", 0).config
    row(0, config={**config, "batch_size": 16})(ledger, store)


def swapped(ledger, store):
    first, second = (store.trial(ledger.trial("demo", number)) / "checkpoint.pt" for number in (0, 1))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def copied_row(ledger, store):
    with ledger.writing() as connection:
        found = dict(connection.execute(sa.select(TRIAL).where(*of_trial(1))).mappings().one())
        connection.execute(TRIAL.insert().values(found | {"number": 4}))


def in_mlflow(damage, name):
    def planted(ledger, store):
        (path,) = store.mlartifacts.rglob(f"{ledger.trial('demo', 0).run_id}/artifacts/{name}")
        damage(path)

    return planted


def moved_files(ledger, store):
    client = MlflowClient(default_uri(store))
    place = client.get_run(ledger.trial("demo", 1).run_id).info.artifact_uri
    with sqlite3.connect(store.mlflow) as connection:
        connection.execute(
            "UPDATE runs SET artifact_uri = '/elsewhere' || substr(artifact_uri, 8) WHERE artifact_uri = ?", [place]
        )


DAMAGES = {
    "a parameter": (row(0, params={"optimizer.lr": 0.5}), "trial 0: its row was changed"),
    "the configuration": (other_config, "trial 0: its key is not that of its configuration"),
    "the key": (row(0, key="0" * 16), "trial 0: its key is not that of its configuration"),
    "the seed": (row(0, seed=7), "trial 0: its row was changed"),
    "the number of attempts": (row(0, attempt=3), "trial 0: its row was changed"),
    "the state": (row(2, state="complete"), "trial 2: its row was changed"),
    "a decision": (row(2, state="queued", finished=None), "trial 2: its row was changed"),
    "figures of the network": (row(0, profile={"macs": 1.0}), "trial 0: its row was changed"),
    "the reason of a failure": (row(3, error="none"), "trial 3: its row was changed"),
    "a trial gone": (
        lambda ledger, store: change(ledger, sa.delete(TRIAL).where(*of_trial(3))),
        "trial 3 was in the ledger and is gone",
    ),
    "a trial twice": (copied_row, "trial 4 was added by something else"),
    "the metric of a report": (report_of(0, 3, metrics={"source/val/miou": 0.9}), "trial 0: its reports were changed"),
    "the time of a report": (report_of(0, 3, timestamp=9.0), "trial 0: its reports were changed"),
    "a report gone": (
        lambda ledger, store: change(ledger, sa.delete(POINT).where(POINT.c.number == 0, POINT.c.step == 3)),
        "trial 0 lacks the report of step 3",
    ),
    "the sweep file in the ledger": (
        lambda ledger, store: change(
            ledger,
            sa.update(SWEEP).where(SWEEP.c.name == "demo").values(spec=ledger.sweep("demo").spec | {"seed": 5}),
        ),
        "the row of sweep demo was changed",
    ),
    "what was measured of a network": (
        lambda ledger, store: change(ledger, sa.update(PROFILE).values(metrics={"macs": 2e9})),
        "what the ledger says of the efficiency of bisenet_v1",
    ),
    "a bit of a checkpoint": (file_of(0, flip), "trial 0: checkpoint.pt in"),
    "a bit of the checkpoint of a pruned trial": (file_of(2, flip), "trial 2: checkpoint.pt cannot be read"),
    "a checkpoint gone": (file_of(0, Path.unlink), "trial 0: checkpoint.pt is missing"),
    "checkpoints swapped": (swapped, "trial 1: checkpoint.pt in"),
    "the scores": (file_of(0, append, "result.json"), "trial 0: result.json in"),
    "the scores gone": (file_of(0, Path.unlink, "result.json"), "trial 0: result.json is missing"),
    "the report": (lambda ledger, store: append(store.report("demo")), "report.html is not what was written"),
    "the tables gone": (lambda ledger, store: store.report("demo", suffix=".md").unlink(), "report.md is missing"),
    "the report too old": (
        lambda ledger, store: ledger.update_trial("demo", 3, error="another bug"),
        "report.html is older than what the ledger says",
    ),
}
DAMAGES_IN_MLFLOW = {
    "a figure in MLflow": (
        lambda ledger, store: MlflowClient(default_uri(store)).log_metric(
            ledger.trial("demo", 0).run_id, "source/val/miou", 0.3, timestamp=77, step=3
        ),
        "trial 0, source/val/miou: more than once at step 3",
    ),
    "a run of MLflow gone": (
        lambda ledger, store: MlflowClient(default_uri(store)).delete_run(ledger.trial("demo", 3).run_id),
        "no run of trial 3",
    ),
    "a file of MLflow": (in_mlflow(append, "result.json"), "result.json is not what its training left"),
    "a file of MLflow gone": (in_mlflow(Path.unlink, "metrics.jsonl"), "metrics.jsonl is missing; `sweeps sync demo"),
    "files of MLflow elsewhere": (moved_files, "trial 1: MLflow has its files in /elsewhere"),
}


def test_damage_that_is_planted_into_a_good_store_is_found_and_named(good, call, ledger, store, tmp_path):
    assert call("audit", "demo", "--no-mlflow")[0] == 0
    for number, (damage, (plant, expected)) in enumerate(DAMAGES.items()):
        copy = Store.at(tmp_path / str(number))
        shutil.copytree(store.root, copy.root)
        with Ledger.open(copy.ledger) as opened:
            plant(opened, copy)
        code, out, _ = call("audit", "demo", "--no-mlflow", root=copy.root)
        assert (damage, code) == (damage, 1), out
        assert len([line for line in out.splitlines() if expected in line]) == 1, (damage, out)


def test_damage_that_is_planted_into_mlflow_is_found_and_named(good, call, ledger, mlflow_store):
    tracker = Tracker(None, experiment=None, ledger=ledger, spec=good, store=mlflow_store)
    tracker.connect()
    tracker.send(final=True)
    assert call("audit", "demo")[0] == 0
    for plant, _ in DAMAGES_IN_MLFLOW.values():
        plant(ledger, mlflow_store)
    code, out, _ = call("audit", "demo")
    assert code == 1
    for _, expected in DAMAGES_IN_MLFLOW.values():
        assert len([line for line in out.splitlines() if expected in line]) == 1, (expected, out)
