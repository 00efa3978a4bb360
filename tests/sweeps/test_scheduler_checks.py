"""Schedulers that a sweep file may not ask for."""

import pytest
from pydantic import ValidationError

QUALITY = {"metric": "source/val/miou", "direction": "maximize"}
ROAD = {"metric": "source/val/iou/Road", "direction": "maximize"}
MACS = {"metric": "macs", "direction": "minimize"}
ASHA = {"name": "asha", "min_steps": 1}
MEDIAN = {"name": "median", "min_steps": 1}


@pytest.mark.parametrize(
    ("scheduler", "key"),
    [
        (ASHA | {"min_trials": 7}, "min_trials"),
        (MEDIAN | {"reduction_factor": 7}, "reduction_factor"),
        ({"name": "none", "min_steps": 7}, "min_steps"),
        ({"name": "none", "metric": "source/val/pixel_accuracy"}, "metric"),
    ],
)
def test_settings_that_a_scheduler_does_not_read_are_refused(make_spec, scheduler, key):
    with pytest.raises(ValidationError, match=f"has no effect with scheduler {scheduler['name']}") as caught:
        make_spec(scheduler=scheduler)
    assert caught.value.errors()[0]["ctx"]["error"].location == ("scheduler", key)


@pytest.mark.parametrize("scheduler", [ASHA, MEDIAN])
def test_a_metric_that_training_does_not_report_is_refused(make_spec, scheduler):
    with pytest.raises(ValidationError, match="unknown metric 'macs'"):
        make_spec(scheduler=scheduler | {"metric": "macs"})


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (ASHA | {"min_steps": 6}, "must be smaller than base.steps 6, got 6;"),
        (MEDIAN | {"min_steps": 6}, "must be smaller than base.steps 6, got 6;"),
        (MEDIAN | {"min_steps": 5}, "must be smaller than base.steps 6, got 5, which is 6 at the next report"),
        (ASHA | {"min_steps": 3}, "must be a multiple of base.report_every 2, got 3"),
    ],
)
def test_a_scheduler_that_would_never_compare_is_refused(make_spec, scheduler, message):
    base = make_spec().base | {"report_every": 2}
    with pytest.raises(ValidationError, match=message):
        make_spec(scheduler=scheduler, base=base)


def test_median_may_begin_between_reports(make_spec):
    assert make_spec(scheduler=MEDIAN | {"min_steps": 3}, base=make_spec().base | {"report_every": 2})


@pytest.mark.parametrize("scheduler", [ASHA, MEDIAN])
def test_pruning_by_one_of_two_reported_objectives_is_refused(make_spec, scheduler):
    with pytest.raises(ValidationError, match="would stop some that lead in another objective"):
        make_spec(scheduler=scheduler, objectives=[QUALITY, ROAD])
    assert make_spec(scheduler={"name": "none"}, objectives=[QUALITY, ROAD])
    assert make_spec(scheduler=scheduler, objectives=[ROAD, MACS])


def test_pruning_against_an_objective_is_refused(make_spec):
    with pytest.raises(ValidationError, match="an objective minimizes it"):
        make_spec(scheduler=ASHA, objectives=[QUALITY | {"direction": "minimize"}])


PBT = {"name": "pbt", "interval": 1}


def test_pbt_reads_its_own_settings_only(make_spec):
    assert make_spec(scheduler=PBT | {"quantile": 0.2, "resample": 0.0})
    with pytest.raises(ValidationError, match="has no effect with scheduler pbt"):
        make_spec(scheduler=PBT | {"min_steps": 7})


@pytest.mark.parametrize("interval", [3, 6])
def test_pbt_compares_at_reports_before_the_end(make_spec, interval):
    with pytest.raises(
        ValidationError, match=f"must be a multiple of base.report_every 2 below base.steps 6, got {interval}"
    ):
        make_spec(scheduler=PBT | {"interval": interval}, base=make_spec().base | {"report_every": 2})


def test_pbt_needs_something_that_may_change_on_the_way(make_spec):
    with pytest.raises(ValidationError, match="nothing that is searched may change in the middle of a run"):
        make_spec(scheduler=PBT, search={"optimizer.momentum": {"low": 0.1, "high": 0.9}})


def test_pbt_makes_no_reproducible_sweep_and_takes_no_other_changes(make_spec):
    with pytest.raises(ValidationError, match="depends on which ones came first"):
        make_spec(scheduler=PBT, sampler={"name": "random", "reproducible": True})
    changes = [{"step": 2, "values": {"optimizer.lr": 0.1}}]
    with pytest.raises(ValidationError, match="the scheduler pbt makes the changes"):
        make_spec(scheduler=PBT, base=make_spec().base | {"schedule": {"changes": changes}})
