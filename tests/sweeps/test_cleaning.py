"""`sweeps clean`: what nothing needs goes, whatever may be picked or goes on stays, and nobody misses anything afterwards."""

import json
import os
import shutil
from dataclasses import replace

import pytest
from documented import differences
from kept import kill_during, train
from records import replicate, trial
from small_sweep import finished_sweep, tasks

import sweeps
from sweeps.audit.audit import audit
from sweeps.checks.makers import stored_spec
from sweeps.execution.reuse import take_over
from sweeps.execution.worker import run_task
from sweeps.failures import FailureClass
from sweeps.file.spec import SweepSpec
from sweeps.housekeeping import cleaning
from sweeps.housekeeping.needed import needed
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import CLEANED, SweepState
from sweeps.metrics import CRITERIA
from sweeps.store import Store
from sweeps.trial import TrialKind, TrialState

VALUES = (0.50, 0.52, 0.54, 0.56, 0.58, 0.60)


@pytest.fixture
def spec(make_spec, begun, bucket):
    scheduler = {"name": "asha", "min_steps": 2, "reduction_factor": 2}
    return begun(make_spec(scheduler=scheduler, storage=f"file://{bucket}", budget={"trials": 9}))


@pytest.fixture
def finished(spec, ledger, store, bucket):
    """Six trials that were trained in full, a stopped one, one that failed for good, with what kills leave behind."""
    for number, value in enumerate(VALUES):
        train(ledger, store, spec, number, value)
    stopped = train(ledger, store, spec, 6, 0.4, state=TrialState.PRUNED, steps=2)
    failed = train(ledger, store, spec, 7, 0.4, state=TrialState.RUNNING, steps=2)
    why = {"failure": FailureClass.DIVERGED, "error": "loss became NaN", "finished": 4e9}
    ledger.update_trial("demo", 7, state=TrialState.FAILED, **why)
    (store.trial(stopped) / "round-1-labels.npy").write_bytes(b"r" * 300)
    (store.trial(failed) / "checkpoint.damaged.pt").write_bytes(b"d" * 400)
    (store.trial(stopped) / ".metrics.jsonl.1-abcd.partial").write_bytes(b"p" * 50)
    store.executor("demo").mkdir()
    (store.executor("demo") / "state.json").write_bytes(b"s" * 70)
    there = bucket / "demo" / "trials" / store.trial(stopped).name
    (there / "0000-metrics.jsonl").write_bytes(b"o" * 90)
    (there / "mine.txt").write_text("somebody's")
    ledger.update_sweep("demo", state=SweepState.FINISHED)
    sweeps.report("demo", store=store.root)
    return spec


def problems(ledger, store, name="demo"):
    return [line for check in audit(name, ledger=ledger, store=store, mlflow=False) for line in check.problems]


def checkpoints(store):
    return {int(path.parent.name[:4]) for path in store.sweep("demo").glob("trials/*/checkpoint.pt")}


def remote_checkpoints(bucket):
    return {int(path.parent.name[:4]) for path in bucket.glob("demo/trials/*/checkpoint-*.pt")}


def test_what_nothing_needs_goes_and_the_audit_does_not_miss_it(finished, ledger, store, bucket):
    assert problems(ledger, store) == []
    assert checkpoints(store) == remote_checkpoints(bucket) == set(range(8))
    (found,) = sweeps.clean("demo", store=store.root)
    assert {item.kind: item.trials for item in found.freed} == {
        "checkpoints": (0, 1, 2),
        "resume states": (6, 7),
        "damaged checkpoints": (7,),
        "files of replaced attempts": (6,),
        "unfinished files": (),
        "Ray's files": (),
    }
    assert checkpoints(store) == remote_checkpoints(bucket) == {3, 4, 5}
    gone = ("checkpoint.damaged.pt", "round-1-labels.npy", ".metrics.jsonl.1-abcd.partial", "0000-metrics.jsonl")
    left = [path.name for root in (store.sweep("demo"), bucket) for path in root.rglob("*")]
    assert not set(gone) & set(left)
    assert "mine.txt" in left
    assert not store.executor("demo").exists()
    assert problems(ledger, store) == []
    notes = {check.claim: check.note for check in audit("demo", ledger=ledger, store=store, mlflow=False)}
    assert notes["the trials' checkpoints have the same reports"] == "5 were cleaned away"
    assert sweeps.clean("demo", store=store.root)[0].freed == ()


def test_a_lost_checkpoint_that_was_not_cleaned_away_is_still_missed(finished, ledger, store, bucket):
    sweeps.clean("demo", store=store.root)
    (store.trial(ledger.trial("demo", 4)) / "checkpoint.pt").unlink()
    assert [line[:30] for line in problems(ledger, store)] == ["trial 4: checkpoint.pt is miss"]


def test_a_checkpoint_that_was_brought_back_is_looked_at(finished, ledger, store):
    place = store.trial(ledger.trial("demo", 0)) / "checkpoint.pt"
    kept = place.read_bytes()
    sweeps.clean("demo", store=store.root)
    place.write_bytes(kept)
    assert problems(ledger, store) == []
    place.write_bytes(kept[:-1])
    assert problems(ledger, store)


def test_a_dry_run_says_how_much_by_kind_and_why_and_changes_nothing(finished, ledger, store, bucket, call):
    before = sorted(store.root.rglob("*")), sorted(bucket.rglob("*"))
    code, out, _ = call("clean", "demo", "--dry-run", "--store", store.root)
    assert code == 0
    assert "  checkpoints: " in out
    assert "of trial 0, 1, 2; trained in full, but neither picked" in out
    assert "not possible afterwards: `segda evaluate`" in out
    found = json.loads(call("clean", "--all", "--dry-run", "--json", "--store", store.root)[1])
    assert differences(found) == []
    (one,) = found["sweeps"]
    sizes = {item["kind"]: item["bytes"] for item in one["freed"]}
    assert (sizes["damaged checkpoints"], sizes["unfinished files"], sizes["Ray's files"]) == (400, 50, 70)
    assert sizes["files of replaced attempts"] == 90
    freed = [store.trial(ledger.trial("demo", number)) / "checkpoint.pt" for number in (0, 1, 2)]
    remote = [path for path in bucket.rglob("checkpoint-*.pt") if path.parent.name[:4] in ("0000", "0001", "0002")]
    assert len(remote) == 3
    assert sizes["checkpoints"] == sum(path.stat().st_size for path in [*freed, *remote])
    assert {item["trial"]: item["why"] for item in one["kept"]} == {
        3: "a finalist, or a candidate for deployment",
        4: "a finalist, or a candidate for deployment",
        5: "picked by source_validation",
    }
    assert (sorted(store.root.rglob("*")), sorted(bucket.rglob("*"))) == before
    assert not [event for event in ledger.events("demo") if event.kind == CLEANED]


def test_it_asks_for_yes_and_for_a_sweep(finished, store, call):
    code, _, error = call("clean", "demo", "--store", store.root)
    assert (code, error.count("\n"), "--yes" in error) == (2, 1, True)
    for words in ((), ("demo", "--all")):
        code, _, error = call("clean", *words, "--yes", "--store", store.root)
        assert (code, "a NAME, or --all" in error) == (2, True)
    assert checkpoints(store) == set(range(8))
    code, out, _ = call("clean", "demo", "--yes", "--store", store.root)
    assert (code, out.startswith("removed ")) == (0, True)
    assert checkpoints(store) == {3, 4, 5}


@pytest.mark.parametrize(
    ("owner", "name", "before"),
    [(Ledger, "add_event", False), (cleaning, "_remove", True), (cleaning, "_remove", False)],
)
def test_the_same_command_goes_on_after_a_kill(owner, name, before, finished, ledger, store, bucket):
    ledger.close()
    kill_during(owner, name, lambda: sweeps.clean("demo", store=store.root), before=before)
    assert problems(ledger, store) == []
    sweeps.clean("demo", store=store.root)
    assert checkpoints(store) == remote_checkpoints(bucket) == {3, 4, 5}
    assert problems(ledger, store) == []
    cleaned = [event.number for event in ledger.events("demo") if event.kind == CLEANED]
    assert sorted(cleaned) == [0, 1, 2, 6, 7]


def test_files_that_another_sweep_shares_free_nothing(finished, ledger, store, make_spec, begun):
    begun(make_spec(name="heir"))
    first = ledger.trial("demo", 0)
    place = store.trial(first) / "checkpoint.pt"
    alone = sum(item.num_bytes for item in sweeps.clean("demo", store=store.root, dry_run=True))
    os.link(place, store.root / "shared.pt")
    (shared,) = sweeps.clean("demo", store=store.root, dry_run=True)
    assert shared.num_bytes == alone - place.stat().st_size


def test_a_result_whose_checkpoint_is_gone_is_trained_again(finished, ledger, store, make_spec, begun):
    begun(make_spec(name="heir"))
    wanted = {number: replace(ledger.trial("demo", number), sweep="heir") for number in (0, 5)}
    sweeps.clean("demo", store=store.root)
    taken = {
        number: take_over(record, ledger=ledger, store=store, train="fakes:quadratic")
        for number, record in wanted.items()
    }
    assert taken[0] is None
    assert taken[5] is not None


def test_a_checkpoint_that_another_sweep_reads_stays(finished, ledger, store, make_spec):
    plain = make_spec(name="student").canonical()
    plain["base"]["start"] = {"checkpoint": str(store.trial(ledger.trial("demo", 0)) / "checkpoint.pt")}
    ledger.create_sweep("student", spec=plain)
    (found,) = sweeps.clean("demo", store=store.root)
    assert found.kept[0] == "sweep 'student' reads it"
    assert checkpoints(store) == {0, 3, 4, 5}


# What is needed


@pytest.fixture
def many(make_spec):
    """A sweep with further seeds, and what came of it."""
    spec = make_spec(seeds=[0, 1], finalists=2, selection="source_validation")
    trials = [trial(number, value) for number, value in enumerate(VALUES)]
    trials += [
        trial(6, 0.3, kind=TrialKind.REFERENCE, name="source only"),
        replicate(7, trials[5], 0.6),
        replicate(8, trials[0], 0.6),
        replicate(9, trial(6, 0.3), 0.3),
        trial(10, state=TrialState.PRUNED),
    ]
    return spec, trials


def test_picks_finalists_their_seeds_and_references_are_needed(many):
    spec, trials = many
    found = needed(trials, spec, state=SweepState.FINISHED, read={})
    assert set(found) == {3, 4, 5, 6, 7}
    assert found[5] == "picked by source_validation"
    assert found[6] == "a reference, to compare with"
    assert found[7] == "repeats trial 5, which may be used"


def test_what_another_criterion_picks_is_needed_but_not_what_the_oracle_does(many):
    spec, _ = many
    score = CRITERIA["soft_iou"]
    scored = [
        trial(number, value, 0.99 if number == 0 else 0.1, metrics={score: 0.9 if number == 1 else 0.1})
        for number, value in enumerate(VALUES)
    ]
    found = needed(scored, spec, state=SweepState.FINISHED, read={})
    assert found[1] == "picked by soft_iou"
    assert set(found) == {1, 3, 4, 5}


@pytest.mark.parametrize(
    "state", [SweepState.RUNNING, SweepState.INTERRUPTED, SweepState.STALLED, SweepState.FAILED, None]
)
def test_of_a_sweep_that_is_not_finished_all_that_were_trained_stay(many, state):
    spec, trials = many
    assert set(needed(trials, spec, state=state, read={})) == set(range(10))


def test_trials_that_go_on_keep_what_they_go_on_from_and_nothing_else_is_settled_then(many):
    spec, trials = many
    aside = {"state": TrialState.FAILED, "failure": FailureClass.DISK, "error": "no room"}
    for one in (trial(11, state=TrialState.QUEUED), trial(11, state=TrialState.RUNNING), trial(11, **aside)):
        found = needed([*trials, one], spec, state=SweepState.FINISHED, read={})
        assert found[11] == "it goes on from there"
        assert set(range(10)) <= set(found)
        assert 10 not in found


def test_if_none_can_be_picked_all_stay(make_spec):
    broken = [trial(number, 0.5, metrics={"target/largest_class_share": 0.999}) for number in range(4)]
    spec = make_spec(selection="source_validation")
    found = needed(broken, spec, state=SweepState.FINISHED, read={})
    assert found == dict.fromkeys(range(4), "the sweep picks none yet")


# With real trainings


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cleaned")
    base = {
        "search": {"optimizer.lr": {"low": 1e-3, "high": 1e-1, "log": True}},
        "sampler": {"name": "random"},
        "budget": {"trials": 4, "concurrency": 1},
    }
    store = finished_sweep(folder, **base)
    with Ledger.open(store.ledger) as ledger:
        ledger.update_sweep("demo", state=SweepState.FINISHED)
    return store


@pytest.mark.slow
def test_report_audit_deployment_and_a_longer_search_do_what_they_did_before(trained, tmp_path):
    store = Store.at(tmp_path / "runs")
    shutil.copytree(trained.root, store.root)
    sweeps.report("demo", store=store.root)
    with Ledger.open(store.ledger) as ledger:
        before = problems(ledger, store)
        picked = sweeps.figures("demo", store=store.root)["pick"]
        (found,) = sweeps.clean("demo", store=store.root)
        assert checkpoints(store) == set(found.kept)
        assert picked["trial"] in found.kept
        assert {item.kind for item in found.freed} == {"checkpoints"}
        assert problems(ledger, store) == before
        sweeps.report("demo", store=store.root)
        assert sweeps.figures("demo", store=store.root)["pick"] == picked
        deployed = sweeps.deploy("demo", "latency_ms <= 100000", slim=(), store=store.root, say=lambda line: None)
        assert deployed.winner is not None
        plain = {**ledger.sweep("demo").spec, "budget": {"trials": 5, "concurrency": 1}}
        longer = SweepSpec.model_validate(plain)
        ledger.update_sweep("demo", spec=longer.canonical())
        numbers = []
        for task, send in tasks(stored_spec(ledger.sweep("demo")), ledger, store):
            numbers.append(task.number)
            run_task(task, send)
        assert numbers == [4]
        assert ledger.trial("demo", 4).state is TrialState.COMPLETE
        assert not [line for line in problems(ledger, store) if "missing" in line]
