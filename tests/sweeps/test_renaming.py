"""`sweeps rename`: the same sweep under another name, whoever names it, wherever it was killed; and nobody else's."""

import json
import time

import pytest
import sqlalchemy as sa
from kept import kill_during, rows, train

import sweeps
from segda.errors import ConfigError
from sweeps.audit.audit import audit
from sweeps.checks.makers import stored_spec
from sweeps.housekeeping import renaming
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import Lease
from sweeps.ledger.proofs import SWEEP_ROW, TRIAL_ROW, current_digests, read_proofs
from sweeps.ledger.records import RENAME
from sweeps.ledger.tables import SWEEP, TRIAL
from sweeps.tracking import MlflowClient, Tracker, default_uri
from sweeps.tracking.experiment import sweep_id
from sweeps.trial import TrialState


@pytest.fixture
def spec(make_spec, begun, bucket):
    return begun(make_spec(storage=f"file://{bucket}"))


@pytest.fixture
def trained(spec, ledger, store):
    """Two trained trials, one that waits, an event, a plan and a report."""
    for number, value in enumerate((0.5, 0.7)):
        train(ledger, store, spec, number, value)
    train(ledger, store, spec, 2, 0.3, state=TrialState.QUEUED, steps=2)
    ledger.add_event("demo", "note", "something happened")
    (store.sweep("demo") / "plan.json").write_text(json.dumps({"sweep": "demo", "gpus": 0}))
    sweeps.report("demo", store=store.root)
    return spec


def problems(ledger, store, name, *, mlflow=False):
    return [line for check in audit(name, ledger=ledger, store=store, mlflow=mlflow) for line in check.problems]


def told(*lines):
    raise AssertionError(lines)


def test_everything_has_the_new_name(trained, ledger, store, bucket):
    before, events = rows(ledger, "demo"), ledger.events("demo")
    points, picked = ledger.points("demo"), sweeps.figures("demo", store=store.root)["pick"]["trial"]
    sweeps.rename("demo", "new", store=store.root, note=told)
    assert set(rows(ledger, "demo").values()) == {0}
    assert rows(ledger, "new") == before
    assert (ledger.events("new"), ledger.points("new")) == (events, points)
    assert ledger.sweep("new").info.former_names == ("demo",)
    assert stored_spec(ledger.sweep("new")).name == "new"
    assert ledger.sweep("new").driver is None
    assert problems(ledger, store, "new") == []
    assert not store.sweep("demo").exists()
    assert not (bucket / "demo").exists()
    assert len(list((bucket / "new" / "trials").glob("*/checkpoint-*.pt"))) == 3
    assert json.loads((store.sweep("new") / "plan.json").read_text())["sweep"] == "new"
    assert "demo" not in store.report("new", suffix=".md").read_text().replace("('demo',)", "")
    assert sweeps.figures("new", store=store.root)["pick"]["trial"] == picked == 1


def test_a_renamed_sweep_goes_on(trained, ledger, store):
    sweeps.rename("demo", "new", store=store.root, note=told)
    with Lease(ledger, "new").held(lambda: 1.0):
        again = ledger.start_attempt("new", 2, worker="host:2")
        assert again.attempt == 2
        ledger.add_point("new", 2, attempt=2, step=3, timestamp=9.0, metrics={"source/val/miou": 0.9})
    assert ledger.trial("new", 2).step == 3
    assert not [line for line in problems(ledger, store, "new") if "was changed" in line]


def test_what_was_damaged_before_is_found_afterwards_too(trained, ledger, store):
    with ledger.writing() as connection:
        connection.execute(sa.update(TRIAL).where(TRIAL.c.number == 0).values(seconds=77.0))
    assert problems(ledger, store, "demo") == ["trial 0: its row was changed by something else than this program"]
    sweeps.rename("demo", "new", store=store.root, note=told)
    assert problems(ledger, store, "new") == ["trial 0: its row was changed by something else than this program"]


def test_others_that_name_it_follow(trained, ledger, store, make_spec):
    checkpoint = store.trial(ledger.trial("demo", 1)) / "checkpoint.pt"
    plain = make_spec(name="student").canonical()
    plain["sampler"]["warm_start"] = ["demo"]
    plain["base"]["distillation"] = {"checkpoint": str(checkpoint), "digest": "0" * 64}
    ledger.create_sweep("student", spec=plain)
    ledger.update_info("student", warm_start={"demo": (0, 1)})
    bystander = make_spec(name="demo_2")
    ledger.create_sweep("demo_2", spec=bystander.canonical())
    train(ledger, store, bystander, 0, reused="demo/0", attempt=0)
    train(ledger, store, bystander, 1, reused="demox/0", attempt=0)
    sweeps.rename("demo", "new", store=store.root, note=told)
    student = ledger.sweep("student")
    assert student.spec["sampler"]["warm_start"] == ["new"]
    assert student.info.warm_start == {"new": (0, 1)}
    moved = student.spec["base"]["distillation"]["checkpoint"]
    assert moved == str(store.trial(ledger.trial("new", 1)) / "checkpoint.pt")
    assert [trial.reused for trial in ledger.trials("demo_2")] == ["new/0", "demox/0"]
    with ledger.reading() as connection:
        for kind, name in ((SWEEP_ROW, "student"), (SWEEP_ROW, "demo_2"), (TRIAL_ROW, "demo_2")):
            kept = {number: proof.digest for number, proof in read_proofs(connection, kind, name).items()}
            assert kept == current_digests(connection, kind, name)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("other", "there is a sweep 'other' already"),
        ("demo", "there is a sweep 'demo' already"),
        ("Not valid", r"the new sweep: name: must match"),
        ("ledger.db", r"the new sweep: name: "),
        ("folder", r"folder is there already, and no sweep of the ledger has it"),
    ],
)
def test_a_name_that_cannot_be_had_changes_nothing(new, message, trained, ledger, store, make_spec, call):
    ledger.create_sweep("other", spec=make_spec(name="other").canonical())
    (store.root / "folder").mkdir()
    before = rows(ledger, "demo")
    with pytest.raises(ConfigError, match=message):
        sweeps.rename("demo", new, store=store.root, note=told)
    assert call("rename", "demo", new, "--store", store.root)[0] == 2
    assert (rows(ledger, "demo"), ledger.sweep("demo").info.pending) == (before, ())
    assert store.sweep("demo").is_dir()


def test_a_sweep_that_a_running_one_reads_keeps_its_name(trained, ledger, store, make_spec):
    plain = make_spec(name="student").canonical()
    plain["sampler"]["warm_start"] = ["demo"]
    ledger.create_sweep("student", spec=plain)
    with (
        Lease(ledger, "student").held(lambda: 1.0),
        pytest.raises(ConfigError, match=r"student.*is running, begins with"),
    ):
        sweeps.rename("demo", "new", store=store.root)
    assert ledger.sweep("demo").info.pending == ()


# Killed in between

STEPS = {
    "before it is noted": (Ledger, "update_info", True),
    "when it is noted": (Ledger, "update_info", False),
    "when the storage address is done": (renaming, "_move_at", False),
    "when the folder is moved": (renaming, "_move", False),
    "before rows are": (Ledger, "rename_sweep", True),
    "when rows are": (Ledger, "rename_sweep", False),
}


@pytest.mark.parametrize("step", STEPS)
def test_the_same_command_goes_on_after_a_kill(step, trained, ledger, store, bucket, make_spec):
    owner, name, before = STEPS[step]
    ledger.close()
    kill_during(owner, name, lambda: sweeps.rename("demo", "new", store=store.root), before=before)
    known = {record.name: record.info.pending for record in ledger.sweeps()}
    if step == "when rows are":
        assert known == {"new": ()}
    elif step == "before it is noted":
        assert known == {"demo": ()}
    else:
        assert known == {"demo": (RENAME, "new")}
        with pytest.raises(ConfigError, match=r"not whole, since `sweeps rename demo new"):
            Lease(ledger, "demo").check_free()
        with pytest.raises(ConfigError, match=r"is being renamed to 'new'"):
            ledger.create_sweep("new", spec=make_spec(name="new").canonical())
        with pytest.raises(ConfigError, match=r"not whole, since `sweeps rename demo new"):
            sweeps.rename("demo", "third", store=store.root)
        sweeps.report("demo", store=store.root)  # somebody looks, which may make the old folder anew
    sweeps.rename("demo", "new", store=store.root, note=told)
    assert [record.name for record in ledger.sweeps()] == ["new"]
    assert ledger.sweep("new").info.pending == ()
    assert problems(ledger, store, "new") == []
    assert not store.sweep("demo").exists()
    assert not (bucket / "demo").exists()
    assert len(list((bucket / "new" / "trials").glob("*/checkpoint-*.pt"))) == 3


def test_a_kill_while_files_are_moved_at_the_storage_address_loses_none(trained, ledger, store, bucket):
    from sweeps.execution.remote_folder import RemoteFolder

    ledger.close()
    kill_during(RemoteFolder, "move", lambda: sweeps.rename("demo", "new", store=store.root))
    there = [path for path in bucket.rglob("*") if path.is_file()]
    assert {path.relative_to(bucket).parts[0] for path in there} == {"demo", "new"}
    sweeps.rename("demo", "new", store=store.root, note=told)
    after = [path for path in bucket.rglob("*") if path.is_file()]
    assert {path.relative_to(bucket).parts[0] for path in after} == {"new"}
    assert len(after) == len(there)


# MLflow


@pytest.fixture
def in_mlflow(trained, ledger, mlflow_store):
    tracker = Tracker(None, experiment=None, ledger=ledger, spec=trained, store=mlflow_store)
    tracker.connect()
    tracker.sync(final=True)
    return MlflowClient(default_uri(mlflow_store))


def test_mlflow_follows_with_the_same_runs(in_mlflow, ledger, store):
    before = in_mlflow.get_experiment_by_name("demo")
    runs = {run.info.run_id for run in in_mlflow.search_runs([before.experiment_id])}
    identity = sweep_id(ledger.sweep("demo"))
    sweeps.rename("demo", "new", store=store.root, note=told)
    assert in_mlflow.get_experiment_by_name("demo") is None
    experiment = in_mlflow.get_experiment_by_name("new")
    assert experiment.experiment_id == before.experiment_id
    found = in_mlflow.search_runs([experiment.experiment_id])
    assert {run.info.run_id for run in found} == runs
    assert {run.data.tags["sweep.name"] for run in found} == {"new"}
    assert sweep_id(ledger.sweep("new")) == identity
    assert problems(ledger, store, "new", mlflow=True) == []
    sweeps.rename("new", "newer", store=store.root, note=told)
    assert in_mlflow.get_experiment_by_name("newer").experiment_id == before.experiment_id
    assert sweep_id(ledger.sweep("newer")) == identity


def test_a_sweep_of_the_old_name_gets_an_experiment_of_its_own(in_mlflow, ledger, store, make_spec):
    sweeps.rename("demo", "new", store=store.root, note=told)
    again = make_spec()
    ledger.create_sweep("demo", spec=again.canonical())
    tracker = Tracker(None, experiment=None, ledger=ledger, spec=again, store=store)
    tracker.connect()
    first, second = (in_mlflow.get_experiment_by_name(name).experiment_id for name in ("new", "demo"))
    assert first != second
    assert problems(ledger, store, "new", mlflow=True) == []


def test_an_mlflow_that_is_away_is_told_later(in_mlflow, ledger, store, monkeypatch):
    from sweeps.tracking import TrackingError

    lines = []
    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "connect", lambda self: (_ for _ in ()).throw(TrackingError("it is away")))
        sweeps.rename("demo", "new", store=store.root, note=lines.append)
    assert len(lines) == 1
    assert f"`sweeps sync new --store {store.root}` brings it up to date" in lines[0]
    assert in_mlflow.get_experiment_by_name("new") is None
    sweeps.rename("demo", "new", store=store.root, note=told)  # the same command does the rest
    assert in_mlflow.get_experiment_by_name("new") is not None
    assert problems(ledger, store, "new", mlflow=True) == []


def renewed(ledger):
    with ledger.writing() as connection:
        connection.execute(SWEEP.update().values(driver_seen=time.time()))


def test_a_driver_out_of_sight_that_renews_its_lease_is_left_alone(trained, ledger, store, monkeypatch):
    with ledger.writing() as connection:
        connection.execute(SWEEP.update().values(driver="host:1:elsewhere/1/abc", driver_seen=1.0))
    monkeypatch.setattr("sweeps.ledger.lease.time.sleep", lambda _: renewed(ledger))
    with pytest.raises(ConfigError, match="run by process 1 on host"):
        sweeps.rename("demo", "new", store=store.root)
    assert ledger.sweep("demo").info.pending == ()
