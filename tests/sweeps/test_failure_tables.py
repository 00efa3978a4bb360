"""Where in the search space trials fail, and how failures were handled."""

import pytest
from records import PROFILE, trial

from sweeps.failures import FailureClass
from sweeps.ledger.records import Event
from sweeps.reports.failure_plots import region_figure
from sweeps.reports.failure_tables import failure_classes_table, history, obstacles_table
from sweeps.reports.regions import region_rows
from sweeps.trial import TrialKind, TrialState

LR, NAME = "optimizer.lr", "method.name"


def failed(number, failure, **changes):
    return trial(number, state=TrialState.FAILED, failure=failure, **changes)


def event(number, failure, kind="lost"):
    return Event(id=1, kind=kind, message="on node1:7: gone", number=number, timestamp=0.0, failure=failure)


@pytest.fixture
def search(make_spec):
    return make_spec(
        search={
            LR: {"low": 1e-3, "high": 1e1, "log": True},
            "batch_size": [2, 4],
            "optimizer.weight_decay": {"low": 0.0, "high": 0.01},
        }
    ).search


def test_values_are_grouped_by_choice_and_ranges_by_quarters_of_their_scale(search):
    trials = [
        trial(0, params={LR: 0.001, "batch_size": 2}),
        trial(1, params={LR: 0.05, "batch_size": 2}),
        failed(2, FailureClass.DIVERGED, params={LR: 5.0, "batch_size": 4}),
        failed(3, FailureClass.OUT_OF_MEMORY, params={LR: 10.0, "batch_size": 4}),
    ]
    rows = region_rows(trials, search)
    assert [(row.path, row.value, row.trials, row.share) for row in rows] == [
        (LR, "0.001 to 0.01", 1, 0.0),
        (LR, "0.01 to 0.1", 1, 0.0),
        (LR, "1 to 10", 2, 1.0),
        ("batch_size", "2", 2, 0.0),
        ("batch_size", "4", 2, 1.0),
    ]
    assert rows[2].outcomes == {"diverged": 1, "out_of_memory": 1}
    assert all(row.expected == 0.5 for row in rows)


def test_the_parameter_that_separates_best_comes_first(search):
    trials = [
        trial(0, params={LR: 0.001, "batch_size": 2}),
        trial(1, params={LR: 5.0, "batch_size": 2}),
        failed(2, FailureClass.DIVERGED, params={LR: 0.001, "batch_size": 4}),
        failed(3, FailureClass.DIVERGED, params={LR: 5.0, "batch_size": 4}),
    ]
    assert [row.path for row in region_rows(trials, search)] == ["batch_size", "batch_size", LR, LR]


def test_whole_numbers_of_a_short_range_are_looked_at_one_by_one(make_spec):
    search = make_spec(search={"batch_size": {"low": 2, "high": 5}}).search
    trials = [trial(0, params={"batch_size": 3}), failed(1, FailureClass.OUT_OF_MEMORY, params={"batch_size": 5})]
    assert [(row.value, row.share) for row in region_rows(trials, search)] == [("3", 0.0), ("5", 1.0)]


def test_what_the_machines_did_says_nothing_about_parameters(search):
    trials = [
        trial(0, params={LR: 0.001}),
        failed(1, FailureClass.NODE_LOST, params={LR: 0.001}),
        failed(2, FailureClass.HANG, params={LR: 5.0}),
        failed(3, FailureClass.DIVERGED, params={LR: 0.001}, kind=TrialKind.REFERENCE),
        trial(4, params={LR: 0.001}, state=TrialState.RUNNING),
    ]
    rows = region_rows(trials, search)
    assert [(row.value, row.trials, dict(row.outcomes)) for row in rows] == [
        ("0.001 to 0.01", 1, {}),
        ("1 to 10", 1, {"hang": 1}),
    ]


def test_without_failures_there_is_no_region(search):
    assert (
        region_rows([trial(0, params={LR: 0.001}), trial(1, state=TrialState.PRUNED, params={LR: 1.0})], search) == []
    )
    assert region_figure([]) is None


def test_architectures_that_break_a_constraint_are_listed_once_with_their_trials(make_spec):
    spec = make_spec(constraints=["fps >= 30"])
    slow = PROFILE | {"fps": 12.0}
    trials = [trial(number, state=TrialState.INFEASIBLE, profile=slow) for number in (4, 2)]
    (row,) = obstacles_table([trial(0), *trials], spec).records("network", "why", "trials")
    assert tuple(row.values()) == ("bisenet_v1 (resnet18)", "fps >= 30 is broken: 12", (2, 4))


def test_failures_are_counted_by_class_with_what_became_of_them():
    trials = [failed(0, FailureClass.WORKER_LOST), failed(1, FailureClass.DIVERGED), trial(2)]
    events = [
        event(0, FailureClass.WORKER_LOST),
        event(0, FailureClass.WORKER_LOST),
        event(2, FailureClass.WORKER_LOST, kind="requeued"),  # given up, and taken up again
        event(1, FailureClass.DIVERGED, kind="failed"),  # counted as given up, by the trial
        event(1, None),
    ]
    lost, diverged = failure_classes_table(trials, events).records()
    assert lost == {
        "failure": "worker_lost",
        "attempts": 4,
        "trials": 2,
        "retried": 3,
        "given_up": 1,
        "policy": (
            "tried again up to 3 times in a row, in an outage for longer; says nothing about the parameters, spends no budget, and "
            "is tried again when the sweep is resumed"
        ),
    }
    counts = {key: diverged[key] for key in ("failure", "attempts", "retried", "given_up")}
    assert counts == {"failure": "diverged", "attempts": 1, "retried": 0, "given_up": 1}


def test_what_was_out_of_the_ordinary_is_noted_and_nothing_else():
    assert history(trial(0, attempt=1)) == ""
    assert history(trial(0, attempt=3, micro_batch=2)) == "3 attempts, micro-batches of 2"
    assert history(trial(0, reused="other/5")) == "result of other/5"
    assert history(trial(0, config={"data": {"few_shot": {"images": 1, "names": None}}})) == "labels of 1 target image"


def test_the_figure_stacks_kinds_of_failure_and_leaves_out_what_tells_nothing(search):
    trials = [
        trial(0, params={LR: 0.001, "batch_size": 2}),
        failed(1, FailureClass.DIVERGED, params={LR: 5.0, "batch_size": 2}),
        failed(2, FailureClass.OUT_OF_MEMORY, params={LR: 5.0, "batch_size": 2}),
    ]
    figure = region_figure(region_rows(trials, search))
    assert [trace.name for trace in figure.data] == ["diverged", "out of memory"]
    assert list(figure.data[0].x) == [0.0, 50.0]
    assert list(figure.data[0].y[0]) == ["lr", "lr"]
