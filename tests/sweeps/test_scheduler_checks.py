"""Schedulers that a sweep file may not ask for."""

import pytest
from pydantic import ValidationError

from segda.config_problems import LocatedError, problems_of
from sweeps.file.spec import SweepSpec

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
    with pytest.raises(ValidationError, match="Extra inputs") as caught:
        make_spec(scheduler=scheduler)
    (found,) = problems_of(caught.value, SweepSpec, {})
    assert found.location == ("scheduler", key)


@pytest.mark.parametrize(
    ("scheduler", "key", "message"),
    [
        (
            {"name": "ahsa"},
            "name",
            "unknown scheduler 'ahsa' (did you mean 'asha'?); known: asha, dominance, median, mo_asha, none",
        ),
        (
            {"name": ["asha"]},
            "name",
            "unknown scheduler ['asha'] (did you mean 'asha'?); known: asha, dominance, median, mo_asha, none",
        ),
        (ASHA | {"min_step": 7}, "min_step", "unknown key (did you mean 'min_steps'?)"),
    ],
)
def test_an_unknown_scheduler_or_setting_is_told_with_the_nearest_name(make_spec, scheduler, key, message):
    with pytest.raises(ValidationError) as caught:
        make_spec(scheduler=scheduler)
    (found,) = problems_of(caught.value, SweepSpec, {"scheduler": scheduler})
    assert (found.location, found.text) == (("scheduler", key), message)


@pytest.mark.parametrize("scheduler", [ASHA, MEDIAN])
def test_a_metric_that_training_does_not_report_is_refused(make_spec, scheduler):
    with pytest.raises(LocatedError, match="unknown metric 'macs'"):
        make_spec(scheduler=scheduler | {"metric": "macs"}, objectives=[MACS])


@pytest.mark.parametrize("scheduler", [ASHA, MEDIAN])
def test_trials_are_compared_by_the_objective_that_training_decides(make_spec, scheduler):
    spec = make_spec(scheduler=scheduler, objectives=[MACS, ROAD])
    assert spec.scheduler.metric == ROAD["metric"]
    assert SweepSpec.model_validate(spec.canonical()) == spec
    named = make_spec(scheduler=scheduler | {"metric": "source/val/miou"}, objectives=[ROAD])
    assert named.scheduler.metric == "source/val/miou"


def test_the_leader_in_the_objective_is_not_stopped(make_spec):
    spec = make_spec(scheduler=ASHA, objectives=[ROAD])
    curves = {0: {"source/val/miou": 0.52, ROAD["metric"]: 0.1}, 1: {"source/val/miou": 0.53, ROAD["metric"]: 0.2}}
    leader = {"source/val/miou": 0.50, ROAD["metric"]: 0.9}
    rungs = {1: {number: figures[spec.scheduler.metric] for number, figures in curves.items()}}
    assert not spec.build_scheduler().decide(1, leader[spec.scheduler.metric], rungs, number=2).stop


@pytest.mark.parametrize("others", [[], [MACS]])
def test_an_objective_that_is_reported_at_the_end_only_cannot_be_pruned(make_spec, others):
    base = make_spec().base | {"validators": ["im", "dev"]}
    objectives = [{"metric": "target/validator/dev", "direction": "maximize"}, *others]
    assert make_spec(scheduler={"name": "none"}, objectives=objectives, base=base)
    with pytest.raises(
        LocatedError, match="and target/validator/dev is reported at the end only; name another metric"
    ) as caught:
        make_spec(scheduler=ASHA, objectives=objectives, base=base)
    assert caught.value.location == ("scheduler", "metric")
    assert make_spec(scheduler=ASHA | {"metric": "target/validator/im"}, objectives=objectives, base=base)


@pytest.mark.parametrize("scheduler", [ASHA, MEDIAN])
def test_a_validator_that_is_reported_again_and_again_stops_trials(make_spec, scheduler):
    metric = "target/validator/soft_iou"
    assert (
        make_spec(scheduler=scheduler, objectives=[{"metric": metric, "direction": "maximize"}]).scheduler.metric
        == metric
    )


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
    with pytest.raises(LocatedError, match=message):
        make_spec(scheduler=scheduler, base=base)


def test_median_may_begin_between_reports(make_spec):
    assert make_spec(scheduler=MEDIAN | {"min_steps": 3}, base=make_spec().base | {"report_every": 2})


@pytest.mark.parametrize("scheduler", [ASHA, MEDIAN])
def test_pruning_by_one_of_two_reported_objectives_is_refused(make_spec, scheduler):
    with pytest.raises(LocatedError, match="would stop some that lead in another objective"):
        make_spec(scheduler=scheduler, objectives=[QUALITY, ROAD])
    assert make_spec(scheduler={"name": "none"}, objectives=[QUALITY, ROAD])
    assert make_spec(scheduler=scheduler, objectives=[ROAD, MACS])


def test_pruning_against_an_objective_is_refused(make_spec):
    with pytest.raises(LocatedError, match="an objective minimizes it"):
        make_spec(scheduler=ASHA, objectives=[QUALITY | {"direction": "minimize"}])
