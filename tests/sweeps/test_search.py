import itertools
import json
import math
from dataclasses import replace

import fakes
import pytest

from segda.config import TrainConfig
from segda.errors import ConfigError
from sweeps.failures import POLICIES, FailureClass
from sweeps.file.default_point import default_point
from sweeps.file.space import identity
from sweeps.search.proposer import MIN_TRIALS_FOR_IMPORTANCE, Search, objective_value
from sweeps.trial import TrialKind, TrialRecord, TrialState

MIOU = "source/val/miou"
CONDITIONAL = {
    "method.name": ["source_only", "adversarial"],
    "method.discriminator": {"choices": ["fcd", "tfd"], "when": {"method.name": "adversarial"}},
    "method.lambda_adv": {"low": 1e-4, "high": 1e-1, "log": True, "when": {"method.name": "adversarial"}},
    "optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "schedule.warmup_steps": {"low": 0, "high": 4},
}
PLANE = {"optimizer.momentum": {"low": 0.0, "high": 0.9}, "schedule.power": {"low": 0.1, "high": 1.0}}
FINITE = {"optimizer.name": ["sgd", "adam"], "batch_size": [2, 4, 8]}
PARETO = [{"metric": MIOU, "direction": "maximize"}, {"metric": "macs", "direction": "minimize"}]
TPE = {"name": "tpe", "startup_trials": 4, "default": False}


@pytest.fixture
def begin(make_spec):
    """Return a sweep and its space."""

    def begin(search, **changes):
        spec = make_spec(**{"search": search, "sampler": TPE} | changes)
        return spec, spec.space

    return begin


def trial(number, params, state=TrialState.COMPLETE, *, miou=None, macs=1e9, **changes):
    metrics = {} if miou is None else {MIOU: miou}
    record = TrialRecord("demo", number, "key", TrialKind.SEARCH, params, {}, 0, state=state, metrics=metrics)
    return replace(record, profile={"macs": macs, "fps": 1e11 / macs}, **changes)


def outcome(number, params):
    """Make up how a trial ended: every way of ending comes up."""
    miou = 0.5 - 0.1 * abs(math.log10(params["optimizer.lr"] / 0.01))
    macs = 1e9 * (1 + params["schedule.warmup_steps"])
    match number % 6:
        case 2:
            return trial(number, params, TrialState.PRUNED, miou=miou / 2, macs=macs, step=1)
        case 4:
            return trial(number, params, TrialState.FAILED, failure=FailureClass.OUT_OF_MEMORY)
        case 5:
            return trial(number, params, TrialState.INFEASIBLE, macs=9e9)
        case _:
            return trial(number, params, miou=miou, macs=macs)


def as_stored(records):
    """Return records as a database might: in another order, keys of the parameters too."""
    return [replace(item, params=dict(sorted(json.loads(json.dumps(item.params)).items()))) for item in records][::-1]


@pytest.mark.parametrize("objectives", [PARETO[:1], PARETO], ids=["one objective", "two objectives"])
@pytest.mark.parametrize("sampler", [TPE, {"name": "random"}], ids=["tpe", "random"])
def test_a_restarted_search_proposes_what_the_interrupted_one_would_have(begin, objectives, sampler):
    spec, space = begin(CONDITIONAL, objectives=objectives, sampler=sampler, constraints=["macs <= 4e9"])
    search, records = Search(spec, space, []), {}
    for number in range(24):
        restarted = Search(spec, space, as_stored(records.values()))
        params = search.ask(number)
        assert restarted.ask(number) == params
        assert space.contains(params)
        records[number] = trial(number, params, TrialState.RUNNING)
        # Two run at a time, and the later one ends first every now and then.
        for ended in {0: [number], 1: [], 2: [number, number - 1]}[number % 3]:
            records[ended] = outcome(ended, records[ended].params)
            search.tell(records[ended])


def test_the_order_in_which_trials_ended_does_not_matter(begin):
    spec, space = begin(CONDITIONAL)
    search = Search(spec, space, [])
    records = [outcome(number, search.ask(number)) for number in range(12)]
    forward, backward = Search(spec, space, []), Search(spec, space, [])
    for record in records:
        forward.tell(record)
    for record in reversed(records):
        backward.tell(record)
    assert forward.ask(12) == backward.ask(12)


def test_what_is_known_of_other_trials_does_matter(begin):
    spec, space = begin(PLANE)
    search = Search(spec, space, [])
    params = [search.ask(number) for number in range(8)]
    good = [trial(number, item, miou=item["optimizer.momentum"]) for number, item in enumerate(params)]
    bad = [trial(number, item, miou=-item["optimizer.momentum"]) for number, item in enumerate(params)]
    proposals = [[Search(spec, space, known).ask(number) for number in range(8, 14)] for known in (good, bad)]
    assert proposals[0] != proposals[1]


def test_the_seed_of_the_sweep_and_the_number_of_the_trial_decide(begin):
    spec, space = begin(PLANE)
    other, _ = begin(PLANE, seed=1)
    first = Search(spec, space, []).ask(0)
    assert Search(spec, space, []).ask(0) == first
    assert Search(spec, space, []).ask(1) != first
    assert Search(other, space, []).ask(0) != first


def test_only_parameters_that_exist_are_proposed(begin):
    spec, space = begin(CONDITIONAL)
    search = Search(spec, space, [])
    seen = set()
    for number in range(30):
        params = search.ask(number)
        search.tell(trial(number, params, miou=0.5))
        seen.add(params["method.name"])
        assert ("method.lambda_adv" in params) == (params["method.name"] == "adversarial")
        spec.train_config(params, seed=0)
    assert seen == {"source_only", "adversarial"}


def test_types_and_ranges_are_kept(begin):
    spec, space = begin(
        {
            "schedule.warmup_steps": {"low": 1, "high": 5, "step": 2},
            "optimizer.momentum": {"low": 0.5, "high": 0.9, "step": 0.2},
            "batch_size": {"low": 2, "high": 64, "log": True},
        }
    )
    search = Search(spec, space, [])
    for number in range(12):
        params = search.ask(number)
        search.tell(trial(number, params, miou=0.5))
        assert type(params["schedule.warmup_steps"]) is int
        assert params["schedule.warmup_steps"] in (1, 3, 5)
        assert params["optimizer.momentum"] == pytest.approx(0.5, abs=1e-9) or params["optimizer.momentum"] > 0.69
        assert 2 <= params["batch_size"] <= 64


def run_toy(spec, space, objective, *, trials=60):
    """Search one at a time; `objective` returns a score, or None where a trial crashes."""
    search, records = Search(spec, space, []), []
    for number in range(trials):
        params = search.ask(number)
        score = objective(params)
        if score is None:
            record = trial(number, params, TrialState.FAILED, failure=FailureClass.OUT_OF_MEMORY)
        else:
            record = trial(number, params, miou=score)
        search.tell(record)
        records.append(record)
    return records


def test_the_search_learns_to_stay_away_from_where_trials_crash(begin):
    # Where it does not crash all is alike, so there is nothing to learn but the crashes.
    def objective(params):
        return None if params["optimizer.momentum"] > 0.45 else 0.5

    def crashes(sampler):
        runs = [run_toy(*begin(PLANE, seed=seed, sampler=sampler), objective, trials=40) for seed in range(3)]
        return sum(record.state is TrialState.FAILED for run in runs for record in run)

    assert crashes(TPE) < 0.7 * crashes({"name": "random"})


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_search_moves_towards_the_better_end(begin, direction):
    spec, space = begin(PLANE, objectives=[{"metric": MIOU, "direction": direction}])
    records = run_toy(spec, space, lambda params: params["optimizer.momentum"], trials=40)
    late = sum(record.params["optimizer.momentum"] for record in records[20:]) / 20
    assert late > 0.65 if direction == "maximize" else late < 0.25


def test_a_search_for_two_objectives_covers_both_ends_of_the_front(begin):
    spec, space = begin({"optimizer.momentum": {"low": 0.0, "high": 0.9}}, objectives=PARETO)
    search, values = Search(spec, space, []), []
    for number in range(30):
        params = search.ask(number)
        value = params["optimizer.momentum"]
        values.append(value)
        search.tell(trial(number, params, miou=value, macs=1e9 * (1 + value)))
    assert min(values) < 0.1
    assert max(values) > 0.8


def test_an_unwanted_architecture_becomes_rare(begin):
    """The better score lies where the constraint is broken."""
    spec, space = begin(PLANE, constraints=["macs <= 2e9"])
    search, broken = Search(spec, space, []), []
    for number in range(40):
        params = search.ask(number)
        macs = 1e9 * (1 + 2 * params["optimizer.momentum"])
        state = TrialState.INFEASIBLE if macs > 2e9 else TrialState.COMPLETE
        broken.append(state is TrialState.INFEASIBLE)
        search.tell(trial(number, params, state, miou=params["optimizer.momentum"], macs=macs))
    assert sum(broken[20:]) < 6


def told(search, number):
    return search._trials[number].trial


def test_how_a_trial_ended_is_told_to_the_sampler(begin):
    spec, space = begin(PLANE, constraints=["fps >= 50"])
    search = Search(spec, space, [])
    params = search.ask(0)
    search.tell(trial(0, params, miou=0.5))
    assert (told(search, 0).state.name, told(search, 0).values) == ("COMPLETE", [0.5])
    assert told(search, 0).constraints == {"failed": 0.0, "fps >= 50": -1.0}
    search.tell(trial(0, params, TrialState.PRUNED, miou=0.25, step=3))
    assert (told(search, 0).state.name, told(search, 0).intermediate_values) == ("PRUNED", {3: 0.25})
    search.tell(trial(0, params, TrialState.FAILED, failure=FailureClass.DIVERGED))
    assert (told(search, 0).state.name, told(search, 0).constraints["failed"]) == ("PRUNED", 1.0)
    search.tell(trial(0, params, TrialState.INFEASIBLE, macs=4e9))
    assert (told(search, 0).state.name, told(search, 0).constraints) == ("PRUNED", {"failed": 0.0, "fps >= 50": 0.5})
    search.tell(trial(0, params, TrialState.INFEASIBLE, macs=math.nan))
    assert told(search, 0).constraints == {"failed": 1.0}
    for state in (TrialState.QUEUED, TrialState.RUNNING):
        search.tell(trial(0, params, state))
        assert told(search, 0).state.name == "RUNNING"


SURE = "target/validator/entropy"


@pytest.mark.parametrize("sampler", [TPE, {"name": "nsga2"}], ids=["tpe", "nsga2"])
def test_a_search_by_a_validator_keeps_away_from_networks_that_have_collapsed(begin, sampler):
    """The surer the better the validator finds it; beyond half of the range the network is sure of one class everywhere."""
    spec, space = begin(
        PLANE,
        objectives=[{"metric": SURE, "direction": "maximize"}],
        sampler=sampler,
        budget={"trials": 60, "concurrency": 1},
        selection="entropy",
    )
    search, collapsed = Search(spec, space, []), []
    for number in range(60):
        params = search.ask(number)
        momentum = params["optimizer.momentum"]
        collapsed.append(momentum > 0.45)
        figures = {MIOU: 0.5, SURE: momentum - 1, "target/largest_class_share": 0.99 if momentum > 0.45 else 0.6}
        search.tell(trial(number, params, metrics=figures))
        assert told(search, number).constraints == {"failed": 0.0, "collapsed": float(momentum > 0.45)}
    assert sum(collapsed[30:]) < 13  # 15 would be chance, and a search that runs after them has 22 or more


@pytest.mark.parametrize("miou", [math.nan, None])
def test_a_complete_trial_without_its_objective_counts_as_failed(begin, miou):
    spec, space = begin(PLANE)
    search = Search(spec, space, [])
    search.tell(trial(0, search.ask(0), miou=miou))
    assert (told(search, 0).state.name, told(search, 0).constraints) == ("PRUNED", {"failed": 1.0})


def test_a_trial_lost_with_its_worker_is_not_held_against_its_configuration(begin):
    spec, space = begin(PLANE)
    search = Search(spec, space, [])
    params = search.ask(0)
    search.tell(trial(0, params, TrialState.FAILED, failure=FailureClass.WORKER_LOST))
    assert told(search, 0) is None
    assert search.ask(1) == Search(spec, space, []).ask(1)


@pytest.mark.parametrize("kind", [TrialKind.REFERENCE, TrialKind.REPLICATE])
def test_references_and_replicates_are_not_told(begin, kind):
    spec, space = begin(PLANE)
    search = Search(spec, space, [trial(0, {"method.name": "target_only"}, miou=0.9, kind=kind)])
    assert search.ask(1) == Search(spec, space, []).ask(1)


def test_a_running_trial_keeps_others_away(begin):
    spec, space = begin(PLANE)
    search = Search(spec, space, [])
    records = [
        trial(number, params, miou=-abs(params["optimizer.momentum"] - 0.5))
        for number, params in enumerate(search.ask(number) for number in range(10))
    ]
    alone, beside = Search(spec, space, records), Search(spec, space, records)
    beside.ask(10)
    assert alone.ask(11) != beside.ask(11)


def test_trials_of_a_changed_space_are_refused_with_two_ways_out(begin):
    spec, space = begin(PLANE)
    record = trial(3, {"optimizer.momentum": 0.95, "schedule.power": 0.5}, miou=0.1)
    with pytest.raises(ConfigError, match=r"trial 3 of sweep 'demo' does not fit the search space; .* undo that, or"):
        Search(spec, space, [record])


def test_a_finite_space_is_searched_without_repetition(begin):
    spec, space = begin(FINITE, objectives=PARETO[:1], sampler=TPE)
    search, seen = Search(spec, space, []), []
    for number in range(6):
        assert not search.is_exhausted
        params = search.ask(number)
        assert params not in seen
        seen.append(params)
        search.tell(trial(number, params, miou=1.0 if params == seen[0] else 0.0))
    assert search.is_exhausted
    assert search.ask(6) in seen


def test_a_space_with_real_numbers_is_never_exhausted(begin):
    spec, space = begin(PLANE)
    assert not Search(spec, space, []).is_exhausted


@pytest.mark.parametrize("objectives", [PARETO[:1], PARETO], ids=["one objective", "two objectives"])
def test_the_parameter_that_decides_is_the_most_important(begin, objectives):
    spec, space = begin(CONDITIONAL, objectives=objectives, sampler={"name": "random"})
    search = Search(spec, space, [])
    for number in range(40):
        params = search.ask(number)
        search.tell(trial(number, params, miou=-abs(math.log10(params["optimizer.lr"] / 0.03))))
    shares = search.importance()
    assert next(iter(shares)) == "optimizer.lr"
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares == search.importance()


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_importance_is_about_the_better_end(begin, direction):
    """Momentum makes the few best trials, power the few worst ones."""
    spec, space = begin(PLANE, objectives=[{"metric": MIOU, "direction": direction}], sampler={"name": "random"})
    sign = 1.0 if direction == "maximize" else -1.0
    search = Search(spec, space, [])
    for number in range(80):
        params = search.ask(number)
        best, worst = params["optimizer.momentum"] > 0.8, params["schedule.power"] > 0.9
        noise = (number % 7) / 100
        search.tell(trial(number, params, miou=sign * (noise + (1.0 if best else 0.0) - (3.0 if worst else 0.0))))
    assert next(iter(search.importance())) == "optimizer.momentum"


def test_too_few_or_equal_trials_have_no_importance(begin):
    spec, space = begin(PLANE)
    search = Search(spec, space, [])
    for number in range(MIN_TRIALS_FOR_IMPORTANCE):
        assert search.importance() == {}
        search.tell(trial(number, search.ask(number), miou=0.5))
    assert search.importance() == {}
    search.tell(trial(99, search.ask(99), miou=0.6))
    assert search.importance() != {}


def test_an_objective_is_read_from_reports_or_from_the_profile():
    record = trial(0, {}, miou=0.5, macs=2e9)
    assert objective_value(record, MIOU) == 0.5
    assert objective_value(record, "macs") == 2e9
    assert objective_value(record, "fps") == 50.0
    assert objective_value(record, "latency_ms") is None


# Samplers by name


@pytest.mark.parametrize("sampler", ["gp", "nsga2", "qmc"])
@pytest.mark.parametrize("objectives", [PARETO[:1], PARETO], ids=["one objective", "two objectives"])
def test_every_sampler_proposes_after_a_restart_what_it_would_have(begin, objectives, sampler):
    # A Gaussian process takes its time for each.
    settings, trials, checked = ({"startup_trials": 3}, 6, (5,)) if sampler == "gp" else ({}, 20, (6, 19))
    spec, space = begin(
        CONDITIONAL, objectives=objectives, sampler={"name": sampler} | settings, constraints=["macs <= 4e9"]
    )
    search, records = Search(spec, space, []), {}
    for number in range(trials):
        params = search.ask(number)
        assert space.contains(params)
        if number in checked:
            assert Search(spec, space, as_stored(records.values())).ask(number) == params
        records[number] = outcome(number, params)
        search.tell(records[number])


def test_a_grid_goes_through_every_combination_in_an_order_that_depends_on_the_seed(begin):
    def order(seed):
        spec, space = begin(FINITE, sampler={"name": "grid"}, seed=seed)
        search, seen = Search(spec, space, []), []
        for number in range(6):
            assert not search.is_exhausted
            seen.append(search.ask(number))
            search.tell(trial(number, seen[-1], miou=0.5))
        assert search.is_exhausted
        assert {identity(item) for item in seen} == {identity(item) for item in space.combinations()}
        return seen

    assert order(0) == order(0)
    assert any(order(0) != order(seed) for seed in (1, 2))


def test_a_grid_does_not_come_back_to_a_combination_that_was_lost(begin):
    spec, space = begin(FINITE, sampler={"name": "grid"})
    search, seen = Search(spec, space, []), []
    for number in range(6):
        params = search.ask(number)
        search.tell(trial(number, params, TrialState.FAILED, failure=FailureClass.NODE_LOST))
        seen.append(params)
    assert len({identity(params) for params in seen}) == 6
    assert search.is_exhausted


def conditional_score(params):
    """Best at adversarial, tfd, a weight of 0.001 and a rate of 0.01: 1; the other branch reaches 0.8."""
    score = 0.8 - 0.2 * abs(math.log10(params["optimizer.lr"]) + 2)
    if params["method.name"] == "adversarial":
        score += 0.2 - 0.2 * abs(math.log10(params["method.lambda_adv"]) + 3)
        score -= 0.1 if params["method.discriminator"] == "fcd" else 0.0
    return score


@pytest.mark.parametrize(
    ("sampler", "trials", "seeds"), [({"name": "gp", "startup_trials": 10}, 18, 1), ({"name": "nsga2"}, 60, 2)]
)
def test_parameters_that_do_not_always_exist_are_learned_too(begin, sampler, trials, seeds):
    """Drawn at random, the weight would be within a factor of 3 of its best in 1 of 3 trials."""
    found = []
    for seed in range(seeds):
        spec, space = begin(CONDITIONAL, sampler=sampler, seed=seed, budget={"trials": trials})
        records = run_toy(spec, space, conditional_score, trials=trials)
        late = [record.params for record in records[-trials // 3 :] if "method.lambda_adv" in record.params]
        found += [abs(math.log10(params["method.lambda_adv"]) + 3) < 0.5 for params in late]
    assert len(found) >= trials // 6
    assert sum(found) > 0.5 * len(found)


def front_of(records):
    """Return the volume between the found front and the corner of no score at a cost of 2, by strips."""
    pairs = sorted((record.profile["macs"] / 1e9, record.metrics[MIOU]) for record in records)
    volume, best = 0.0, 0.0
    for (cost, score), (following, _) in itertools.pairwise([*pairs, (2.0, 0.0)]):
        best = max(best, score)
        volume += best * (max(0.0, min(following, 2.0) - min(cost, 2.0)))
    return volume


def test_generations_of_nsga2_evolve_although_the_study_is_built_anew(begin):
    """More cost buys more score, and all the rest must be right; random search rarely has all of it right."""

    def run(sampler, seed):
        spec, space = begin(
            {
                "optimizer.momentum": {"low": 0.0, "high": 0.9},
                "schedule.power": {"low": 0.1, "high": 1.0},
                "optimizer.weight_decay": {"low": 0.0, "high": 1.0},
                "optimizer.lr": {"low": 0.01, "high": 1.0},
            },
            objectives=PARETO,
            sampler={"name": sampler},
            budget={"trials": 120},
            seed=seed,
        )
        search, records = Search(spec, space, []), []
        for number in range(120):
            params = search.ask(number)
            waste = abs(params["schedule.power"] - 0.5) + params["optimizer.weight_decay"] + params["optimizer.lr"]
            spent = params["optimizer.momentum"]
            records.append(trial(number, params, miou=spent**0.5, macs=1e9 * (spent + waste)))
            search.tell(records[-1])
        return records

    evolved, blind = ([run(sampler, seed) for seed in range(2)] for sampler in ("nsga2", "random"))
    assert min(front_of(records) for records in evolved) > max(front_of(records) for records in blind)
    # Later generations are better than the first one, which is random.
    assert all(front_of(records[-24:]) > front_of(records[:24]) for records in evolved)


@pytest.mark.parametrize("sampler", ["gp", "nsga2"])
def test_a_sampler_that_ignores_stopped_trials_still_keeps_away_from_crashes(begin, sampler):
    """Momentum is better the larger it is, until trials crash at once."""
    settings, trials = ({"startup_trials": 5}, 12) if sampler == "gp" else ({}, 60)
    spec, space = begin(PLANE, sampler={"name": sampler} | settings, budget={"trials": trials}, seed=1)

    def objective(params):
        return None if params["optimizer.momentum"] > 0.45 else params["optimizer.momentum"]

    late = run_toy(spec, space, objective, trials=trials)[-trials // 2 :]
    # Half of the space crashes, and the best points lie at its edge.
    assert sum(record.state is TrialState.FAILED for record in late) < 0.4 * len(late)
    assert max(record.params["optimizer.momentum"] for record in late if record.state is TrialState.COMPLETE) > 0.35


# Points to begin with


def test_first_points_come_first_and_in_order_and_only_once(begin):
    points = [
        {"optimizer.momentum": 0.5, "schedule.power": 0.25},
        {"optimizer.momentum": 0.125, "schedule.power": 1.0},
    ]
    spec, space = begin(PLANE, sampler=TPE | {"first": points})
    search, records = Search(spec, space, []), [trial(0, {"method.name": "target_only"}, kind=TrialKind.REFERENCE)]
    # A reference has a number too, and is no proposal.
    for number in (1, 2, 3):
        restarted = Search(spec, space, records)
        params = search.ask(number)
        assert restarted.ask(number) == params
        records.append(trial(number, params, miou=0.5))
    assert [record.params for record in records[1:3]] == points
    assert records[3].params not in points


def test_a_first_point_is_not_proposed_again_by_the_grid(begin):
    first = {"optimizer.name": "adam", "batch_size": 8}
    spec, space = begin(FINITE, sampler={"name": "grid", "first": [first], "default": False})
    search = Search(spec, space, [])
    proposals = [search.ask(number) for number in range(6)]
    assert proposals[0] == first
    assert len({identity(params) for params in proposals}) == 6


# What nobody searched for


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp", "random", "qmc", "grid"])
def test_the_default_configuration_comes_first_whoever_samples(begin, sampler):
    spec, space = begin(FINITE, sampler={"name": sampler})
    search = Search(spec, space, [])
    assert search.ask(0) == {"optimizer.name": "sgd", "batch_size": 4}
    assert len({identity(search.ask(number)) for number in range(1, 6)} | {identity(default_point(spec))}) == 6


def test_what_base_says_is_the_default_and_what_lies_outside_is_drawn_to_the_nearest(begin):
    base = fakes.plain_spec()["base"]
    search = PLANE | {"batch_size": {"low": 2, "high": 6, "step": 2, "int": True}, "schedule.warmup_steps": [3, 0]}
    spec, _ = begin(search, base=base | {"batch_size": 32, "optimizer": {"momentum": 0.25}})
    assert default_point(spec) == {
        "optimizer.momentum": 0.25,
        "schedule.power": 0.9,
        "batch_size": 6,
        "schedule.warmup_steps": 0,
    }


def test_what_a_training_cannot_do_without_has_the_first_choice_for_its_default(begin):
    base = {key: value for key, value in fakes.plain_spec()["base"].items() if key != "method"}
    spec, space = begin(CONDITIONAL | {"method.name": ["adversarial", "source_only"]}, base=base)
    point = default_point(spec)
    assert point["method.name"] == "adversarial"
    assert point["method.lambda_adv"] == TrainConfig.model_validate(spec.plain_config(point, seed=0)).method.lambda_adv
    assert space.contains(point)


def test_a_sweep_that_was_begun_without_it_goes_on_with_what_was_to_come(begin):
    points = [{"optimizer.momentum": 0.5, "schedule.power": 0.25}, {"optimizer.momentum": 0.125, "schedule.power": 1.0}]
    spec, space = begin(PLANE, sampler={"name": "tpe", "first": points})
    assert Search(spec, space, [trial(0, points[0], miou=0.5)]).ask(1) == points[1]


# Proposals that do not depend on timing


@pytest.mark.parametrize("sampler", [TPE, {"name": "nsga2"}], ids=["tpe", "nsga2"])
def test_only_settled_trials_influence_a_proposal(begin, sampler):
    spec, space = begin(CONDITIONAL, sampler=sampler, budget={"trials": 40, "concurrency": 2})
    search, records = Search(spec, space, []), []
    for number in range(20):
        settled = range(number - 2)
        params = search.ask(number, settled=settled)
        # A fast machine knows the other two as well, and what comes after.
        fast = Search(spec, space, [*records, trial(number + 1, params, miou=9.0)])
        assert fast.ask(number, settled=settled) == params
        # A slow one does not know how they ended.
        slow = Search(
            spec, space, [r if r.number in settled else replace(r, state=TrialState.RUNNING) for r in records]
        )
        assert slow.ask(number, settled=settled) == params
        records.append(outcome(number, params))
        search.tell(records[-1])
    assert Search(spec, space, records).ask(20) != Search(spec, space, records).ask(20, settled=range(10))


def test_unsettled_trials_are_not_proposed_again_and_exhaust_a_space(begin):
    spec, space = begin(FINITE)
    search, seen = Search(spec, space, []), []
    for number in range(6):
        assert not search.is_exhausted
        seen.append(search.ask(number, settled=()))
        search.tell(trial(number, seen[-1], TrialState.FAILED, failure=FailureClass.NODE_LOST))
    assert len({identity(params) for params in seen}) == 6
    assert search.is_exhausted


@pytest.mark.parametrize("failure", list(FailureClass))
def test_only_failures_of_the_configuration_are_told(begin, failure):
    spec, space = begin(PLANE)
    search = Search(spec, space, [])
    search.tell(trial(0, search.ask(0), TrialState.FAILED, failure=failure))
    assert (told(search, 0) is not None) == POLICIES[failure].blames_configuration
