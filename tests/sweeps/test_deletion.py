"""`sweeps delete`: all of a sweep goes and nothing else, also when it was killed in between, and never under a driver."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from documented import differences
from kept import kill_during, rows, train

import sweeps
from segda.errors import ConfigError
from segda.files import locked
from sweeps.audit.audit import audit
from sweeps.execution.reuse import take_over
from sweeps.housekeeping import deletion, disk
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import Lease
from sweeps.ledger.process import Process, start_of
from sweeps.ledger.records import DELETE, SweepState
from sweeps.ledger.sweep_rows import remove_rows
from sweeps.ledger.tables import SWEEP
from sweeps.tracking import MlflowClient, Tracker, default_uri
from sweeps.tracking.removal import RunRemoval

NOTHING = {"sweep": 0, "trial": 0, "point": 0, "event": 0, "proof": 0}


@pytest.fixture
def spec(make_spec, begun, bucket):
    return begun(make_spec(storage=f"file://{bucket}"))


@pytest.fixture
def other(make_spec, begun, ledger, store):
    """Another sweep in the same ledger and store, which must stay as it is."""
    spec = begun(make_spec(name="other"))
    train(ledger, store, spec, 0)
    return spec


@pytest.fixture
def trained(spec, ledger, store, other):
    """Two trials, an event, a deployment and a report."""
    for number in range(2):
        train(ledger, store, spec, number)
    ledger.add_event("demo", "note", "something happened")
    store.deployment("demo").mkdir()
    (store.deployment("demo") / "network.onnx").write_bytes(b"x" * 5000)
    store.report("demo").write_text("page")
    return spec


def problems(ledger, store, name):
    return [line for check in audit(name, ledger=ledger, store=store, mlflow=False) for line in check.problems]


def test_all_of_a_sweep_goes_and_nothing_of_another(trained, ledger, store, bucket, other):
    before = rows(ledger, "other")
    found = sweeps.delete("demo", store=store.root)
    assert (found.trials, found.reports) == (2, 12)
    assert rows(ledger, "demo") == NOTHING
    assert not store.sweep("demo").exists()
    assert not (bucket / "demo").exists()
    assert rows(ledger, "other") == before
    assert before["proof"] == 2
    assert problems(ledger, store, "other") == []


def test_a_dry_run_says_what_goes_and_changes_nothing(trained, ledger, store, call):
    before = rows(ledger, "demo"), sorted(store.root.rglob("*.pt"))
    code, out, _ = call("delete", "demo", "--dry-run", "--store", store.root)
    assert code == 0
    assert "deployment: 1 file, 5 KiB in" in out
    assert "ledger: 2 trials with 12 reports" in out
    assert "stay; --mlflow deletes them too" in out
    found = json.loads(call("delete", "demo", "--dry-run", "--json", "--store", store.root)[1])
    assert differences(found) == []
    assert found["bytes"] == sum(part["bytes"] for part in found["parts"])
    sizes = {part["what"]: part["bytes"] for part in found["parts"]}
    local = sum(path.stat().st_size for path in (store.sweep("demo") / "trials").rglob("*") if path.is_file())
    assert sizes["trials"] == local
    assert sizes["deployment"] == 5000
    assert sizes["storage address"] > 0
    assert (rows(ledger, "demo"), sorted(store.root.rglob("*.pt"))) == before


def test_without_a_terminal_it_asks_for_yes_and_with_one_it_asks(trained, ledger, store, call, monkeypatch):
    code, out, error = call("delete", "demo", "--store", store.root)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert "--yes" in error
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer, stays in (("n\n", 1), ("y\n", 0)):
        monkeypatch.setattr("click.termui.visible_prompt_func", lambda _, answer=answer: answer.strip())
        assert call("delete", "demo", "--store", store.root)[0] == 0
        assert rows(ledger, "demo")["sweep"] == stays


def test_json_goes_with_a_dry_run_alone(trained, store, call):
    code, _, error = call("delete", "demo", "--json", "--yes", "--store", store.root)
    assert code == 2
    assert "--dry-run" in error


def test_an_unknown_sweep_is_told(store, ledger, call):
    code, _, error = call("delete", "demo", "--yes", "--store", store.root)
    assert (code, "no sweep 'demo'" in error) == (2, True)


# Under a driver


@pytest.mark.parametrize(
    "command", [("delete", "demo", "--yes"), ("rename", "demo", "new"), ("clean", "demo", "--yes")]
)
def test_nothing_is_done_under_a_driver(command, trained, ledger, store, call, tmp_path):
    driver = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        holder = replace(Process.this(), pid=driver.pid, start=start_of(driver.pid))
        with ledger.writing() as connection:
            connection.execute(
                SWEEP.update().where(SWEEP.c.name == "demo").values(driver=str(holder), driver_seen=time.time())
            )
        before = rows(ledger, "demo"), sorted(store.sweep("demo").rglob("*"))
        code, _, error = call(*command, "--store", store.root)
        assert (code, error.count("\n")) == (2, 1)
        assert f"process {driver.pid} on {holder.host}" in error
        assert f"`sweeps stop demo --store {store.root}`" in error
        assert (rows(ledger, "demo"), sorted(store.sweep("demo").rglob("*"))) == before
        assert ledger.sweep("demo").info.pending == ()
    finally:
        driver.kill()
        driver.wait()


@pytest.mark.parametrize(
    "command", [("delete", "demo", "--yes"), ("rename", "demo", "new"), ("clean", "demo", "--yes")]
)
def test_nothing_is_done_under_a_deployment(command, trained, ledger, store, call):
    (store.sweep("demo") / ".plan.json.0-abcd.partial").touch()  # that there is something to clean
    with locked(store.deployment("demo") / "lock"):
        code, _, error = call(*command, "--store", store.root)
    assert (code, "deploys 'demo' now" in error) == (2, True)
    assert ledger.sweep("demo").driver is None
    assert ledger.sweep("demo").info.pending == ()


# Killed in between


def half(folder):
    """Remove a part of a folder."""
    for path in sorted(folder.rglob("*.pt")):
        path.unlink()


STEPS = {
    "before it is noted": (Ledger, "update_info", True),
    "when it is noted": (Ledger, "update_info", False),
    "before files go": (deletion, "remove_folder", True),
    "when files are gone": (deletion, "remove_folder", False),
    "before rows go": (Ledger, "delete_sweep", True),
    "when rows are gone": (Ledger, "delete_sweep", False),
}


@pytest.mark.parametrize("step", STEPS)
def test_the_same_command_goes_on_after_a_kill(step, trained, ledger, store, bucket, call, other):
    owner, name, before = STEPS[step]
    ledger.close()
    kill_during(owner, name, lambda: sweeps.delete("demo", store=store.root), before=before)
    pending = [record.info.pending for record in ledger.sweeps() if record.name == "demo"]
    if step == "when rows are gone":
        assert pending == []
    elif step == "before it is noted":
        assert pending == [()]
        assert problems(ledger, store, "demo") == []
    else:
        assert pending == [(DELETE,)]
        half(store.sweep("demo"))
        with pytest.raises(ConfigError, match=r"not whole, since `sweeps delete demo"):
            Lease(ledger, "demo").check_free()
        code, _, error = call("rename", "demo", "new", "--store", store.root)
        assert (code, "`sweeps delete demo" in error) == (2, True)
        assert (
            sweeps.status("demo", store=store.root).state
            == f"half deleted; finish `sweeps delete demo --store {store.root}`"
        )
    if pending:
        sweeps.delete("demo", store=store.root)
    assert rows(ledger, "demo") == NOTHING
    assert not store.sweep("demo").exists()
    assert not (bucket / "demo").exists()
    assert problems(ledger, store, "other") == []


def test_a_folder_that_cannot_be_removed_is_told_and_the_sweep_can_be_deleted_later(
    trained, ledger, store, call, monkeypatch
):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(disk, "shutil", SimpleNamespace(rmtree=refuse))
        code, _, error = call("delete", "demo", "--yes", "--store", store.root)
    assert code == 2
    assert "the same command goes on" in error
    assert rows(ledger, "demo")["trial"] == 2
    assert call("delete", "demo", "--yes", "--store", store.root)[0] == 0
    assert rows(ledger, "demo") == NOTHING


def test_a_folder_that_is_a_link_goes_with_what_it_leads_to(trained, ledger, store, tmp_path):
    store.sweep("demo").rename(tmp_path / "large disk")
    store.sweep("demo").symlink_to(tmp_path / "large disk")
    sweeps.delete("demo", store=store.root)
    assert not store.sweep("demo").is_symlink()
    assert not (tmp_path / "large disk").exists()


# Others


def test_trials_that_took_results_over_keep_them_and_an_audit_knows_why(trained, ledger, store, make_spec, begun):
    heir = begun(make_spec(name="heir"))
    first = ledger.trial("demo", 1)
    alone = sweeps.delete("demo", store=store.root, dry_run=True).num_bytes
    taken = take_over(
        replace(first, sweep="heir", number=0, created=5.0, attempt=0, worker=None, started=None),
        ledger=ledger,
        store=store,
        train="fakes:quadratic",
    )
    assert taken is not None
    record, points = taken
    ledger.add_trial(record, points=points)
    assert problems(ledger, store, "heir") == []
    found = sweeps.delete("demo", store=store.root)
    assert [line for line in found.notes if "1 trial of other sweeps took results over" in line]
    shared = [store.trial(record) / name for name in ("checkpoint.pt", "metrics.jsonl", "result.json")]
    assert found.num_bytes == alone - sum(path.stat().st_size for path in shared)
    assert problems(ledger, store, heir.name) == []
    assert (store.trial(record) / "checkpoint.pt").is_file()
    notes = {check.claim: check.note for check in audit("heir", ledger=ledger, store=store, mlflow=False)}
    assert (
        notes["results that were taken over are those of an identical trial"] == "1 of sweeps that were deleted since"
    )


def test_a_sweep_that_another_one_needs_stays_until_that_is_finished(trained, ledger, store, make_spec, call):
    plain = make_spec(name="student").canonical()
    plain["sampler"]["warm_start"] = ["demo"]
    ledger.create_sweep("student", spec=plain)
    code, _, error = call("delete", "demo", "--yes", "--store", store.root)
    assert (code, error.count("\n")) == (2, 1)
    assert "sweep 'student', which is not finished, begins with what 'demo' has learned" in error
    ledger.update_sweep("student", state=SweepState.FINISHED)
    found = sweeps.delete("demo", store=store.root, dry_run=True)
    assert "sweep 'student' cannot go on without it" in found.notes[0]
    sweeps.delete("demo", store=store.root)
    assert rows(ledger, "demo") == NOTHING


def test_a_sweep_whose_checkpoint_another_one_reads_stays(trained, ledger, store, make_spec):
    path = store.trial(ledger.trial("demo", 1)) / "checkpoint.pt"
    plain = make_spec(name="student").canonical()
    plain["base"]["distillation"] = {"checkpoint": str(path)}
    ledger.create_sweep("student", spec=plain)
    with pytest.raises(ConfigError, match=r"student.*reads .*checkpoint.pt"):
        sweeps.delete("demo", store=store.root)
    assert path.is_file()


# MLflow


def test_mlflow_keeps_the_runs_unless_they_are_to_go(trained, ledger, mlflow_store, other):
    store = mlflow_store
    for spec in (trained, other):
        tracker = Tracker(None, experiment="shared", ledger=ledger, spec=spec, store=store)
        tracker.connect()
        tracker.sync(final=True)
    client = MlflowClient(default_uri(store))
    experiment = client.get_experiment_by_name("shared")
    record = ledger.sweep("demo")

    def names():
        found = client.search_runs([experiment.experiment_id])
        return sorted(run.data.tags["sweep.name"] for run in found)

    assert names() == ["demo"] * 3 + ["other"] * 2
    removal = RunRemoval(replace(record, spec={**record.spec, "tracking": {"experiment": "shared"}}), store=store)
    removal.remove()
    assert names() == ["other"] * 2
    assert "demo" not in client.get_experiment(experiment.experiment_id).tags["mlflow.note.content"]
    assert "other" in client.get_experiment(experiment.experiment_id).tags["mlflow.note.content"]
    removal.remove()  # nothing is left to do
    sweeps.delete("demo", store=store.root)
    assert names() == ["other"] * 2


def test_an_experiment_of_its_own_goes_with_it_and_an_mlflow_that_is_away_changes_nothing(
    trained, ledger, mlflow_store
):
    store = mlflow_store
    tracker = Tracker(None, experiment=None, ledger=ledger, spec=trained, store=store)
    tracker.connect()
    client = MlflowClient(default_uri(store))
    assert client.get_experiment_by_name("demo").lifecycle_stage == "active"
    away = {**ledger.sweep("demo").spec, "tracking": {"uri": "http://127.0.0.1:9"}}
    own = ledger.sweep("demo").spec
    ledger.update_sweep("demo", spec=away)
    with pytest.raises(Exception, match="without --mlflow"):
        sweeps.delete("demo", mlflow=True, store=store.root)
    assert ledger.sweep("demo").info.pending == ()
    ledger.update_sweep("demo", spec=own)
    sweeps.delete("demo", mlflow=True, store=store.root)
    assert client.get_experiment_by_name("demo").lifecycle_stage == "deleted"
    assert rows(ledger, "demo") == NOTHING


# The ledger


def test_a_sweep_that_was_refused_leaves_no_digest(ledger, make_spec):
    ledger.create_sweep("demo", spec=make_spec().canonical())
    ledger.remove_sweep("demo")
    assert rows(ledger, "demo") == NOTHING


def test_deleting_again_after_a_lost_answer_changes_nothing(trained, ledger, other):
    ledger.delete_sweep("demo")
    before = rows(ledger, "other")
    ledger.delete_sweep("demo")
    assert rows(ledger, "other") == before


def test_postgresql_takes_a_sweep_out_and_renames_one(postgresql, make_spec, store):
    with Ledger.open(postgresql) as ledger:
        spec = make_spec()
        ledger.create_sweep("demo", spec=spec.canonical())
        train(ledger, store, spec, 0)
        sweeps.rename("demo", "new", store=store.root, ledger=postgresql)
        assert problems(ledger, store, "new") == []
        sweeps.delete("new", store=store.root, ledger=postgresql)
        assert rows(ledger, "new") == NOTHING
        with ledger.writing() as connection:
            remove_rows(connection, "new")  # there is nothing, and nothing happens
