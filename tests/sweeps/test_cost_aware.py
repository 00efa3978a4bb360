"""A search that weighs what a proposal promises by the time that its trial takes."""

import math
from dataclasses import replace
from types import SimpleNamespace

import fakes
import numpy as np
import optuna
import pytest
from optuna.samplers import TPESampler

from sweeps.execution.costs import Costs
from sweeps.file.space import identity
from sweeps.ledger.records import Allotment
from sweeps.planning.canary import Costs as Measured
from sweeps.planning.coverage import cases
from sweeps.planning.estimate import Tried
from sweeps.planning.plan import save_plan
from sweeps.planning.profiles import reachable
from sweeps.reports.text import asked_rows
from sweeps.search.costs import CostModel, Observed, Weighing, exponent_of, trained_costs
from sweeps.search.proposer import Search
from sweeps.search.samplers import CostAwareTPESampler
from sweeps.trial import TrialKind, TrialRecord, TrialState

MIOU = "source/val/miou"
STEPS = 100
SEARCH = {
    "model.backbone": ["resnet18", "resnet101"],
    "batch_size": {"low": 2, "high": 16, "log": True},
    "method.name": ["source_only", "adversarial"],
    "method.discriminator": {"choices": ["fcd", "tfd"], "when": {"method.name": "adversarial"}},
    "optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True},
}
SAMPLER = {"name": "tpe", "startup_trials": 4, "cost_aware": True}


@pytest.fixture
def spec(make_spec):
    return make_spec(search=SEARCH, sampler=SAMPLER, budget={"trials": 40})


def true_seconds(params):
    """A network's own factor, a method's, and less than in proportion to the batch."""
    factor = {"resnet18": 1.0, "resnet101": 5.0}[params["model.backbone"]]
    factor *= {"source_only": 1.0, "adversarial": 1.6}[params["method.name"]]
    return 60 * factor * params["batch_size"] ** 0.7


def trial(number, params, *, seconds, state=TrialState.COMPLETE, step=STEPS, miou=0.5, **changes):
    return TrialRecord(
        "demo",
        number,
        "key",
        TrialKind.SEARCH,
        params,
        {"steps": STEPS},
        0,
        **{"state": state, "step": step, "seconds": seconds, "metrics": {MIOU: miou}, "attempt": 1} | changes,
    )


def drawn(spec, count, seed=0):
    """Random parameters of the space."""
    random = replace_sampler(spec, name="random", default=False)
    search = Search(random, random.space, [])
    return [search.ask(number) for number in range(count)]


def replace_sampler(spec, **changes):
    return spec.model_copy(update={"sampler": type(spec.sampler)(**changes)})


def worst_error(model, points):
    """Largest factor by which predictions differ from the truth."""
    return max(abs(math.log(model.seconds(params) / true_seconds(params))) for params in points)


# What a trial takes


def test_known_seconds_are_recovered_from_few_noisy_trials(spec):
    noise = np.random.default_rng(0)
    records = [
        trial(number, params, seconds=true_seconds(params) * math.exp(noise.normal(0, 0.05)))
        for number, params in enumerate(drawn(spec, 16))
    ]
    model = CostModel(spec.space, trained=trained_costs(records))
    assert math.exp(worst_error(model, drawn(spec, 60)[16:])) < 1.35


def test_trials_correct_what_was_expected(spec):
    """The expectation knows the network alone, and takes it for ten times as dear."""
    points = drawn(spec, 60)
    expected = [
        Observed({**points[0], "model.backbone": name}, amount) for name, amount in (("resnet18", 1), ("resnet101", 10))
    ]
    before = CostModel(spec.space, expected=expected)
    pair = [{**points[0], "model.backbone": name} for name in ("resnet101", "resnet18")]
    assert before.seconds(pair[0]) / before.seconds(pair[1]) == pytest.approx(10, rel=0.05)
    errors = []
    for count in (2, 6, 24):
        records = [trial(number, params, seconds=true_seconds(params)) for number, params in enumerate(points[:count])]
        errors.append(
            worst_error(CostModel(spec.space, expected=expected, trained=trained_costs(records)), points[24:])
        )
    assert errors[0] > errors[1] > errors[2]
    assert math.exp(errors[2]) < 1.2


def test_a_rate_has_no_part_in_the_time(spec):
    points = drawn(spec, 20)
    records = [trial(index, item, seconds=100 / item["optimizer.lr"]) for index, item in enumerate(points)]
    model = CostModel(spec.space, trained=trained_costs(records))
    assert model.effect("optimizer.lr", 0.01) == model.effect("optimizer.lr", 0.1) == 0


def test_without_any_knowledge_a_larger_batch_takes_longer_in_proportion(spec):
    model = CostModel(spec.space)
    assert model.effect("batch_size", 8) - model.effect("batch_size", 2) == pytest.approx(math.log(4))


def test_a_stopped_trial_tells_of_a_full_training_and_counts_by_its_share(spec):
    params = drawn(spec, 1)[0]
    stopped = trial(0, params, seconds=30.0, step=25, state=TrialState.PRUNED)
    assert trained_costs([stopped]) == [Observed(params, 120.0, 0.25)]


@pytest.mark.parametrize(
    "changes",
    [
        {"attempt": 2},
        {"reused": "other/1"},
        {"state": TrialState.FAILED},
        {"state": TrialState.RUNNING},
        {"kind": TrialKind.REFERENCE},
        {"step": 0},
    ],
)
def test_what_tells_nothing_of_the_time_is_left_out(spec, changes):
    assert trained_costs([replace(trial(0, drawn(spec, 1)[0], seconds=30.0), **changes)]) == []


def test_the_order_in_which_trials_ended_does_not_matter(spec):
    points = drawn(spec, 12)
    records = [trial(number, params, seconds=true_seconds(params)) for number, params in enumerate(points)]
    one, other = (CostModel(spec.space, trained=trained_costs(order)) for order in (records, reversed(records)))
    assert [one.seconds(params) for params in points] == [other.seconds(params) for params in points]


# How much it counts


@pytest.mark.parametrize(("used", "exponent"), [(0.0, 1.0), (0.25, 0.75), (1.0, 0.0), (1.5, 0.0), (-0.1, 1.0)])
def test_the_exponent_falls_to_zero_as_the_budget_is_used(used, exponent):
    assert exponent_of(used) == exponent


@pytest.fixture
def costs_of(begun, ledger, store):
    """What the driver of a sweep knows of its costs."""

    def start(spec, gpus=0.0, has_begun=False):
        if spec.name not in {sweep.name for sweep in ledger.sweeps()}:
            begun(spec)
        return Costs(
            spec,
            spec.space,
            allotment=Allotment(gpus=gpus, concurrency=2),
            ledger=ledger,
            store=store,
            profiles={architecture: fakes.profile(architecture) for architecture in reachable(spec)},
            has_begun=has_begun,
        )

    return start


@pytest.mark.parametrize(
    ("budget", "used"),
    [
        ({"trials": 40}, 0.25),
        ({"trials": 40, "hours": 2.0}, 0.5),  # of the 4 hours of two workers
        ({"trials": 40, "gpu_hours": 1.25}, 0.8),  # of half a GPU each
        ({"trials": 40, "cost": 5.0, "price_per_hour": {"H200": 3.0}}, 0.6),
        ({"trials": 40, "cost": 5.0, "price_per_hour": {"H200": 3.0}, "gpu_hours": 1.25}, 0.8),
    ],
)
def test_the_budget_that_is_used_most_decides(make_spec, costs_of, budget, used):
    spec = make_spec(search=SEARCH, sampler=SAMPLER, budget=budget, resources={"gpus": 0.5})
    records = [
        trial(index, params, seconds=3600.0, device="GPU 0 (NVIDIA H200)")
        for index, params in enumerate(drawn(spec, 2))
    ]
    found = costs_of(spec, gpus=0.5).weighing(records, proposed=10)
    assert found.exponent == pytest.approx(1 - used)


def test_before_anything_was_trained_networks_differ_by_their_multiply_accumulates(spec, costs_of):
    model = costs_of(spec).weighing([], proposed=0).costs
    assert model.effect("model.backbone", "resnet101") - model.effect("model.backbone", "resnet18") == pytest.approx(
        math.log(8), rel=0.02
    )


def test_a_plan_corrects_that_and_is_noted_before_the_first_trial(spec, costs_of, store, ledger):
    def plan(factor):
        costs = Measured(0.0, 0.0, 0.0, 0.0, 0, 0, 0, "a processor")
        measured = [
            Tried(case, replace(costs, seconds_per_step=true_seconds(case.params) * factor)) for case in cases(spec)
        ]
        save_plan(store, spec, None, measured, gpus=0.0)

    points = drawn(spec, 40)
    alone = costs_of(spec, has_begun=True).weighing([], proposed=0).costs
    assert ledger.sweep("demo").info.planned_seconds == ()
    plan(1.0)
    planned = costs_of(spec).weighing([], proposed=0).costs
    steps = 6
    assert max(abs(math.log(planned.seconds(item) / true_seconds(item) / steps)) for item in points) < 0.6 * max(
        abs(math.log(alone.seconds(item) / alone.seconds(points[0]) * true_seconds(points[0]) / true_seconds(item)))
        for item in points
    )
    plan(20.0)
    again = costs_of(spec, has_begun=True).weighing([], proposed=0).costs
    assert [again.seconds(item) for item in points] == [planned.seconds(item) for item in points]


def test_with_reproducible_no_clock_has_a_say(make_spec, costs_of):
    spec = make_spec(search=SEARCH, sampler=SAMPLER | {"reproducible": True}, budget={"trials": 40, "hours": 1})
    points = drawn(spec, 10)
    costs = costs_of(spec)
    slow, fast = (
        costs.weighing([trial(index, item, seconds=seconds) for index, item in enumerate(points)], proposed=10)
        for seconds in (1.0, 3000.0)
    )
    assert slow.exponent == fast.exponent == 0.75
    assert [slow.costs.seconds(item) for item in points] == [fast.costs.seconds(item) for item in points]


def test_a_sweep_that_does_not_ask_for_it_weighs_nothing(make_spec, costs_of, ledger):
    spec = make_spec(search=SEARCH, sampler={"name": "tpe"})
    assert costs_of(spec).weighing([], proposed=0) is None
    assert ledger.sweep("demo").info.planned_seconds == ()


# What is proposed


def told(spec, count=12):
    """A search to which the dear network and the cheap one seem equally good, so that only time tells them apart."""
    records = [
        trial(
            number,
            params,
            seconds=true_seconds(params),
            miou=0.5 - 0.1 * abs(math.log10(params["optimizer.lr"] / 0.01)) + 0.001 * number,
        )
        for number, params in enumerate(drawn(spec, count))
    ]
    return records, CostModel(spec.space, trained=trained_costs(records))


def proposals(spec, records, weighing, count=30):
    return [
        Search(spec, spec.space, records).ask(number, weighing=weighing)
        for number in range(len(records), len(records) + count)
    ]


def test_the_cheap_are_preferred_early_and_no_more_at_the_end(spec):
    records, model = told(spec)
    means = [
        np.mean([math.log(true_seconds(params)) for params in proposals(spec, records, Weighing(model, exponent))])
        for exponent in (1.0, 0.5, 0.0)
    ]
    assert means[0] < means[1] < means[2]
    assert means[2] - means[0] > math.log(1.5)


def test_at_the_end_of_the_budget_proposals_are_those_of_a_search_that_ignores_time(spec):
    records, model = told(spec)
    plain = replace_sampler(spec, name="tpe", startup_trials=4)
    assert proposals(spec, records, Weighing(model, 0.0), 5) == proposals(plain, records, None, 5)


def test_a_resumed_search_proposes_the_same(make_spec, costs_of):
    spec = make_spec(search=SEARCH, sampler=SAMPLER, budget={"trials": 40, "hours": 10})
    records, _ = told(spec, 16)
    proposed = [
        Search(spec, spec.space, order).ask(16, weighing=costs_of(spec).weighing(order, proposed=16))
        for order in (records, records[::-1])
    ]
    assert identity(proposed[0]) == identity(proposed[1])


def test_optuna_still_asks_the_method_that_is_replaced(monkeypatch):
    """Each group of parameters comes once, in Optuna's internal form, with as many figures as there are candidates."""
    seen = []

    def replaced(self, samples, below, above):
        plain = TPESampler._compute_acquisition_func(self, samples, below, above)
        seen.append((sorted(samples), plain.shape, {len(values) for values in samples.values()}))
        return plain

    monkeypatch.setattr(CostAwareTPESampler, "_compute_acquisition_func", replaced)
    study = optuna.create_study(sampler=CostAwareTPESampler(n_startup_trials=2, seed=0, multivariate=True))
    for number in range(4):
        ask = study.ask()
        ask.suggest_int("a", 1, 8, log=True)
        ask.suggest_categorical("b", ["x", "y"])
        study.tell(ask, number)
    assert seen == [(["a", "b"], (24,), {24})] * 2


# Wrong files


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": {"name": "gp", "cost_aware": True}}, "has no effect with sampler gp; leave it out"),
        ({"sampler": {"name": "random", "cost_aware": True}}, "has no effect with sampler random; leave it out"),
        (
            {"objectives": [{"metric": MIOU, "direction": "maximize"}, {"metric": "macs", "direction": "minimize"}]},
            "this sweep has 2, whose front needs its dear end too; leave it out",
        ),
    ],
)
def test_what_cannot_be_weighed_is_refused(make_spec, changes, message):
    with pytest.raises(Exception, match=message):
        make_spec(**{"search": SEARCH, "sampler": SAMPLER} | changes)


def test_the_report_says_it_in_a_sentence(make_spec):
    def rows(spec):
        names = ("trials", "source_split", "target_split", "device", "results", "sample")
        view = SimpleNamespace(
            spec=spec, record=SimpleNamespace(spec=spec.canonical(), created=0.0), **dict.fromkeys(names)
        )
        view.trials, view.results, view.sample = [], {}, spec.base
        return dict(asked_rows(view))

    said = rows(make_spec(search=SEARCH, sampler=SAMPLER))["costs in the search"]
    assert said.startswith("what a proposal promised was divided by the time that its trial was predicted to take")
    assert "costs in the search" not in rows(make_spec(sampler={"name": "tpe"}))


def test_the_key_left_out_leaves_the_identity_of_a_sweep_as_it_was(make_spec):
    plain = make_spec(sampler={"name": "tpe"})
    assert plain.fingerprint() != make_spec(sampler={"name": "tpe", "cost_aware": True}).fingerprint()
