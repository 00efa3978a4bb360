"""`sweeps show`: a sweep, a trial, and the command that trains it alone."""

import json
import os
import shlex
from dataclasses import replace

import pytest
import small_sweep
import yaml
from records import trial

import sweeps
from segda.cli import cli
from segda.cli_errors import run_cli
from segda.errors import ConfigError
from sweeps.failures import FailureClass
from sweeps.findings import TIMES
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import RETRIED, STARTED, Event, SweepInfo, SweepState, attempt_text
from sweeps.reports.trial_details import attempts_of, direction_of
from sweeps.store import Store
from sweeps.trial import TrialKind, TrialState

SECRET = "http://me:s3cr@host/x"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Store:
    """A sweep of one real training."""
    steps = {"steps": 6, "report_every": 3}
    folder = tmp_path_factory.mktemp("show")
    store = small_sweep.finished_sweep(folder, budget={"trials": 1, "concurrency": 1}, **_with_base(folder, **steps))
    with Ledger.open(store.ledger) as ledger:
        ledger.update_sweep("demo", state=SweepState.FINISHED)
    return store


def _with_base(folder, **changes):
    domain = {"dataset": "scenes", "root": str(folder / "scenes")}
    data = {"source": domain | {"domain": "urban"}, "target": domain | {"domain": "rural"}, "height": 64, "width": 64}
    base = {
        "data": data | {"cache": str(folder / "cache")},
        "model": {"name": "small_unet:SmallUNet", "width": 8},
        "method": {"name": "source_only"},
        "batch_size": 4,
        "precision": "fp32",
        "device": "cpu",
    }
    return {"base": base | changes, "search": {"optimizer.lr": [0.01]}}


def reports(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        (line["step"], {name: value for name, value in line["metrics"].items() if name not in TIMES}) for line in lines
    ]


def train_alone(command, folder, monkeypatch):
    """Do what a shell would do with the command that trains a trial."""
    monkeypatch.chdir(folder)
    words = shlex.split(command)
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        monkeypatch.setenv(name, value)
        if name == "PYTHONPATH":
            monkeypatch.syspath_prepend(value)
    assert words.pop(0) == "segda"
    with pytest.raises(SystemExit) as ended:
        run_cli(cli, words)
    assert ended.value.code == 0


def test_the_command_that_is_shown_trains_the_trial_alone_to_the_same_metrics(trained, call, tmp_path, monkeypatch):
    code, out, _ = call("show", "demo", "0", "--store", trained.root)
    assert code == 0
    command = out.splitlines()[-1]
    assert "OMP_NUM_THREADS=1 " in command
    train_alone(command, tmp_path, monkeypatch)
    (record,) = sweeps.status("demo", store=trained.root).trials
    found = reports(trained.trial(record))
    assert len(found) == 2
    assert reports(tmp_path / "demo-0-alone") == found


def test_it_works_from_the_ledger_where_the_trial_left_no_configuration(trained, call, tmp_path, monkeypatch):
    (record,) = sweeps.status("demo", store=trained.root).trials
    config = trained.trial(record) / "config.json"
    config.rename(config.with_name("away"))
    try:
        shown = sweeps.show("demo", 0, store=trained.root)
        write, _, train = shown.train_command.partition(" && ")
        write, _, file = write.partition(" > ")
        words = shlex.split(write)
        assert words[:2] == ["sweeps", "show"]
        code, out, _ = call(*words[1:])
        assert code == 0
        (tmp_path / file).write_text(out)
        train_alone(train, tmp_path, monkeypatch)
    finally:
        config.with_name("away").rename(config)
    assert reports(tmp_path / "demo-0-alone") == reports(trained.trial(record))
    assert json.loads(out) == json.loads(config.read_text())


def test_a_finished_sweep_says_what_to_pick_and_what_comes_next(begun, make_spec, ledger, store, call):
    spec = begun(make_spec())
    config = spec.train_config({"optimizer.lr": 0.01}, seed=0).model_dump(mode="json")
    ledger.add_trial(trial(0, config=config, params={"optimizer.lr": 0.01}))
    ledger.update_sweep("demo", state=SweepState.FINISHED)
    store.sweep("demo").mkdir()
    code, out, _ = call("show", "demo", "--store", store.root)
    assert code == 0
    assert "trial 0 (source_only, lr 0.01)" in out
    assert "is the only candidate that qualifies" in out
    assert str(store.sweep("demo")) in out
    commands = out.splitlines()[out.splitlines().index("next") + 1 :]
    assert [line.split()[1] for line in commands] == ["show", "report", "audit", "deploy"]
    for line in commands:
        assert f"--store {store.root}" in line
        assert "  # " in line
    first = shlex.split(commands[0], comments=True)
    assert call(*first[1:])[0] == 0


def test_metrics_of_target_labels_are_shown_on_request(trained, call):
    _, out, _ = call("show", "demo", "0", "--store", trained.root)
    assert "oracle/" not in out
    assert "made from target labels are left out; --oracle shows them" in out
    _, out, _ = call("show", "demo", "0", "--store", trained.root, "--oracle")
    assert "oracle/target/miou" in out
    assert "left out" not in out


def test_a_notebook_shows_the_same_and_has_the_documents(trained, call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for number, schema in ((None, "sweeps.sweep/1"), (0, "sweeps.trial/1")):
        shown = sweeps.show("demo", number, store=trained.root)
        page = shown._repr_html_()
        assert repr(shown).splitlines()[-1].replace("&", "&amp;") in page
        assert "oracle/" not in repr(shown) + page
        assert shown.document()["schema"] == schema
    with pytest.raises(ConfigError, match="no trial 9 in sweep 'demo'"):
        sweeps.show("demo", 9, store=trained.root)


def test_a_failure_is_shown_with_its_traceback_and_without_passwords(begun, make_spec, ledger, store, call):
    spec = begun(make_spec())
    config = spec.train_config({"optimizer.lr": 0.01}, seed=0).model_dump(mode="json")
    failed = trial(
        0,
        state=TrialState.FAILED,
        failure=FailureClass.ERROR,
        error="boom",
        config=config,
        params={"optimizer.lr": 0.01},
    )
    ledger.add_trial(failed)
    folder = store.trial(failed)
    folder.mkdir(parents=True)
    (folder / "error.txt").write_text(f"Traceback (most recent call last):\nRuntimeError: no answer from {SECRET}\n")
    code, out, _ = call("show", "demo", "0", "--store", store.root)
    assert code == 0
    assert "RuntimeError: no answer from http://***@host/x" in out
    told = json.loads(call("show", "demo", "0", "--store", store.root, "--json")[1])
    assert told["traceback"].endswith("http://***@host/x")


def test_data_roots_guests_and_how_a_step_is_computed_are_in_the_command(
    ledger, store, make_spec, monkeypatch, tmp_path
):
    spec = make_spec(resources={"cpus": 3, "gpus": 0, "processes": 2}, base=make_spec().base | {"batch_size": 8})
    info = SweepInfo(folders=("/there/a", "/there/b"))
    ledger.create_sweep("demo", spec=spec.canonical(), info=info)
    monkeypatch.setenv("SEGDA_CAMVID_ROOT", str(tmp_path / "cam vid"))
    config = spec.train_config({"optimizer.lr": 0.01}, seed=0).model_dump(mode="json")
    ledger.add_trial(trial(0, config=config, micro_batch=4))
    ledger.add_trial(trial(1, config=config | {"model": {"name": "mine:Net"}}))
    words = shlex.split(sweeps.show("demo", 0, store=store.root).train_command)
    assert words[:2] == ["sweeps", "show"]
    assert words[words.index("&&") + 1 :] == [
        "OMP_NUM_THREADS=3",
        *("segda", "train", "demo-0.json"),
        *("--data-root", f"camvid={tmp_path / 'cam vid'}"),
        *("--micro-batch", "4", "--processes", "2", "--folder", "demo-0-alone"),
    ]
    guest = sweeps.show("demo", 1, store=store.root).train_command
    assert f"PYTHONPATH=/there/a{os.pathsep}/there/b segda train" in guest


def test_a_relative_description_of_data_is_found_from_where_the_sweep_began(ledger, store, make_spec, tmp_path):
    spec = make_spec()
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    ledger.create_sweep("demo", spec=spec.canonical(), info=SweepInfo(folders=(str(tmp_path),)))
    config = spec.train_config({"optimizer.lr": 0.01}, seed=0).model_dump(mode="json")
    config["data"]["source"]["dataset"] = "mine.yaml"
    ledger.add_trial(trial(0, config=config))
    assert sweeps.show("demo", 0, store=store.root).train_command.startswith(f"cd {tmp_path} && ")


def test_what_people_get_wrong_is_one_line(trained, call):
    for words, why in (
        (("show", "demo", "--config"), "--config is about one trial"),
        (("show", "demo", "0", "--config", "--json"), "--config is about one trial"),
        (("show", "dem"), "did you mean 'demo'"),
        (("show", "demo", "-1"), "No such option"),
        (("show", "demo", "--oracle"), "--oracle is about the metrics of a TRIAL"),
        (("status", "demo", "--oracle"), "--oracle is about --json"),
        (("report", "demo", "--oracle"), "--oracle is about --json"),
        (("report", "demo", "--json", "--to", "."), "--json writes no page"),
    ):
        code, out, err = call(*words, "--store", trained.root)
        assert (code, out, err.count("\n"), why in err) == (2, "", 1, True), err


# Attempts


def events(*told):
    return [
        Event(number, kind, message, 0, float(number), failure) for number, (kind, message, failure) in enumerate(told)
    ]


def begun_by(worker, attempt):
    return STARTED, attempt_text(attempt, worker, "cpu"), None


LOST = (RETRIED, "on a:1: gone", FailureClass.WORKER_LOST)


def test_each_attempt_has_its_worker_its_times_and_its_end():
    record = trial(0, attempt=3, finished=9.0, worker="c:3", device="cpu")
    found = attempts_of(record, events(begun_by("a:1", 1), LOST, begun_by("b:2", 2), begun_by("c:3", 3)))
    assert [(item.number, item.worker, item.started, item.ended, item.end) for item in found] == [
        (1, "a:1", 0.0, 1.0, "failed"),
        (2, "b:2", 2.0, None, "released"),  # its driver ended
        (3, "c:3", 3.0, 9.0, "complete"),
    ]
    assert found[0].failure is FailureClass.WORKER_LOST


def test_an_attempt_whose_worker_never_began_is_one_too():
    record = trial(0, attempt=2, state=TrialState.RUNNING, worker="", finished=None)
    found = attempts_of(record, events(LOST))
    assert [(item.worker, item.end) for item in found] == [(None, "failed"), (None, "running")]


def test_a_ledger_that_kept_no_beginnings_has_the_last_worker():
    record = trial(0, attempt=2, worker="b:2", device="GPU 0", finished=9.0)
    found = attempts_of(record, events(LOST))
    assert [(item.worker, item.device, item.started, item.end) for item in found] == [
        (None, None, None, "failed"),
        ("b:2", "GPU 0", None, "complete"),
    ]


def test_a_pruned_attempt_has_the_reason_and_others_events_do_not_count():
    record = trial(0, attempt=1, state=TrialState.PRUNED, finished=5.0)
    told = events(begun_by("a:1", 1), ("pruned", "behind the median", None))
    other = replace(told[1], number=7, message="of another one")
    (found,) = attempts_of(record, [told[0], other, told[1]])
    assert (found.end, found.message, found.ended) == ("pruned", "behind the median", 1.0)


def test_better_is_what_objectives_and_names_say():
    assert direction_of("train/lr", {}) is None
    assert direction_of("train/loss_seg", {}) == "minimize"
    assert direction_of("source/val/iou/Sky", {}) == "maximize"
    assert direction_of("target/largest_class_share", {"target/largest_class_share": "minimize"}) == "minimize"


def test_a_reference_and_its_settings_are_shown(begun, make_spec, ledger, store, call):
    spec = begun(make_spec(references={"half": {"optimizer.lr": 0.005}}))
    config = spec.train_config({"optimizer.lr": 0.005}, seed=0).model_dump(mode="json")
    reference = {"kind": TrialKind.REFERENCE, "name": "half", "params": {"optimizer.lr": 0.005}}
    ledger.add_trial(trial(0, config=config, **reference))
    _, out, _ = call("show", "demo", "--store", store.root)
    assert "half" in out
    assert "optimizer.lr 0.005" in out
    assert "sweeps resume demo" in out
    _, out, _ = call("show", "demo", "0", "--store", store.root)
    assert "reference: half" in out
    assert yaml.safe_load(call("show", "demo", "0", "--store", store.root, "--config")[1]) == config | {"device": "cpu"}
