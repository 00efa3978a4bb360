"""Several sweeps side by side."""

import pytest
from records import replicate, trial

from sweeps.ledger.records import SweepInfo, SweepRecord, SweepState
from sweeps.reports.comparison import best_so_far, differences, obstacles, sweeps_table
from sweeps.reports.comparison_plots import best_so_far_figure
from sweeps.reports.view import SweepView
from sweeps.trial import TrialKind, TrialState


@pytest.fixture
def view_of(make_spec):
    def make(trials, *, name="demo", seconds=0.0, **changes):
        spec = make_spec(name=name, **changes)
        record = SweepRecord(name, spec.canonical(), SweepInfo(), 0.0, state=SweepState.FINISHED, seconds=seconds)
        return SweepView(record=record, spec=spec, trials=trials)

    return make


def ended(number, source, *, hours, at, **changes):
    return trial(number, source, seconds=hours * 3600, finished=float(at), **changes)


def test_the_common_table_has_each_pick_with_its_seeds_and_work(view_of):
    first = trial(0, 0.6, 0.4, seconds=3600.0)
    trials = [
        first,
        replicate(1, first, 0.62, 0.44, seconds=1800.0),
        trial(2, 0.5, 0.5, reused="other/1", seconds=99.0),
    ]
    (row,) = sweeps_table([view_of(trials, seconds=7200.0, seeds=[0, 1])]).records()
    assert (row["name"], row["trial"], row["state"]) == ("demo", "0", "finished")
    assert (row["source_miou"], row["target_miou"]) == (0.6, 0.4)
    assert (row["n"], row["source_seeds"].mean, row["target_seeds"].mean) == (1, 0.62, 0.44)
    assert (row["worker_hours"], row["complete"], row["total"]) == (1.5, 3, 3)


def test_a_sweep_without_a_pick_has_a_row(view_of):
    (row,) = sweeps_table([view_of([])]).records("trial", "source_miou", "source_seeds", "n")
    assert row == {"trial": None, "source_miou": None, "source_seeds": None, "n": 0}


def test_the_best_so_far_rises_over_the_work_of_all_ended_trials_in_their_order(view_of):
    trials = [
        ended(0, 0.9, hours=1, at=10, state=TrialState.PRUNED),
        ended(1, 0.5, hours=2, at=30),
        ended(2, 0.4, hours=1, at=40),
        ended(3, 0.3, hours=4, at=20, kind=TrialKind.REFERENCE, name="bound"),
        ended(4, 0.7, hours=1, at=50),
        ended(5, 0.9, hours=1, at=60, metrics={"target/largest_class_share": 1.0}),
        ended(6, 0.8, hours=9, at=70, reused="other/3"),
        trial(7, 0.99, state=TrialState.RUNNING, seconds=3600.0),
    ]
    assert best_so_far(view_of(trials), "source/val/miou") == [(7, 0.5), (8, 0.5), (9, 0.7), (10, 0.7), (10, 0.8)]


def test_differences_name_searched_ranges_and_what_they_concern_and_leave_places_out(view_of):
    lr = {"low": 1e-3, "high": 1e-1, "log": True}
    first = view_of([], search={"optimizer.lr": lr}, budget={"trials": 3}, tracking={"uri": "http://a"})
    second = view_of([], name="other", search={"optimizer.lr": lr, "batch_size": [2, 4]}, budget={"trials": 9})
    second.record.spec["base"]["data"]["source"]["root"] = "/elsewhere"
    second.record.spec["base"]["steps"] = 12
    assert differences([first, second]) == [
        ("question", "search.batch_size", ("–", "2 | 4")),
        ("training", "base.steps", ("6", "12")),
        ("effort", "budget.trials", ("3", "9")),
    ]


def test_equal_sweeps_have_no_difference_and_nothing_speaks_against_comparing_them(view_of):
    views = [view_of([trial(0)]), view_of([trial(0)], name="other")]
    assert differences(views) == []
    assert obstacles(views) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"height": 64}, "Not the same image size"),
        ({"target": {"dataset": "camvid", "domain": "day"}}, "Not the same target data"),
    ],
)
def test_sweeps_of_other_data_are_said_not_to_be_comparable(view_of, change, expected):
    other = trial(0)
    other.config["data"].update(change)
    (note,) = obstacles([view_of([trial(0)]), view_of([other], name="other")])
    assert note.startswith(expected)
    assert "demo: " in note
    assert "other: " in note


def test_other_classes_steps_criteria_and_objectives_are_said(view_of):
    other = view_of(
        [trial(0, config=trial(0).config | {"steps": 7})],
        name="other",
        selection="im",
        objectives=[{"metric": "macs", "direction": "minimize"}],
    )
    first = view_of([trial(0)])
    first = SweepView(record=first.record, spec=first.spec, trials=first.trials, results={0: {"classes": ["Sky"]}})
    other = SweepView(record=other.record, spec=other.spec, trials=other.trials, results={0: {"classes": ["Road"]}})
    text = " ".join(obstacles([first, other]))
    for what in ("classes", "training steps", "objective", "selection"):
        assert f"Not the same {what}" in text


def test_the_figure_of_progress_is_in_per_cent_over_worker_hours(view_of):
    figure = best_so_far_figure([view_of([ended(0, 0.5, hours=2, at=10)])])
    source = next(trace for trace in figure.data if trace.visible)
    assert (list(source.x), list(source.y), source.name) == ([2.0], [50.0], "demo")
    assert best_so_far_figure([view_of([])]) is None
