"""Constraints and several objectives through the real coordinator: what is never trained, and which front is found.

Pruning and the front: a trial is only stopped where trials that cost no more are better (`rivals.py`). While rungs order
trials as the end does, nothing of the front is lost. Where curves cross, members that learn slower than networks which cost
no more may be missing, and what only they dominate then stands in their place; whatever leads its rivals at every rung is
never missing. The front that is found is always the true one of the fully trained trials.
"""

import itertools
import math
from collections import Counter

import fakes
import pytest

from sweeps.execution.coordinator import Coordinator, Wait
from sweeps.execution.runner import run_sweep
from sweeps.planning.machines import stated
from sweeps.planning.profiles import Architecture, reachable
from sweeps.selection.analysis import pareto_front
from sweeps.trial import TrialState

BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101")
MACS = {"resnet18": 1e9, "resnet34": 2e9, "resnet50": 4e9, "resnet101": 8e9}
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
STEPS = 8
GRID = tuple(itertools.product(BACKBONES, RATES))
# Final quality of each point: a larger network is mostly better, the best rate differs, and no two are equal.
QUALITY = {
    point: 0.3 + 0.05 * BACKBONES.index(point[0]) - 0.04 * abs(RATES.index(point[1]) - place) + 0.001 * index
    for index, (point, place) in enumerate(zip(GRID, [2, 2, 1, 3] * 5, strict=True))
}
QUALITY["resnet50", 0.01] = 0.2  # so that not every architecture has a member on the front
QUALITY["resnet50", 0.003] = 0.25
QUALITY["resnet50", 0.03] = 0.26
QUALITY["resnet50", 0.001] = 0.27
QUALITY["resnet50", 0.1] = 0.28
OBJECTIVES = [{"metric": "source/val/miou", "direction": "maximize"}, {"metric": "macs", "direction": "minimize"}]
SEARCH = {"model.backbone": list(BACKBONES), "optimizer.lr": list(RATES)}


@pytest.fixture(autouse=True)
def _own_figures(monkeypatch):
    def profile(architecture):
        macs = MACS[architecture.model.backbone]
        return fakes.Profile(
            metrics={"num_parameters": macs / 100, "macs": macs, "latency_ms": macs / 1e8, "fps": 1e11 / macs}
        )

    monkeypatch.setattr(fakes, "profile", profile)


@pytest.fixture
def make_sweep(make_spec):
    """A sweep over four networks and five learning rates."""

    def make(**changes):
        base = make_spec().base | {"steps": STEPS}
        plain = {
            "base": base,
            "search": SEARCH,
            "budget": {"trials": len(GRID), "concurrency": 3},
            "sampler": {"name": "random"},
        }
        return make_spec(**(plain | changes))

    return make


@pytest.fixture
def drive(begun, ledger, store):
    """Run a sweep to its end without an executor; return (trials, number -> attempts that were handed out)."""

    def run(spec, curve):
        begun(spec)
        coordinator = Coordinator(
            spec,
            allotment=stated(spec),
            ledger=ledger,
            store=store,
            profiles={architecture: fakes.profile(architecture) for architecture in reachable(spec)},
            fingerprint=fakes.fingerprint,
        )
        handed_out, active = Counter(), {}
        while True:
            task = coordinator.next_task()
            if task is Wait.DONE:
                return ledger.trials(spec.name), handed_out
            if task is not Wait.NOT_NOW:
                handed_out[task.number] += 1
                active[task.number] = (task, 0)
                continue
            for number, (task, step) in list(active.items()):
                point = task.config["model"]["backbone"], task.config["optimizer"]["lr"]
                metrics = {"source/val/miou": curve(point, step + 1)}
                message = {"event": "point", "step": step + 1, "metrics": metrics}
                active[number] = (task, step + 1)
                if coordinator.on_message(number, task.attempt, message):
                    del active[number]
                elif step + 1 == STEPS:
                    coordinator.on_message(number, task.attempt, {"event": "finished"})
                    del active[number]

    return run


def in_step(point, step):
    """Every trial has the same share of its final quality at each step: rungs order trials as the end does."""
    return QUALITY[point] * step / STEPS


def crossing(point, step):
    """High learning rates learn fast: curves cross."""
    return QUALITY[point] * (step / STEPS) ** (1.5 - 0.3 * RATES.index(point[1]))


def point_of(trial):
    return trial.params["model.backbone"], trial.params["optimizer.lr"]


def brute_force(points):
    """The front by its definition: what no other point is as good as in both and better in one."""
    figures = {point: (QUALITY[point], MACS[point[0]]) for point in points}
    return {
        point
        for point, (quality, macs) in figures.items()
        if not any(
            other_quality >= quality and other_macs <= macs and (other_quality, other_macs) != (quality, macs)
            for other_quality, other_macs in figures.values()
        )
    }


def found_front(trials):
    return {point_of(trial) for trial in pareto_front(trials, metric="source/val/miou", cost="macs")}


# Constraints


@pytest.mark.parametrize(
    ("sampler", "objectives"),
    [(name, OBJECTIVES[:1]) for name in ("tpe", "random", "grid", "gp", "qmc")]
    + [(name, OBJECTIVES) for name in ("tpe", "nsga2")],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} objectives",
)
def test_no_sampler_gets_an_infeasible_architecture_trained(make_sweep, drive, ledger, store, sampler, objectives):
    startup = {"startup_trials": 4} if sampler in ("tpe", "gp") else {}
    spec = make_sweep(
        constraints=["macs <= 2.5e9", "latency_ms <= 21"],
        sampler={"name": sampler} | startup,
        budget={"trials": 5 if sampler == "gp" else 8, "concurrency": 2},
        objectives=objectives,
        seeds=[0, 1],
    )
    trials, handed_out = drive(spec, in_step)
    infeasible = [trial for trial in trials if MACS[trial.params["model.backbone"]] > 2.5e9]
    assert infeasible, "the sampler never met the constraint, so the test shows nothing"
    for trial in infeasible:
        assert trial.state is TrialState.INFEASIBLE
        assert (trial.attempt, trial.step, trial.started, trial.worker) == (0, 0, None, None)
        assert handed_out[trial.number] == 0
        assert ledger.points("demo", trial.number) == []
        assert not store.trial(trial).exists()
    assert {trial.number for trial in trials if trial.state is TrialState.COMPLETE} == set(handed_out)
    assert all(
        constraint.holds(trial.profile[constraint.metric])
        for trial in trials
        for constraint in spec.constraints
        if trial.attempt
    )


@pytest.mark.usefixtures("ray_cluster", "no_profiling")
def test_no_worker_of_a_real_cluster_sees_an_infeasible_architecture(make_sweep, begun, ledger, store, executed):
    spec = begun(make_sweep(constraints=["macs <= 2.5e9"], budget={"trials": 5, "concurrency": 2}))
    outcome = run_sweep(spec, ledger=ledger, store=store, train="fakes:quadratic", fingerprint=fakes.fingerprint)
    assert outcome.exit_code == 0
    trials = ledger.trials(spec.name)
    infeasible = {trial.number for trial in trials if trial.state is TrialState.INFEASIBLE}
    assert infeasible
    assert {number for number, _ in executed()} == {trial.number for trial in trials} - infeasible
    for trial in trials:
        broken = MACS[Architecture.of(spec.train_config(trial.params, seed=0)).model.backbone] > 2.5e9
        assert broken is (trial.number in infeasible)
        assert store.trial(trial).exists() is not broken


# Two objectives


def test_the_front_of_a_whole_grid_is_the_brute_force_one(make_sweep, drive):
    trials, _ = drive(make_sweep(objectives=OBJECTIVES), in_step)
    assert {point_of(trial) for trial in trials} == set(GRID)
    assert all(trial.state is TrialState.COMPLETE for trial in trials)
    front = brute_force(GRID)
    assert 1 < len(front) < len(BACKBONES)
    assert found_front(trials) == front


SCHEDULERS = pytest.mark.parametrize(
    "scheduler",
    [
        {"name": "asha", "reduction_factor": 2, "min_steps": 1},
        {"name": "asha", "reduction_factor": 3, "min_steps": 2},
        {"name": "median", "min_steps": 2, "min_trials": 2},
        {"name": "mo_asha", "reduction_factor": 2, "min_steps": 1},
    ],
    ids=["asha 2", "asha 3", "median", "mo_asha"],
)


@SCHEDULERS
def test_pruning_loses_nothing_of_the_front_while_curves_do_not_cross(make_sweep, drive, scheduler):
    trials, _ = drive(make_sweep(objectives=OBJECTIVES, scheduler=scheduler), in_step)
    assert {point_of(trial) for trial in trials} == set(GRID)
    assert any(trial.state is TrialState.PRUNED for trial in trials)
    assert found_front(trials) == brute_force(GRID)


@SCHEDULERS
def test_where_curves_cross_the_front_is_right_among_what_was_trained_in_full(make_sweep, drive, ledger, scheduler):
    trials, _ = drive(make_sweep(objectives=OBJECTIVES, scheduler=scheduler), crossing)
    complete = {point_of(trial) for trial in trials if trial.state is TrialState.COMPLETE}
    assert found_front(trials) == brute_force(complete)
    assert found_front(trials) <= complete
    missing = brute_force(GRID) - found_front(trials)
    assert missing or scheduler["name"] == "median", "these curves cost nothing, so the test shows nothing"
    by_point = {point_of(trial): trial for trial in trials}
    rungs: dict[int, dict[int, float]] = {}
    for report in ledger.points("demo"):
        rungs.setdefault(report.step, {})[report.number] = report.metrics["source/val/miou"]
    for point in missing:
        trial = by_point[point]
        assert trial.state is TrialState.PRUNED
        # Somebody who costs no more had been strictly better.
        assert any(
            value > rungs[rung][trial.number]
            for rung in rungs
            if trial.number in rungs[rung]
            for other, value in rungs[rung].items()
            if MACS[trials[other].params["model.backbone"]] <= MACS[point[0]]
        )


@pytest.mark.parametrize(
    "scheduler",
    [
        *SCHEDULERS.args[1],
        {"name": "dominance", "confidence": 0.9, "min_steps": 1, "exempt": 0.0},
    ],
    ids=lambda scheduler: scheduler["name"],
)
def test_no_trial_is_stopped_by_more_expensive_ones(make_sweep, drive, ledger, scheduler):
    """The cheapest architecture has no competitors but its own kind: alone, its trials are never stopped."""
    search = SEARCH | {"optimizer.lr": {"low": 0.001, "high": 0.1, "log": True}}

    def curve(point, step):
        return math.log(MACS[point[0]]) * step  # the larger, the better, always

    trials, _ = drive(make_sweep(objectives=OBJECTIVES, scheduler=scheduler, search=search), curve)
    assert len({trial.params["model.backbone"] for trial in trials}) == len(BACKBONES)
    assert all(trial.state is TrialState.COMPLETE for trial in trials)
