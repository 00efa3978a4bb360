"""`import sweeps`: what a notebook finds there."""

import copy
import signal
import threading

import fakes
import numpy as np
import pandas as pd
import pytest
import yaml
from records import trial

import sweeps
from segda.errors import ConfigError
from segda.progress import Output
from segda.target_prediction import TARGET_PREDICTION, TargetPrediction, write_target_prediction
from sweeps.commands.driving import drive
from sweeps.execution.signals import ending_ignored
from sweeps.failures import FailureClass
from sweeps.file.spec import SweepSpec
from sweeps.reports.notebook import NotebookView
from sweeps.trial import TrialKind, TrialRecord, TrialState

LR = "optimizer.lr"


def record(spec, number, lr, **changes):
    fields = {
        "sweep": spec.name,
        "number": number,
        "key": f"key{number}",
        "kind": TrialKind.SEARCH,
        "params": {LR: lr},
        "config": spec.train_config({LR: lr}, seed=0).model_dump(mode="json"),
        "seed": 0,
        "state": TrialState.COMPLETE,
        "step": 6,
        "seconds": 2.5,
        "metrics": {"source/val/miou": 0.5 + lr, "oracle/target/miou": 0.5 - lr, "target/largest_class_share": 0.5},
        "profile": {"macs": 1e9, "latency_ms": 4.0},
    }
    return TrialRecord(**(fields | changes))


@pytest.fixture
def searched(begun, make_spec, ledger):
    """A sweep of one good trial, a better one, and one that ran out of memory."""
    spec = begun(make_spec())
    ledger.add_trial(record(spec, 0, 0.01))
    ledger.add_trial(record(spec, 1, 0.02, micro_batch=2))
    failure = {"state": TrialState.FAILED, "failure": FailureClass.OUT_OF_MEMORY, "error": "too much", "metrics": {}}
    ledger.add_trial(record(spec, 2, 0.03, step=0, **failure))
    return spec


# Sweeps out of plain data


def test_a_sweep_of_plain_data_is_that_of_its_file(tmp_path):
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump(fakes.plain_spec()))
    assert sweeps.load_spec(fakes.plain_spec()) == sweeps.load_spec(path) == sweeps.load_spec(str(path))


def test_folders_of_data_become_absolute_and_what_was_given_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = fakes.plain_spec()
    before = copy.deepcopy(plain)
    spec = sweeps.load_spec(plain, data_roots={"camvid": "here"})
    assert spec.base["data"]["target"]["root"] == str(tmp_path / "here")
    assert plain == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bugdet": {}}, r"^sweep: bugdet: unknown key \(did you mean 'budget'\?\)"),
        ({"search": {"optimizer.lrr": [1, 2]}}, r"^sweep: search\.optimizer\.lrr: .*did you mean 'optimizer\.lr'"),
        ({"objectives": [{"metric": "source/val/iou", "direction": "maximize"}]}, r"^sweep: objectives\[0\]\.metric: "),
        ({"budget": {"trials": 0}}, r"^sweep: budget\.trials: must be at least 1, got 0"),
    ],
)
def test_a_mistake_in_plain_data_is_told_with_its_key(changes, message):
    with pytest.raises(ConfigError, match=message) as raised:
        sweeps.load_spec(fakes.plain_spec(**changes))
    assert "\n" not in str(raised.value)


# What came out


def test_results_have_one_row_per_trial_with_what_it_is_and_what_came_out(searched, store):
    frame = sweeps.results("demo", store=store.root)
    assert isinstance(frame, pd.DataFrame)
    assert frame["number"].tolist() == [0, 1, 2]
    assert frame["state"].tolist() == ["complete", "complete", "failed"]
    assert frame[LR].tolist() == [0.01, 0.02, 0.03]
    assert frame["source/val/miou"].tolist()[:2] == [0.51, 0.52]
    assert pd.isna(frame["source/val/miou"][2])
    assert frame["macs"].tolist() == [1e9] * 3
    assert frame["seconds"].tolist() == [2.5] * 3
    assert frame["failure"].tolist()[2] == "out_of_memory"
    assert frame["note"].tolist()[0] == ""
    assert frame["note"][1].startswith("trained with 2 images at once instead of 4")
    assert frame["picked"].tolist() == [False, True, False]


def test_results_of_a_sweep_that_chooses_by_agreement_have_its_pick_and_its_figure(store, ledger, make_spec, begun):
    begun(make_spec(selection="ensv"))
    for number, classes in enumerate(([0, 1, 1, 2], [0, 1, 2, 2], [0, 0, 2, 2])):
        one = trial(number, 0.9 - number / 10)
        ledger.add_trial(one)
        store.trial(one).mkdir(parents=True)
        prediction = TargetPrediction(np.array(classes, dtype=np.uint8), 3, "same")
        write_target_prediction(store.trial(one) / TARGET_PREDICTION, prediction)
    frame = sweeps.results("demo", store=store.root)
    assert frame["picked"].tolist() == [False, True, False]
    assert frame["target/pool/ensv"].tolist() == pytest.approx([(1 + 1 / 2 + 1 / 2) / 3, 1, (1 / 2 + 0 + 1) / 3])


def test_results_hide_what_is_made_from_target_labels_unless_it_is_asked_for(searched, store):
    hidden, shown = (sweeps.results("demo", store=store.root, oracle=oracle) for oracle in (False, True))
    assert not [name for name in hidden.columns if name.startswith("oracle/")]
    assert set(shown.columns) - set(hidden.columns) == {"oracle/target/miou"}
    assert shown["oracle/target/miou"].tolist()[:2] == [0.49, 0.48]


def test_results_of_a_sweep_without_trials_can_be_filtered(begun, make_spec, store):
    begun(make_spec())
    frame = sweeps.results("demo", store=store.root)
    assert len(frame[(frame.state == "complete") & frame.picked]) == 0


def test_a_status_reads_like_that_of_the_command_line(searched, store, call):
    status = sweeps.status("demo", store=store.root)
    assert status.count(TrialState.COMPLETE) == 2
    assert status.best.number == 1
    _, out, _ = call("status", "demo", "--store", store.root)
    shown, told = repr(status).splitlines(), out.splitlines()
    assert len(shown) == len(told)
    # The command line has room for one more column.
    assert all(wide.startswith(line.rstrip()) for line, wide in zip(shown, told, strict=True))
    page = status._repr_html_()
    assert page.startswith("<pre")
    assert "best so far: trial 1" in page
    assert "out of memory" in page


def test_the_report_is_written_and_found(searched, store, make_spec, ledger):
    page = sweeps.report("demo", store=store.root)
    assert page == store.report("demo")
    assert "<html" in page.read_text()
    assert page.with_suffix(".md").is_file()
    ledger.create_sweep("other", spec=make_spec(name="other").canonical(), info=ledger.sweep("demo").info)
    both = sweeps.report("demo", "other", store=store.root)
    assert both.is_file()
    assert both != page


def test_the_ledger_of_the_environment_is_read(searched, store, tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEPS_LEDGER", f"sqlite:///{store.ledger}")
    assert len(sweeps.results("demo", store=tmp_path / "elsewhere")) == 3


# Running


@pytest.fixture
def endings(monkeypatch, has_camvid):
    """Let a sweep end as `run_sweep` would say it did; return what it was given."""
    from sweeps import tracking
    from sweeps.execution import runner

    class NoTracker:
        where = "nowhere"
        last_error = "it is away"

        def __init__(self, *_, **__):
            pass

        def start(self, *, required):
            pass

        def stop(self):
            return False

    given = []

    def run_sweep(spec, *, ledger, admitted, listener, **_):
        admitted()
        given.append((spec, listener))
        reason = "stopped by SIGINT"
        return runner.SweepOutcome(spec.name, (), is_done=False, interrupted=signal.SIGINT, reason=reason)

    monkeypatch.setattr(tracking, "Tracker", NoTracker)
    monkeypatch.setattr(runner, "run_sweep", run_sweep)
    return given


def test_a_sweep_that_is_interrupted_says_how_to_go_on_and_goes_on(endings, store, capsys):
    end = sweeps.run(fakes.plain_spec(), store=store.root, trials=5, name="mine", progress=False)
    assert capsys.readouterr() == ("", "")
    assert not end.is_done
    assert end.report == store.report("mine")
    assert end.report.is_file()
    for text in (
        f"report:  {end.report}",
        f"MLflow does not have everything (it is away); `sweeps sync mine --store {store.root}` sends the rest",
        f"stopped by SIGINT; go on with `sweeps resume mine --store {store.root}`",
    ):
        assert text in repr(end)
    _add_a_trial(endings[0][0], store)
    with pytest.raises(ConfigError, match="sweeps resume mine"):
        sweeps.run(fakes.plain_spec(), store=store.root, name="mine", trials=5)
    sweeps.resume("mine", store=store.root, trials=9)
    assert [spec.budget.trials for spec, _ in endings] == [5, 9]
    assert "1 complete" in capsys.readouterr().out  # progress is shown where it is not turned off


def _add_a_trial(spec, store):
    from sweeps.ledger.database import Ledger

    with Ledger.open(store.ledger) as ledger:
        ledger.add_trial(record(spec, 0, 0.01))


def test_a_changed_sweep_is_shown_before_it_is_refused(endings, searched, store):
    seen = []
    changed = fakes.plain_spec(search={LR: {"low": 1e-3, "high": 0.5, "log": True}})
    with pytest.raises(ConfigError, match=r"search\.optimizer\.lr\.high changes which trials"):
        sweeps.resume("demo", sweep=changed, store=store.root, show_changes=seen.extend)
    assert [change.path for change in seen] == [f"search.{LR}.high"]
    assert endings == []
    sweeps.resume("demo", sweep=changed, accept_changes=True, store=store.root)
    assert isinstance(endings[0][0], SweepSpec)


@pytest.mark.slow
def test_in_a_thread_a_sweep_runs_and_no_signal_handler_is_touched(
    ray_cluster, make_spec, begun, ledger, mlflow_store, no_profiling, monkeypatch
):
    spec = begun(make_spec(budget={"trials": 2, "concurrency": 2}))
    main_only = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in main_only]
    ended = []

    def work():
        ended.append(
            drive(
                spec,
                ledger=ledger,
                store=mlflow_store,
                train="fakes:quadratic",
                fingerprint=fakes.fingerprint,
                progress=False,
            )
        )

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [signal.getsignal(number) for number in main_only] == before
    assert ended[0].is_done
    frame = sweeps.results("demo", store=mlflow_store.root)
    assert frame["state"].tolist() == ["complete", "complete"]
    assert "★" in repr(ended[0])


def test_sigterm_is_ignored_for_a_while_only():
    def handler(number, frame):
        raise AssertionError

    original = signal.signal(signal.SIGTERM, handler)
    try:
        with ending_ignored():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, original)


# What a notebook shows


class _Page(Output):
    def __init__(self):
        super().__init__()
        self.pages = []

    def show(self, page, *, is_last=False):
        self.pages.append((page, is_last))


def test_a_notebook_shows_how_far_a_sweep_is_what_is_best_and_what_failed(make_spec):
    spec = make_spec(question="a < b?")
    page = _Page()
    with NotebookView(spec, [record(spec, 0, 0.01)], page) as shown:
        assert '<progress value="1" max="3"></progress> 1/3 demo: 1/3 trials' in page.pages[-1][0]
        running = record(spec, 1, 0.02, state=TrialState.RUNNING, step=3)
        shown("started", running, "")
        assert "trial 1 step 3/6" in page.pages[-1][0]
        shown("failed", record(spec, 1, 0.02, state=TrialState.FAILED, step=3), "no <memory>")
        shown("note", None, "search ended")
    last, is_last = page.pages[-1]
    assert is_last
    assert not any(flag for _, flag in page.pages[:-1])
    assert "<b>best: trial 0" in last
    assert "failed: trial 1 step 3/6" in last
    assert "no &lt;memory&gt;" in last
    assert "search ended" in last
