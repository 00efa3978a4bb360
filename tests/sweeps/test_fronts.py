"""Early stopping with several objectives: whom `mo_asha` and `dominance` stop, and whom never."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segda.config_problems import LocatedError
from sweeps.schedulers.dominance import Dominance, DominanceConfig
from sweeps.schedulers.fronts import FrontValues, Standing, epsilon_net, front_of
from sweeps.schedulers.mo_asha import MoAsha, MoAshaConfig
from sweeps.schedulers.telling import pruning_rule
from sweeps.trial import TrialKind, TrialRecord, TrialState

MIOU, ENTROPY = "source/val/miou", "target/validator/entropy"
QUALITY = {"metric": MIOU, "direction": "maximize"}
ROAD = {"metric": "source/val/iou/Road", "direction": "maximize"}
MACS = {"metric": "macs", "direction": "minimize"}
coordinates = st.integers(0, 4).map(float)
points = st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=20)


def mo_asha(**changes):
    return MoAsha(MoAshaConfig(min_steps=1, **changes), steps=8, report_every=1)


def dominance(**changes):
    return Dominance(DominanceConfig(**{"min_steps": 1, "exempt": 0.0} | changes), steps=8, report_every=1)


def dominates(first, second):
    return all(a >= b for a, b in zip(first, second, strict=True)) and first != second


def brute_force_fronts(table):
    left, fronts, number = set(range(len(table))), {}, 0
    while left:
        front = {i for i in left if not any(dominates(table[j], table[i]) for j in left)}
        fronts |= dict.fromkeys(front, number)
        left -= front
        number += 1
    return [fronts[index] for index in range(len(table))]


@given(points)
def test_fronts_are_those_of_the_definition(table):
    assert front_of(table) == brute_force_fronts(table)


def test_not_a_number_is_worst():
    assert front_of([(math.nan, 1.0), (0.0, 1.0), (-math.inf, 1.0)]) == [1, 0, 1]


def test_a_net_begins_with_the_best_in_the_first_coordinate_and_goes_to_the_farthest():
    # In [0, 1]: 2 is the best, 0 the other end, then 3 is .7 and 1 is .4 away from the nearest of these two.
    assert epsilon_net([(0.0, 10.0), (0.7, 3.0), (1.0, 0.0), (0.5, 5.0)]) == [2, 0, 3, 1]


@given(points, st.floats(0.01, 1000))
def test_a_net_does_not_depend_on_units(table, unit):
    scale = 2.0 ** round(math.log2(unit))  # without rounding
    assert epsilon_net([(quality, cost * scale) for quality, cost in table]) == epsilon_net(table)


def test_a_net_holds_each_point_once_whatever_is_equal_or_infinite():
    assert epsilon_net([(1.0, 1.0)] * 3) == [0, 1, 2]
    assert sorted(epsilon_net([(-math.inf, 1.0), (0.5, 2.0), (0.7, 1.0)])) == [0, 1, 2]
    assert epsilon_net([(-math.inf,), (-math.inf,)]) == [0, 1]


standings = st.lists(st.tuples(coordinates, coordinates, coordinates), min_size=1, max_size=30)


def stand(quality, cost, end=None):
    return Standing(costs=(-cost,), values=(quality,), final=None if end is None else (end,))


RULES = [mo_asha(reduction_factor=2), mo_asha(reduction_factor=4), dominance(confidence=0.5), dominance()]


@pytest.mark.parametrize("rule", RULES, ids=["mo_asha 2", "mo_asha 4", "dominance .5", "dominance .9"])
@given(others=standings, data=st.data())
def test_a_trial_that_dominates_all_is_never_stopped(rule, others, data):
    gain = data.draw(coordinates)
    rivals = {number: stand(quality, cost, quality + gain) for number, (quality, cost, _) in enumerate(others)}
    best, cheapest = max(item[0] for item in others), min(item[1] for item in others)
    own = stand(best + data.draw(st.sampled_from([0.0, 1.0])), cheapest - 1)
    assert not rule.compare_fronts(1, own, rivals).stop
    assert not rule.before_training(own.costs, rivals).stop


@given(standings, st.sampled_from([2, 3, 5]))
def test_no_member_of_a_rungs_first_front_is_stopped_by_mo_asha(others, factor):
    *rest, own = [stand(quality, cost) for quality, cost, _ in others]
    table = [(*item.values, *item.costs) for item in (*rest, own)]
    stopped = mo_asha(reduction_factor=factor).compare_fronts(1, own, dict(enumerate(rest))).stop
    assert not (stopped and brute_force_fronts(table)[-1] == 0)


def test_mo_asha_by_hand():
    rule = mo_asha(reduction_factor=2)
    first, behind = {0: stand(0.9, 9.0), 1: stand(0.5, 1.0)}, {4: stand(0.3, 2.0), 5: stand(0.2, 2.0)}
    good, cheap = stand(0.8, 9.0), stand(0.4, 1.0)  # the second front; the net begins with the better one
    assert not rule.compare_fronts(1, good, first | behind | {3: cheap}).stop
    decision = rule.compare_fronts(1, cheap, first | behind | {3: good})
    assert decision.stop
    assert decision.reason == "it is in front 2 of 6 trials at step 1, behind 3 others; 3 may go on"


def test_mo_asha_lets_everybody_go_on_while_fewer_than_the_factor_have_come():
    rule = mo_asha(reduction_factor=3)
    assert not rule.compare_fronts(1, stand(0.1, 9.0), {0: stand(0.9, 1.0)}).stop
    assert rule.compare_fronts(1, stand(0.1, 9.0), {0: stand(0.9, 1.0), 1: stand(0.8, 1.0)}).stop


def trained(count, *, quality=0.5, cost=1.0, gain=0.1):
    """So many trials that trained in full, the i-th of which gained `gain * (i + 1) / count`."""
    return {number: stand(quality, cost, quality + gain * (number + 1) / count) for number in range(count)}


def test_dominance_needs_as_many_trained_trials_as_its_confidence():
    for confidence, needed in ((0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19)):
        rule = dominance(confidence=confidence)
        assert not rule.compare_fronts(1, stand(0.0, 2.0), trained(needed - 1)).stop
        assert rule.compare_fronts(1, stand(0.0, 2.0), trained(needed)).stop


def test_dominance_by_hand():
    rule = dominance(confidence=0.8)
    # Gains .02 ... .1 of nine; the eighth smallest is the quantile, so .0889; the best ended at .6.
    others = trained(9)
    bound = 0.5 + 0.1 * 8 / 9
    assert not rule.compare_fronts(1, stand(0.6 - (bound - 0.5) + 0.001, 2.0), others).stop
    decision = rule.compare_fronts(1, stand(0.6 - (bound - 0.5) - 0.001, 2.0), others)
    assert decision.stop
    assert decision.reason == (
        "trial 8 costs no more and ended at 0.6; this one is at 0.5101 at step 1, from where 9 trained trials gained at most "
        "0.08889 (80% confidence)"
    )


def test_what_can_become_as_good_at_the_same_cost_goes_on():
    equal = {number: stand(0.1, 2.0, 0.1 + 0.2) for number in range(9)}
    assert not dominance(confidence=0.5).compare_fronts(1, stand(0.1, 2.0), equal).stop
    assert dominance(confidence=0.5).compare_fronts(1, stand(0.1 - 1e-6, 2.0), equal).stop
    assert dominance(confidence=0.5).compare_fronts(1, stand(0.1, 2.1), equal).stop


def test_what_the_same_cost_has_gained_can_be_gained_again():
    others = trained(9) | {9: stand(0.2, 2.0, 0.5)}  # a dearer network, which learns longer
    assert dominance(confidence=0.5).compare_fronts(1, stand(0.35, 2.1), others).stop
    assert not dominance(confidence=0.5).compare_fronts(1, stand(0.35, 2.0), others).stop


def test_dominance_never_stops_a_trial_for_one_that_costs_more():
    assert dominance(confidence=0.5).compare_fronts(1, stand(0.0, 2.0), trained(9, cost=2.0)).stop
    assert not dominance(confidence=0.5).compare_fronts(1, stand(0.0, 2.0), trained(9, cost=2.1)).stop


def test_trials_that_still_train_count_neither_as_better_nor_as_gains():
    others = {number: stand(0.9, 1.0) for number in range(30)}
    assert not dominance().compare_fronts(1, stand(0.0, 2.0), others).stop


def test_an_architecture_that_was_tried_enough_is_not_trained_again():
    rule = dominance()
    dear = {10 + number: stand(0.1, 5.0, 0.3 + 0.01 * number) for number in range(9)}
    assert not rule.before_training((-5.0,), dear).stop  # nobody is cheaper
    assert not rule.before_training((-5.0,), {0: stand(0.3, 1.0, 0.37)} | dear).stop
    decision = rule.before_training((-5.0,), {0: stand(0.3, 1.0, 0.38)} | dear)
    assert decision.stop
    assert decision.reason == (
        "dominated before training: trial 0 costs less and ended at 0.38; of this cost 9 trained trials reached at most 0.38 "
        "(90% confidence)"
    )
    assert not rule.before_training((-5.0,), {0: stand(0.3, 1.0, 0.9)} | dict(itertools.islice(dear.items(), 8))).stop
    assert not rule.before_training((-1.0,), {0: stand(0.3, 5.0, 0.9)} | dear).stop


def test_a_part_of_the_trials_is_exempt_and_the_same_part_after_a_restart():
    first, second = dominance(exempt=0.1), dominance(exempt=0.1)
    exempt = [number for number in range(2000) if first.is_exempt(number)]
    assert exempt == [number for number in range(2000) if second.is_exempt(number)]
    assert 150 < len(exempt) < 250
    assert not any(dominance(exempt=0.0).is_exempt(number) for number in range(100))


def test_a_stop_by_dominance_is_wrong_at_most_as_often_as_it_says():
    """Exchangeable gains: how often the bound that a stop rests on would have been passed."""
    generator = random.Random(0)
    rule = dominance(confidence=0.9)
    wrong = trials = 0
    for _ in range(3000):
        gains = [generator.expovariate(10) for _ in range(13)]
        others = {number: stand(0.3, 1.0, 0.3 + gain) for number, gain in enumerate(gains[:-1])}
        # A rival that cannot be passed but by a gain beyond the quantile.
        level = sorted(gains[:-1])[math.ceil(13 * 0.9) - 1]
        others[99] = Standing((-1.0,), (0.3,), (0.3 + level,))
        del others[gains.index(level)]
        if rule.compare_fronts(1, stand(0.3, 2.0), others).stop:
            trials += 1
            wrong += gains[-1] > level
    assert trials == 3000
    assert wrong / trials <= 0.1 + 3 * math.sqrt(0.09 / trials)
    assert wrong > 0


def test_with_two_metrics_both_bounds_hold_together():
    rule = dominance(confidence=0.9, metrics={MIOU: "maximize", ENTROPY: "maximize"})
    others = {number: Standing((), (0.5, 0.5), (0.6, 0.6)) for number in range(18)}
    assert not rule.compare_fronts(1, Standing((), (0.1, 0.1)), others).stop  # .95 each needs nineteen
    others[18] = others[0]
    assert rule.compare_fronts(1, Standing((), (0.1, 0.1)), others).stop
    assert not rule.compare_fronts(1, Standing((), (0.55, 0.1)), others).stop


def record(number, *, state=TrialState.RUNNING, kind=TrialKind.SEARCH, **profile):
    return TrialRecord(
        sweep="demo",
        number=number,
        key=f"{number}",
        kind=kind,
        params={},
        config={},
        seed=0,
        state=state,
        profile=profile,
    )


def test_minimized_metrics_and_costs_are_turned_round():
    rule = mo_asha(metrics={MIOU: "maximize", "train/loss_seg": "minimize"})
    values = FrontValues(rule, costs={"macs": "minimize", "fps": "maximize"}, selection="ensv")
    values.add(0, 1, {MIOU: 0.4, "train/loss_seg": 2.0, "other": 1.0})
    values.add(0, 1, {MIOU: 0.9, "train/loss_seg": 0.0})  # trained again after a loss; the first report counts
    values.add(0, 2, {MIOU: 0.5, "train/loss_seg": 1.0})  # no rung
    values.add(0, 8, {MIOU: 0.6, "train/loss_seg": 0.5})
    ended = record(0, state=TrialState.COMPLETE, macs=3.0, fps=20.0)
    assert values.standings(1, [ended]) == {0: Standing((-3.0, 20.0), (0.4, -2.0), (0.6, -0.5))}
    assert values.standings(0, [ended]) == {0: Standing((-3.0, 20.0), (), (0.6, -0.5))}
    assert values.standings(3, [ended]) == {}
    assert values.standings(1, [record(0, macs=3.0, fps=20.0)])[0].final is None  # it may yet fail
    assert values.standings(1, [record(0, state=TrialState.COMPLETE, macs=3.0)]) == {}  # nobody knows what it costs


def test_target_labels_stop_nobody_unless_they_may_steer():
    metric = "oracle/target/miou"
    rule = mo_asha(metrics={metric: "maximize"})
    assert FrontValues(rule, costs={}, selection="ensv").values({metric: 0.5}) is None
    assert FrontValues(rule, costs={}, selection="oracle").values({metric: 0.5}) == (0.5,)


def test_not_a_number_stops_at_any_step_and_an_unknown_cost_stops_nobody():
    values = FrontValues(mo_asha(reduction_factor=2), costs={"macs": "minimize"}, selection="ensv")
    assert values.decide(record(0, macs=1.0), 2, {MIOU: math.nan}, []).stop
    values.add(1, 1, {MIOU: 0.9})
    rival = record(1, macs=1.0)
    assert values.decide(record(0, macs=1.0), 1, {MIOU: 0.1}, [rival]).stop
    assert not values.decide(record(0), 1, {MIOU: 0.1}, [rival]).stop
    assert not values.decide(record(0, macs=1.0), 1, {MIOU: 0.1}, [record(1)]).stop


# In a sweep file


@pytest.mark.parametrize("name", ["mo_asha", "dominance"])
def test_what_is_compared_are_the_objectives_that_training_decides(make_spec, name):
    spec = make_spec(scheduler={"name": name, "min_steps": 1}, objectives=[QUALITY, MACS, ROAD])
    assert spec.scheduler.metrics == {MIOU: "maximize", ROAD["metric"]: "maximize"}
    assert type(spec).model_validate(spec.canonical()) == spec
    minimized = {"metric": MIOU, "direction": "minimize"}
    assert make_spec(scheduler={"name": name, "min_steps": 1}, objectives=[minimized]).scheduler.metrics == {
        MIOU: "minimize"
    }


@pytest.mark.parametrize("name", ["mo_asha", "dominance"])
@pytest.mark.parametrize(
    ("changes", "location", "message"),
    [
        ({"metrics": {"macs": "maximize"}}, ("scheduler", "metrics", "macs"), "unknown metric 'macs'"),
        ({"metrics": {MIOU: "minimize"}}, ("scheduler", "metrics", MIOU), "the objective says maximize, got minimize"),
        (
            {"metrics": {"oracle/target/miou": "maximize"}},
            ("scheduler", "metrics", "oracle/target/miou"),
            "target labels",
        ),
        ({"min_steps": 6}, ("scheduler", "min_steps"), "must be smaller than base.steps 6, got 6"),
    ],
)
def test_what_cannot_be_compared_is_refused_where_it_stands(make_spec, name, changes, location, message):
    with pytest.raises(LocatedError, match=message) as caught:
        make_spec(scheduler={"name": name, "min_steps": 1} | changes, objectives=[QUALITY, MACS])
    assert caught.value.location == location


def test_any_label_free_metric_on_the_way_may_stop_trials_and_it_is_said_whom_that_may_hit(make_spec):
    def rule(**changes):
        spec = make_spec(**changes)
        return pruning_rule(spec.build_scheduler(), spec.costs, objectives=spec.trained_objectives)

    base = make_spec().base | {"validators": ["im", "dev"]}
    late = {"metric": "target/validator/dev", "direction": "maximize"}
    named = {"name": "asha", "min_steps": 1, "metric": "target/validator/im"}
    assert rule(base=base, objectives=[late], scheduler=named) == (
        "pruning: asha by target/validator/im alone; a trial that leads in target/validator/dev may be stopped"
    )
    assert rule(objectives=[QUALITY, MACS], scheduler={"name": "dominance", "min_steps": 1}) == (
        "pruning: dominance by source/val/miou and macs together; a trial stops only where one that trained in full costs no more "
        "and is better than this one can become"
    )
    fronts = {"name": "mo_asha", "min_steps": 1, "metrics": {MIOU: "maximize"}}
    assert rule(objectives=[QUALITY, ROAD], scheduler=fronts) == (
        "pruning: mo_asha by source/val/miou together; no member of its rung's first front stops; a trial that leads in "
        "source/val/iou/Road may be stopped"
    )
