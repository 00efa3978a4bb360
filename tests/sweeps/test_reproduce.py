"""Trials trained again from their MLflow runs: real training on generated scenes, a real MLflow store."""

import contextlib
import json
import math
import shutil
import sys
import time
from dataclasses import replace
from typing import NamedTuple

import fakes
import pytest
import torch

from segda.cli_errors import run_cli
from segda.config import TrainConfig
from segda.datasets.scenes import generate_scenes
from segda.splits import data_fingerprint
from segda.training import train
from sweeps.audit import reproduce as reproducing
from sweeps.audit.repetition import Comparison, weights_digest
from sweeps.cli import sweeps as cli
from sweeps.cli.actions.reproduce import describe
from sweeps.execution.task import Task
from sweeps.execution.worker import run_task
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.store import Store
from sweeps.tracking import Tracker, TrackingError, default_uri, reading
from sweeps.tracking.limits import key_name
from sweeps.tracking.reading import read_run
from sweeps.trial import TrialKind, TrialRecord, TrialState


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return generate_scenes(tmp_path_factory.mktemp("scenes") / "scenes", size=64, train=8, val=2)


def base(scenes, cache, **changes):
    return {
        "data": {
            "source": {"dataset": "scenes", "domain": "urban", "root": str(scenes)},
            "target": {"dataset": "scenes", "domain": "rural", "root": str(scenes)},
            "height": 64,
            "width": 64,
            "augmentation": "nadir",
            "cache": str(cache),
        },
        "model": {"name": "bisenet_v1", "backbone": "resnet18", "pretrained": "none"},
        "method": {"name": "source_only"},
        "steps": 4,
        "report_every": 1,
        "batch_size": 4,
        "device": "cpu",
    } | changes


class Trained(NamedTuple):
    """A sweep of two trials, in MLflow."""

    store: Store
    parent: str
    killed: str  # a complete trial that was killed twice
    pruned: str  # a trial that was stopped after two of its four steps

    def read(self, run_id=None):
        return read_run(run_id or self.killed, uri=default_uri(self.store))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, scenes, mlflow_template):
    store = Store.at(tmp_path_factory.mktemp("reproduce") / "runs")
    store.root.mkdir()
    shutil.copy(mlflow_template, store.mlflow)
    plain = fakes.plain_spec(
        base=base(scenes, store.root / "cache", batch_size=8), search={"optimizer.lr": {"low": 0.01, "high": 0.02}}
    )
    spec = SweepSpec.model_validate(plain)
    threads = torch.get_num_threads()
    with Ledger.open(store.ledger) as ledger:
        ledger.create_sweep("demo", spec=spec.canonical())
        _work(spec, ledger, store, 0, dies_after=(1, 3))
        ledger.update_trial("demo", 0, state=TrialState.COMPLETE, finished=2000.0)
        _work(spec, ledger, store, 1, stops_after=2, micro_batch=4)
        ledger.update_trial("demo", 1, state=TrialState.PRUNED, finished=2000.0)
        tracker = Tracker(None, experiment=None, ledger=ledger, spec=spec, store=store)
        tracker.connect()
        tracker.sync(final=True)
        runs = [record.run_id for record in ledger.trials("demo")]
        yield Trained(store, ledger.sweep("demo").parent_run_id, *runs)
    torch.set_num_threads(threads)


def _work(spec, ledger, store, number, *, dies_after=(), stops_after=None, **options):
    """Train a trial as workers would that die or are stopped after some steps."""
    plain = spec.train_config({"optimizer.lr": 0.015}, seed=number).model_dump(mode="json")
    record = TrialRecord("demo", number, "key", TrialKind.SEARCH, {"optimizer.lr": 0.015}, plain, seed=number)
    ledger.add_trial(record)
    for last in (*dies_after, stops_after):
        attempt = ledger.start_attempt("demo", number, worker="host:1").attempt

        def send(message, last=last, attempt=attempt):
            assert message["event"] != "failed", message
            if message["event"] == "point":
                told = {name: message[name] for name in ("step", "metrics")}
                ledger.add_point("demo", number, attempt=attempt, timestamp=time.time(), **told)
                if message["step"] == last:
                    raise SystemExit

        acknowledged = ledger.trial("demo", number).step
        with contextlib.suppress(SystemExit):
            run_task(Task(number, attempt, acknowledged, str(store.trial(record)), plain, 1, **options), send)


@pytest.fixture
def sweeps(capsys):
    def run(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_cli(cli, [str(word) for word in words])
        captured = capsys.readouterr()
        return int(ended.value.code), captured.out, captured.err

    return run


def test_a_trial_that_was_killed_twice_is_reproduced_bit_for_bit_by_one_uninterrupted_run(
    trained, sweeps, scenes, tmp_path
):
    moved = tmp_path / "elsewhere" / "scenes"
    shutil.copytree(scenes, moved)
    again = ["reproduce", trained.killed, "--store", trained.store.root, "--keep", tmp_path / "again"]
    code, output, errors = sweeps(*again, "--data-root", f"scenes={moved}")
    assert (code, errors) == (0, "")
    assert "4 reports up to step 4, trained in 3 attempts" in output
    assert "bit-equal: " in output
    assert "weights: bit-equal" in output
    assert (tmp_path / "again" / "checkpoint.pt").is_file()
    code, _, errors = sweeps(*again)
    assert (code, len(errors.splitlines())) == (2, 1)
    assert "holds a run already" in errors


def test_a_trial_that_was_stopped_early_is_reproduced_up_to_there_in_its_micro_batches(trained, sweeps):
    code, output, _ = sweeps("reproduce", trained.pruned, "--store", trained.store.root)
    assert code == 0
    assert "data: unknown" in output
    assert "of 2 reports" in output


@pytest.fixture
def instant(monkeypatch, trained):
    """Let training report what the run says, and note what it was asked for."""
    asked = {}

    def train(config, report, *, folder, on_step, **options):
        asked.update(options, threads=torch.get_num_threads())
        for step, metrics in trained.read().reports.items():
            report(step, metrics, folder / "checkpoint.pt")
        shutil.copy(next(trained.store.sweep("demo").glob("trials/0000-*/checkpoint.pt")), folder)

    monkeypatch.setattr(reproducing, "train", train)
    return asked


def test_a_changed_figure_is_found_at_its_step_by_its_name_and_size(trained, sweeps, instant, monkeypatch):
    def tampered(run_id, *, uri):
        run = read_run(run_id, uri=uri)
        for step in (2, 3):
            run.reports[step]["source/val/miou"] += 1e-6 * step
        return run

    monkeypatch.setattr("sweeps.cli.actions.reproduce.read_run", tampered)
    again = ["reproduce", trained.killed, "--store", trained.store.root]
    code, output, _ = sweeps(*again)
    assert code == 1
    assert "differs first at step 2: source/val/miou was " in output
    assert "(by 2e-06)" in output
    assert "differs most at step 3: source/val/miou was " in output
    assert sweeps(*again, "--tolerance", 2.5e-6)[0] == 1
    code, output, _ = sweeps(*again, "--tolerance", 1e-5)
    assert code == 0
    assert "reproduced within 1e-05: 2 of " in output


def test_a_report_that_is_not_made_again_is_a_difference(trained, instant, tmp_path):
    run = trained.read()
    longer = replace(run, reports={**run.reports, 5: {"source/val/miou": 0.5}})
    comparison = reproducing.reproduce(longer, run.config, folder=tmp_path)
    assert not comparison.holds
    assert [(item.step, item.again) for item in comparison.differences] == [(5, None)]


def test_the_number_of_threads_and_the_way_of_computing_are_the_run_s(trained, instant, tmp_path):
    run = trained.read()
    environment = {**run.environment, "num_threads": 2, "processes": 2, "micro_batch": 4}
    reproducing.reproduce(replace(run, environment=environment), run.config, folder=tmp_path)
    # Two threads in each of two processes; four images are all that one of these has of eight.
    assert instant == {"threads": 4, "processes": 2}
    environment |= {"num_threads": 1, "processes": 1}
    (tmp_path / "checkpoint.pt").unlink()
    reproducing.reproduce(replace(run, environment=environment), run.config, folder=tmp_path)
    assert instant == {"threads": 1, "processes": 2, "micro_batch": 4}
    assert torch.get_num_threads() == 1


@pytest.mark.slow  # two trainings of two processes
def test_a_data_parallel_trial_is_reproduced_with_the_threads_that_its_processes_had(trained, scenes, tmp_path):
    plain = base(scenes, trained.store.root / "cache", steps=2, report_every=2, precision="fp32")
    config, threads, reports = TrainConfig.model_validate(plain), torch.get_num_threads(), {}

    def report(step, metrics, checkpoint):
        reports[step] = {key_name(name): value for name, value in metrics.items()}

    torch.set_num_threads(4)
    try:
        train(config, report, folder=tmp_path / "first", processes=2)
    finally:
        torch.set_num_threads(threads)
    environment = json.loads((tmp_path / "first" / "environment.json").read_text())
    assert environment["num_threads"] == 2
    run = replace(trained.read(), environment=environment, reports=reports, weights=None)
    comparison = reproducing.reproduce(run, config, folder=tmp_path / "again")
    assert comparison.num_figures > 10
    assert comparison.holds, comparison.first


def test_other_data_are_an_error_on_one_line(trained, sweeps, tmp_path):
    other = generate_scenes(tmp_path / "other", size=64, train=8, val=2, seed=1)
    again = ["reproduce", trained.killed, "--store", trained.store.root]
    code, _, errors = sweeps(*again, "--data-root", f"scenes={other}")
    assert (code, len(errors.splitlines())) == (2, 1)
    assert "read data with fingerprint" in errors
    code, _, errors = sweeps(*again, "--data-root", f"camvid={other}")
    assert code == 2
    assert "used scenes" in errors


def test_what_differs_in_the_environment_is_listed(trained, monkeypatch):
    described = reproducing.describe_environment
    here = {"version/torch": "9.9", "num_threads": 7}
    monkeypatch.setattr(reproducing, "describe_environment", lambda device: described(device) | here)
    run = trained.read()
    assert reproducing.environment_differences(run, run.config) == [("version/torch", torch.__version__, "9.9")]


def _leave_out(files, name):
    return {known: path for known, path in files.items() if known != name}


def test_a_run_without_a_configuration_file_is_configured_from_its_parameters(trained, monkeypatch):
    with_file = trained.read()
    download = reading._download
    monkeypatch.setattr(reading, "_download", lambda *arguments: _leave_out(download(*arguments), "config.json"))
    run = trained.read()
    assert run.config.fingerprint() == with_file.config.fingerprint()
    assert run.config.data.source.root is None
    monkeypatch.setattr(reading, "_download", lambda *arguments: _leave_out(download(*arguments), "environment.json"))
    with pytest.raises(TrackingError, match=r"has no environment.json: the trial is complete"):
        trained.read()


def test_what_is_no_run_of_a_trial_is_an_error_on_one_line(trained, sweeps, tmp_path):
    for run_id, expected in (("0" * 32, "cannot be read"), (trained.parent, "is no trial")):
        code, _, errors = sweeps("reproduce", run_id, "--store", trained.store.root)
        assert (code, len(errors.splitlines())) == (2, 1)
        assert expected in errors
    code, _, errors = sweeps("reproduce", "0" * 32, "--store", tmp_path / "nowhere")
    assert (code, len(errors.splitlines())) == (2, 1)
    assert not (tmp_path / "nowhere").exists()


def test_the_recorded_precision_and_kind_of_device_are_used_whatever_auto_means_here(trained):
    run = trained.read()
    config = reproducing.local_config(run, roots={})
    assert config.device == "cpu"
    assert config.precision == {"float32": "fp32", "bfloat16": "bf16"}[run.precision]
    assert data_fingerprint(config) == run.data_fingerprint


def compared(recorded, again, tolerance=0.0):
    comparison = Comparison(tolerance)
    comparison.add(10, recorded=recorded, again=again)
    return comparison


def test_times_and_figures_of_the_machine_are_not_compared():
    recorded = {"train/loss": 1.0, "train/seconds_per_step": 1.0, "train/images_per_second": 1.0, "system/cpu": 1.0}
    comparison = compared(recorded, {"train/loss": 1.0, "train/seconds_per_step": 2.0})
    assert comparison.holds
    assert comparison.num_figures == 1


def test_the_smallest_difference_counts_unless_it_is_allowed():
    again = math.nextafter(0.5, 1.0)
    assert not compared({"a": 0.5}, {"a": again}).holds
    assert compared({"a": 0.5}, {"a": again}, tolerance=1e-9).holds
    assert compared({"a": 500.0}, {"a": 504.0}, tolerance=0.01).holds
    assert not compared({"a": 500.0}, {"a": 506.0}, tolerance=0.01).holds
    assert not compared({"a": 0.50}, {"a": 0.52}, tolerance=0.01).holds


def test_missing_figures_and_nans_are_differences_whatever_is_allowed():
    assert not compared({"a": 0.5}, {}, tolerance=10).holds
    assert not compared({"a": 0.5}, {"a": math.nan}, tolerance=10).holds
    assert compared({"a": math.nan}, {"a": math.nan}).holds
    assert "was not reported now" in describe(compared({"a": 0.5}, {}))[0]


def test_figures_are_compared_as_mlflow_keeps_them():
    recorded = {"source/val/iou/Road _wet_": 0.5, "b": sys.float_info.max}
    assert compared(recorded, {"source/val/iou/Road (wet)": 0.5, "b": math.inf, "new": 1.0}).holds


def test_other_weights_are_a_difference_on_the_cpu_only():
    comparison = compared({"a": 0.5}, {"a": 0.5})
    comparison.recorded_weights, comparison.weights = "1", "2"
    assert not comparison.holds
    assert describe(comparison)[-1].startswith("weights: differ")
    comparison.tolerance = 0.01
    assert comparison.holds


def test_the_digest_of_weights_sees_values_types_and_names():
    state = {"a": torch.ones(2), "b": torch.ones(2, dtype=torch.bfloat16), "n": torch.tensor(3)}
    digests = {
        weights_digest(changed)
        for changed in (
            state,
            state | {"n": torch.tensor(4)},
            state | {"b": torch.ones(2)},
            state | {"a": torch.ones(2, 1)},
            {"c": state["a"], "b": state["b"], "n": state["n"]},
        )
    }
    assert len(digests) == 5
    assert weights_digest(dict(reversed(state.items()))) == weights_digest(state)


@pytest.mark.slow  # trains three networks on Ray, and each of them a second time
@pytest.mark.usefixtures("ray_cluster", "no_profiling")
def test_runs_of_three_methods_of_a_real_sweep_are_reproduced_bit_for_bit(
    make_spec, begun, ledger, mlflow_store, scenes, tmp_path, sweeps
):
    from sweeps.execution.runner import run_sweep

    methods = ("source_only", "target_only", "adversarial")
    spec = begun(
        make_spec(
            base=base(scenes, tmp_path / "cache", steps=20, report_every=10),
            search={"optimizer.lr": {"low": 0.01, "high": 0.02}},
            references={method: {"method.name": method, "optimizer.lr": 0.02} for method in methods[1:]},
            budget={"trials": 1, "concurrency": 1},
        )
    )
    outcome = run_sweep(spec, ledger=ledger, store=mlflow_store, fingerprint=data_fingerprint)
    assert outcome.exit_code == 0
    tracker = Tracker(None, experiment=None, ledger=ledger, spec=spec, store=mlflow_store)
    tracker.connect()
    tracker.sync(final=True)
    runs = {record.config["method"]["name"]: record.run_id for record in ledger.trials("demo")}
    assert set(runs) == set(methods)
    for method, run_id in runs.items():
        code, output, errors = sweeps("reproduce", run_id, "--store", mlflow_store.root)
        assert (code, errors) == (0, "")
        assert "bit-equal: " in output, method
