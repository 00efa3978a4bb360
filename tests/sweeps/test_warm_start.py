"""What a sweep takes over from earlier ones."""

from dataclasses import replace

import fakes
import pytest

from segda.errors import ConfigError
from sweeps.execution.coordinator import Coordinator
from sweeps.file.space import identity
from sweeps.ledger.records import SweepInfo
from sweeps.planning.machines import stated
from sweeps.planning.profiles import Architecture, reachable
from sweeps.search.proposer import Search
from sweeps.search.warm_start import FIRST_PER_SWEEP, Earlier, WarmStart, is_learnable, warm_start
from sweeps.trial import TrialKind, TrialRecord, TrialState

MIOU = "source/val/miou"
PLANE = {"optimizer.momentum": {"low": 0.0, "high": 0.9}, "schedule.power": {"low": 0.1, "high": 1.0}}
FINITE = {"optimizer.name": ["sgd", "adam"], "batch_size": [2, 4, 8]}
PARETO = [{"metric": MIOU, "direction": "maximize"}, {"metric": "macs", "direction": "minimize"}]
TPE = {"name": "tpe", "startup_trials": 4, "default": False, "warm_start": ["earlier"]}
BASE = fakes.plain_spec()["base"]


@pytest.fixture
def plane(make_spec):
    """A sweep over two ranges that begins warm."""

    def make(**changes):
        return make_spec(**{"search": PLANE, "sampler": TPE} | changes)

    return make


def trained(spec, number, params, miou=0.5, **changes):
    """A fully trained trial of a sweep, measured on another device than `efficiency` knows."""
    record = TrialRecord(
        sweep=spec.name,
        number=number,
        key=f"key{number}",
        kind=TrialKind.SEARCH,
        params=params,
        config=spec.train_config(params, seed=7).model_dump(mode="json"),
        seed=7,
        state=TrialState.COMPLETE,
        metrics={} if miou is None else {MIOU: miou},
        step=spec.base["steps"],
        profile={"macs": 5.0, "latency_ms": 5.0, "fps": 5.0},
    )
    return replace(record, **changes)


def efficiency(config):
    return fakes.profile(Architecture.of(config)).metrics


def begin(spec, trials, **changes):
    return warm_start(spec, spec.space, [Earlier("earlier", tuple(trials), **changes)], efficiency=efficiency)


def at(momentum, power=0.5):
    return {"optimizer.momentum": momentum, "schedule.power": power}


def spread(spec, score, count=30):
    values = [(index + 0.5) / count for index in range(count)]
    return [
        trained(spec, index, at(0.9 * value, 0.1 + 0.9 * values[(7 * index) % count]), score(value))
        for index, value in enumerate(values)
    ]


@pytest.mark.parametrize("objectives", [PARETO[:1], PARETO], ids=["one objective", "two objectives"])
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_what_an_earlier_sweep_found_guides_the_first_proposals(plane, objectives, sampler):
    def proposals(score):
        spec = plane(objectives=objectives, sampler={"name": sampler, "warm_start": ["earlier"]})
        found = begin(spec, spread(spec, score))
        assert (len(found.learned), found.first) == (30, ())
        search, values = Search(spec, spec.space, [], warm_start=found), []
        for number in range(8):
            params = search.ask(number)
            search.tell(trained(spec, number, params, score(params["optimizer.momentum"] / 0.9)))
            values.append(params["optimizer.momentum"])
        return sum(values) / len(values)

    assert proposals(lambda value: value) > 0.5 > proposals(lambda value: 1 - value) + 0.1


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("steps", {"steps": 60}),
        ("data.height", {"data": BASE["data"] | {"height": 64}}),
        ("data.source.domain", {"data": BASE["data"] | {"source": BASE["data"]["target"]}}),
        ("batch_size", {"batch_size": 2}),
    ],
)
def test_of_what_was_trained_otherwise_only_the_best_parameters_are_taken(plane, path, change):
    spec, other = plane(), plane(base=BASE | change)
    trials = spread(other, lambda value: 5 + value)
    found = begin(spec, trials)
    assert found.learned == ()
    assert list(found.first) == [trial.params for trial in trials[: -FIRST_PER_SWEEP - 1 : -1]]
    assert found.notes == (
        "warm start from earlier: 0 of 30 fully trained trials count like this sweep's own; 30 were trained otherwise "
        f"({path}); of these the best 3 are tried first",
    )
    search = Search(spec, spec.space, [], warm_start=found)
    assert [search.ask(number) for number in range(3)] == list(found.first)
    # Their level says nothing here: what follows is what a cold start would propose after these three.
    cold = Search(spec, spec.space, [], warm_start=WarmStart(first=found.first))
    assert [cold.ask(number) for number in range(4)][3] == search.ask(3)


def test_places_and_seeds_do_not_make_another_training(plane):
    data = BASE["data"] | {"cache": "/elsewhere", "workers": 0}
    other = plane(base=BASE | {"data": data, "device": "cpu"}, seeds=[3])
    assert len(begin(plane(), [trained(other, 0, at(0.5))]).learned) == 1


def test_other_files_in_the_data_sets_make_another_training(plane):
    found = begin(plane(), [trained(plane(), 0, at(0.5))], has_other_data=True)
    assert (found.learned, found.first) == ((), (at(0.5),))
    assert "trained otherwise (files of the data sets)" in found.notes[0]


def test_what_does_not_fit_is_passed_over_and_said(plane, make_spec):
    wide = plane(search=PLANE | {"optimizer.momentum": [0.5, 0.95]})
    methods = plane(search=PLANE | {"method.name": ["source_only", "adversarial"]})
    trials = [
        trained(wide, 0, at(0.5)),
        trained(wide, 1, at(0.95)),
        trained(wide, 2, at(0.5), None),
        trained(methods, 3, at(0.5) | {"method.name": "adversarial"}),
        trained(methods, 4, at(0.5) | {"method.name": "source_only"}),
    ]
    found = begin(plane(), trials)
    assert [trial.number for trial in found.learned] == [0, 4]
    assert found.notes == (
        "warm start from earlier: 2 of 5 fully trained trials count like this sweep's own; "
        "2 passed over: outside of the search space; 1 passed over: without source/val/miou",
    )


def test_only_fully_trained_proposals_may_be_taken_over(plane):
    trial = trained(plane(), 0, at(0.5))
    assert is_learnable(trial)
    assert not is_learnable(replace(trial, state=TrialState.PRUNED))
    assert not is_learnable(replace(trial, kind=TrialKind.REFERENCE))
    assert not is_learnable(replace(trial, kind=TrialKind.REPLICATE, parent=1))


def test_what_was_fixed_earlier_and_varies_now_is_taken_from_the_configuration(plane, make_spec):
    momentum = {path: PLANE[path] for path in ["optimizer.momentum"]}
    narrow = make_spec(search=momentum, base=BASE | {"schedule": {"power": 0.3}})
    (known,) = begin(plane(), [trained(narrow, 0, {"optimizer.momentum": 0.5})]).learned
    assert known.params == at(0.5, 0.3)


def test_efficiency_figures_are_those_of_this_sweeps_device(plane):
    backbones = PLANE | {"model.backbone": ["resnet18", "resnet101"]}
    spec = plane(search=backbones, objectives=[PARETO[0], {"metric": "latency_ms", "direction": "minimize"}])
    (known,) = begin(spec, [trained(spec, 0, at(0.5) | {"model.backbone": "resnet101"})]).learned
    assert known.profile == {"num_parameters": 8e7, "macs": 8e9, "latency_ms": 80.0, "fps": 12.5}


def test_points_to_try_first_are_feasible_new_and_different(plane):
    backbones = PLANE | {"model.backbone": ["resnet18", "resnet101"]}
    small, large = {"model.backbone": "resnet18"}, {"model.backbone": "resnet101"}
    first = at(0.1) | small
    spec = plane(search=backbones, constraints=["macs <= 4e9"], sampler=TPE | {"first": [first]})
    other = plane(search=backbones, base=BASE | {"steps": 60})
    points = [at(0.9) | large, first, at(0.2) | small, at(0.2) | small, at(0.3) | small]
    trials = [trained(other, number, params, 0.9 - 0.1 * number) for number, params in enumerate(points)]
    assert begin(spec, trials).first == (at(0.2) | small, at(0.3) | small)


def test_earlier_results_are_no_proposals_of_this_sweep(plane):
    spec = plane(search=FINITE)
    space = spec.space
    trials = [trained(spec, index, params, 0.1 * index) for index, params in enumerate(space.combinations())]
    search = Search(spec, space, [], warm_start=begin(spec, trials))
    assert not search.is_exhausted
    assert len({identity(search.ask(number)) for number in range(6)}) == 6
    assert search.is_exhausted
    assert search.importance() == {}


def test_a_grid_takes_nothing_over_and_says_so(plane):
    spec = plane(search=FINITE, sampler={"name": "auto", "warm_start": ["earlier"]}, budget={"trials": 6})
    found = begin(spec, [trained(spec, 0, {"optimizer.name": "sgd", "batch_size": 2})])
    assert (found.learned, found.first) == ((), ())
    assert "warm start has no effect" in found.notes[0]


# Settled at the first start


@pytest.fixture
def coordinate(begun, ledger, store):
    def start(spec, heard=None, data="0123456789abcdef"):
        if spec.name not in {sweep.name for sweep in ledger.sweeps()}:
            begun(spec)
        return Coordinator(
            spec,
            allotment=stated(spec),
            ledger=ledger,
            store=store,
            profiles={architecture: fakes.profile(architecture) for architecture in reachable(spec)},
            fingerprint=lambda config: data,
            listener=lambda kind, record, message: heard.append(message) if heard is not None else None,
        )

    return start


@pytest.fixture
def earlier(plane, coordinate, ledger):
    """A sweep in the ledger with five fully trained trials."""
    spec = plane(name="earlier", sampler={"name": "random"})
    coordinate(spec)
    for number in range(5):
        ledger.add_trial(trained(spec, number, at(0.1 * number), 0.1 * number))
    return spec


def test_what_is_taken_over_is_told_once_and_stays_though_the_earlier_sweep_goes_on(plane, coordinate, earlier, ledger):
    spec, heard = plane(sampler=TPE | {"startup_trials": 1}), []
    params = coordinate(spec, heard).next_task().config["optimizer"]
    note = "warm start from earlier: 5 of 5 fully trained trials count like this sweep's own"
    assert note in heard
    assert [event.message for event in ledger.events("demo") if event.kind == "note"] == [note]
    assert ledger.sweep("demo").info.warm_start == {"earlier": (0, 1, 2, 3, 4)}
    for number in range(5, 9):
        ledger.add_trial(trained(earlier, number, at(0.1, 1.0), 9.0))
    # The same sweep from nothing, but with the list of its first start.
    again, heard = plane(name="again", sampler=TPE | {"startup_trials": 1}), []
    ledger.create_sweep("again", spec=again.canonical(), info=SweepInfo(warm_start={"earlier": (0, 1, 2, 3, 4)}))
    assert coordinate(again, heard).next_task().config["optimizer"] == params
    assert not any("warm start" in message for message in heard)
    # One that begins now knows more.
    coordinate(plane(name="late"), heard)
    assert ledger.sweep("late").info.warm_start == {"earlier": tuple(range(9))}


def test_data_sets_with_other_files_are_noticed(plane, coordinate, earlier):
    heard = []
    coordinate(plane(), heard, data="fedcba9876543210")
    assert "5 were trained otherwise (files of the data sets)" in heard[-1]


def test_a_sweep_that_target_labels_steered_is_refused_by_one_that_they_must_not(plane, coordinate, make_spec):
    objective = [{"metric": "oracle/target/miou", "direction": "maximize"}]
    coordinate(plane(name="earlier", selection="oracle", objectives=objective, sampler={"name": "random"}))
    with pytest.raises(ConfigError, match=r"names 'earlier', which target labels steered"):
        coordinate(plane())
    coordinate(plane(name="open", selection="oracle"))


def test_an_unknown_earlier_sweep_is_named(plane, coordinate):
    with pytest.raises(ConfigError, match="earlier"):
        coordinate(plane())
