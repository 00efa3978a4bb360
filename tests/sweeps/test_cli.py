"""The command line: what people type, read and get wrong."""

import io
import subprocess
import sys
import threading
import time

import fakes
import pytest
import yaml
from rich.console import Console

from sweeps import cli
from sweeps.checks.makers import load_spec, stored_spec
from sweeps.cli.actions import stop
from sweeps.commands.driving import begin, changed
from sweeps.labels import duration
from sweeps.ledger import lease
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import Lease
from sweeps.reports.progress import LineView, LiveView
from sweeps.trial import TrialKind, TrialRecord, TrialState


@pytest.fixture
def sweep_file(tmp_path):
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump(fakes.plain_spec()))
    return path


def record(number=0, **changes):
    fields = {
        "sweep": "demo",
        "number": number,
        "key": f"key{number}",
        "kind": TrialKind.SEARCH,
        "params": {"optimizer.lr": 0.01},
        "config": {"steps": 6, "method": {"name": "source_only"}},
        "seed": 0,
    }
    return TrialRecord(**(fields | changes))


@pytest.mark.parametrize("command", sorted(cli.sweeps.list_commands(None)))
def test_every_command_teaches_with_an_example(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0
    assert f"  sweeps {command}" in out.split("Examples:")[1]


def test_check_shows_what_a_sweep_would_do(call, sweep_file, tmp_path):
    (tmp_path / "camvid").mkdir()
    code, out, _ = call("check", sweep_file, "--data-root", f"camvid={tmp_path / 'camvid'}")
    assert code == 0
    assert "optimizer.lr" in out
    assert "trials: 3 (3 of the search, 0 references, 0 replicates)" in out
    assert "steps: 18 at most (6 per trial)" in out
    assert "(found)" in out


def test_check_notes_that_one_further_seed_promotes_no_finalist(call, tmp_path):
    (tmp_path / "camvid").mkdir()
    file = tmp_path / "seeds.yaml"
    for seeds, is_noted in (([0, 1], True), ([0, 1, 2], False)):
        file.write_text(yaml.safe_dump(fakes.plain_spec(seeds=seeds, finalists=2)))
        code, out, _ = call("check", file, "--data-root", f"camvid={tmp_path / 'camvid'}")
        assert code == 0
        assert ("note: A finalist replaces a better ranked one only by 2 seeds or more" in out) is is_noted


def test_check_fails_when_a_data_set_is_missing_and_says_which(call, sweep_file, monkeypatch):
    monkeypatch.delenv("SEGDA_CAMVID_ROOT", raising=False)
    code, out, error = call("check", sweep_file)
    assert code == 2
    assert "optimizer.lr" in out
    assert "1 data set is missing: camvid" in error


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml"),
        (["status"], "no ledger"),
        (["resume", "demo"], "no ledger"),
        (["check", "x.yaml", "--data-root", "camvid"], "expected NAME=PATH"),
        (
            ["check", "demo", "space.lambda_adv=0.1"],
            "unknown key 'space.lambda_adv'; did you mean base.method.lambda_adv, search.method.lambda_adv, ",
        ),
        (
            ["plan", "demo", "optimizer.lr=0.1"],
            "key 'optimizer.lr' may be base.optimizer.lr or search.optimizer.lr; write the",
        ),
        (
            ["run", "demo", "trials"],
            "expected KEY=VALUE after the file, e.g. base.steps=600 or optimizer.lr=0.01, got 'trials'",
        ),
        (["run", "demo", "trials=[4"], "trials=[4: not valid YAML"),
        (["run", "demo", "trials=0"], "demo.yaml with budget.trials=0: budget.trials: must be at least 1, got 0"),
        (
            ["run", "demo", "base.optimizer.learning_rate=1"],
            "no optimizer of this sweep has it; known: name, lr, head_lr_factor",
        ),
        (
            ["run", "demo", "search.lr=[1]"],
            "has no such field; did you mean optimizer.lr or discriminator_optimizer.lr?",
        ),
        (["status", "--stor", "x"], "--store"),
    ],
)
def test_what_people_get_wrong_is_one_line_and_exit_code_2(call, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    code, _, error = call(*words)
    assert code == 2
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    assert expected in error


def test_words_after_a_file_are_put_over_it_and_remembered(call, sweep_file, ledger, store, has_camvid, monkeypatch):
    words = ["trials=1", "base.steps=4", "report_every=2", "search.optimizer.lr=[0.01, 0.02]", "question=why: so"]
    assert call("check", sweep_file, *words)[0] == 2  # YAML takes the last for a mapping
    words[-1] = "question='why: so'"
    code, out, _ = call("check", sweep_file, *words)
    assert code == 0
    assert "demo: why: so" in out
    assert "trials: 1 (1 of the search" in out
    assert "steps: 4 at most (4 per trial)" in out
    driven = []
    monkeypatch.setattr("sweeps.commands.running.drive", lambda spec, **_: driven.append(spec) or sys.exit(0))
    call("run", sweep_file, *words, "--store", store.root)
    (spec,) = driven
    begun = stored_spec(ledger.sweep("demo"))
    assert begun == spec
    assert (begun.budget.trials, begun.base["steps"], begun.base["report_every"], begun.question) == (
        1,
        4,
        2,
        "why: so",
    )
    assert begun.search["optimizer.lr"].choices == (0.01, 0.02)
    call("resume", "demo", "--store", store.root)
    assert driven[1] == begun


def test_check_looks_at_the_folder_of_each_domain(call, tmp_path, has_camvid):
    plain = fakes.plain_spec()
    plain["base"]["data"]["source"]["root"] = str(tmp_path / "nowhere")
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(plain))
    code, out, error = call("check", tmp_path / "demo.yaml")
    assert (code, error) == (2, "Error: 1 data set is missing: camvid\n")
    assert "nowhere is not a folder" in out.replace("\n", " ")


@pytest.mark.parametrize(
    "words",
    [
        ("check", "{file}", "--data-root", "camvid=~nobody-here/x"),
        ("status", "--store", "~nobody-here/x"),
        ("check", "~nobody-here/x"),
    ],
)
def test_the_home_of_nobody_is_one_line(call, sweep_file, words):
    code, _, error = call(*(word.format(file=sweep_file) for word in words))
    assert code == 2
    assert error == "Error: ~nobody-here/x: the home folder that ~ stands for is not known; write the path out\n"


def test_a_refusal_is_of_bounded_length(call, sweep_file):
    code, _, error = call("run", sweep_file, "--trials", "9" * 5000)
    assert (code, error.count("\n")) == (2, 1)
    assert len(error) < 1600


def test_running_a_sweep_twice_leads_to_resume(call, sweep_file, ledger, store, has_camvid):
    begin(load_spec(sweep_file), ledger=ledger, source="demo.yaml")
    ledger.add_trial(record())
    code, _, error = call("run", sweep_file, "--store", store.root)
    assert code == 2
    assert "sweeps resume demo" in error
    code, _, error = call("run", sweep_file, "--store", store.root, "--trials", "9")
    assert code == 2
    assert "--name" in error


def test_an_unreachable_mlflow_is_one_line_before_anything_is_made(call, tmp_path, store, has_camvid):
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump(fakes.plain_spec(tracking={"uri": "http://127.0.0.1:9"})))
    code, _, error = call("run", path, "--store", store.root)
    assert code == 2
    assert error.startswith("Error: MLflow at http://127.0.0.1:9 cannot be used: ")
    assert error.count("\n") == 1
    assert not store.root.exists()


def test_stop_says_when_there_is_nothing_to_stop(call, begun, make_spec, store):
    begun(make_spec())
    code, out, _ = call("stop", "demo", "--store", store.root)
    assert code == 0
    assert "nothing drives sweep 'demo' now" in out


def test_stop_asks_the_driver_and_waits_until_it_has_ended(call, begun, make_spec, store, ledger, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    begun(make_spec())
    mine = lease.Lease(ledger, "demo")

    def drive():
        with mine.held(lambda: 0.0):
            while not mine.stop_requested:
                time.sleep(0.01)

    driver = threading.Thread(target=drive)
    driver.start()
    while ledger.sweep("demo").driver is None:
        time.sleep(0.01)
    code, out, _ = call("stop", "demo", "--store", store.root)
    driver.join()
    assert code == 0
    assert f"stopped demo; go on with `sweeps resume demo --store {store.root}`" in out


@pytest.mark.parametrize("ago", [7200.0, -7200.0], ids=["behind", "ahead"])
def test_stop_finds_out_that_a_driver_out_of_sight_is_dead(call, begun, make_spec, store, ledger, monkeypatch, ago):
    monkeypatch.setattr(stop, "LEASE_SECONDS", 0.1)
    monkeypatch.setattr(stop, "_POLL_SECONDS", 0.02)
    begun(make_spec())
    with ledger.writing() as connection:
        connection.execute(lease.SWEEP.update().values(driver="elsewhere:1:0", driver_seen=time.time() - ago))
    code, out, _ = call("stop", "demo", "--store", store.root)
    assert code == 0
    assert "nothing drives demo any more" in out


def test_the_command_line_replaces_budget_name_and_roots(make_spec, tmp_path):
    spec = changed(
        make_spec(resources={"gpus": 1}),
        name="other",
        data_roots={"camvid": tmp_path},
        trials=9,
        hours=2.5,
        gpu_hours=4.0,
    )
    assert (spec.name, spec.budget.trials, spec.budget.hours, spec.budget.gpu_hours) == ("other", 9, 2.5, 4.0)
    assert spec.base["data"]["target"]["root"] == str(tmp_path)
    assert spec.fingerprint() == make_spec(name="other").fingerprint()


def test_status_tells_a_dead_driver_from_a_living_one(call, begun, make_spec, ledger, store):
    spec = begun(make_spec())
    ledger.update_sweep("demo", state="running")
    ledger.add_trial(record(config=spec.train_config({"optimizer.lr": 0.01}, seed=0).model_dump(mode="json")))
    store.sweep("demo").mkdir()
    _, out, _ = call("status", "--store", store.root)
    assert "stopped: its driver is gone" in out
    assert f"demo: go on with `sweeps resume demo --store {store.root}`" in out
    with Lease(ledger, "demo").held(lambda: 0.0):
        _, out, _ = call("status", "--store", store.root)
    assert "running" in out
    assert "resume" not in out


def test_status_and_report_read_a_sweep_without_ray_and_mlflow(call, begun, make_spec, ledger, store):
    spec = begun(make_spec())
    config = spec.train_config({"optimizer.lr": 0.01}, seed=0).model_dump(mode="json")
    ledger.add_trial(record(config=config, state=TrialState.COMPLETE, metrics={"source/val/miou": 0.5}, step=6))
    code, out, _ = call("status", "demo", "--store", store.root)
    assert code == 0
    assert "complete" in out
    code, out, _ = call("report", "demo", "--store", store.root)
    assert code == 0
    assert store.report("demo").is_file()


def test_a_ledger_can_be_another_database(call, tmp_path, begun, make_spec):
    with Ledger.open(tmp_path / "other.db") as other:
        other.create_sweep("elsewhere", spec=make_spec().canonical())
    _, out, _ = call("status", "--ledger", f"sqlite:///{tmp_path / 'other.db'}")
    assert "elsewhere" in out


# What is shown while a sweep runs


def test_without_a_terminal_each_event_is_one_line(make_spec):
    text = io.StringIO()
    with LineView(make_spec(), [], Console(file=text, width=200)) as shown:
        shown("started", record(state=TrialState.RUNNING, worker="host:1"), "")
        shown("point", record(state=TrialState.RUNNING, step=3, metrics={"source/val/miou": 0.25}), "")
        shown("note", None, "search ended")
    lines = text.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0].endswith("on host:1")
    assert "trial 0 step 3/6 source/val/miou 0.2500 (source_only, lr 0.01)" in lines[1]
    assert lines[2].endswith("search ended")
    assert "0/3 trials" in lines[3]


def test_the_live_view_shows_best_and_running_trials(make_spec):
    text = io.StringIO()
    shown = LiveView(make_spec(), [], Console(file=text, width=160, force_terminal=True))
    with shown:
        shown("complete", record(0, state=TrialState.COMPLETE, step=6, metrics={"source/val/miou": 0.25}), "")
        shown("complete", record(1, state=TrialState.COMPLETE, step=6, metrics={"source/val/miou": 0.75}), "")
        shown("point", record(2, state=TrialState.RUNNING, step=3, worker="host:7"), "")
    assert "best: trial 1" in text.getvalue()
    assert "host:7" in text.getvalue()
    assert "2/3 trials" in text.getvalue()


def test_the_time_left_is_shown_as_soon_as_steps_have_taken_time(make_spec):
    text = io.StringIO()
    with LineView(make_spec(), [], Console(file=text, width=200)) as shown:
        shown("started", record(0, state=TrialState.RUNNING), "")
        assert "left" not in shown._heard.summary()
        shown("complete", record(0, state=TrialState.COMPLETE, step=6, seconds=12.0), "")
        shown("point", record(1, state=TrialState.RUNNING, step=3, seconds=6.0), "")
        # 2 s per step: 3 steps of the running trial and 6 of the one to come.
        assert "about 18 s left" in shown._heard.summary()


def test_spans_are_written_for_people():
    assert [duration(seconds) for seconds in (3, 65, 3725)] == ["3 s", "1 min 05 s", "1 h 02 min"]


def test_sigterm_in_the_first_moment_says_to_try_again():
    # A process that has installed its handler and imports for seconds.
    program = (
        "import os, signal, sys, threading; from sweeps.main import main; sys.argv = ['sweeps', 'report', 'demo']; "
    )
    program += "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start(); main()"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120).returncode == 75
