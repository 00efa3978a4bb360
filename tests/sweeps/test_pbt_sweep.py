"""Population based training through the real coordinator and the real training."""

import math
from collections import Counter

import fakes
import pytest
import torch

from segda.checkpoint import read_checkpoint
from segda.config import TrainConfig
from segda.datasets.scenes import generate_scenes
from segda.train import train
from sweeps.execution.coordinator import Coordinator, Wait
from sweeps.execution.worker import run_task
from sweeps.planning.profiles import reachable
from sweeps.schedulers.lineage import first_values, forked_at
from sweeps.trial import TrialKind, TrialState

PBT = {"name": "pbt", "interval": 2, "quantile": 0.25, "resample": 0.0}


@pytest.fixture
def coordinate(begun, ledger, store):
    def start(spec):
        if spec.name not in {sweep.name for sweep in ledger.sweeps()}:
            begun(spec)
        return Coordinator(
            spec,
            ledger=ledger,
            store=store,
            profiles={architecture: fakes.profile(architecture) for architecture in reachable(spec)},
            fingerprint=fakes.fingerprint,
        )

    return start


def figures(config, step):
    """What training would report: every step gains by the learning rate in force, best at 0.01."""
    gains = [1 - 0.2 * abs(math.log10(config.at(done).optimizer.lr) + 2) for done in range(step)]
    return {"source/val/miou": sum(gains) / config.steps}


def drive(coordinator, restart=lambda coordinator: coordinator):
    """Run a sweep to its end; return how often each step of each trial was trained."""
    trained, active = Counter(), {}
    while True:
        task = coordinator.next_task()
        if task is Wait.DONE:
            return trained
        if task is not Wait.NOT_NOW:
            active[task.number] = (task, task.acknowledged)
            continue
        for number, (task, step) in list(active.items()):
            config = TrainConfig.model_validate(task.config)
            trained[number, step + 1] += 1
            message = {
                "event": "point",
                "step": step + 1,
                "timestamp": 1.0 + step,
                "metrics": figures(config, step + 1),
            }
            active[number] = (task, step + 1)
            if coordinator.on_message(number, task.attempt, message):
                del active[number]
            elif step + 1 == config.steps:
                coordinator.on_message(number, task.attempt, {"event": "finished"})
                del active[number]
        before, coordinator = coordinator, restart(coordinator)
        if coordinator is not before:
            active.clear()


@pytest.fixture
def spec(make_spec):
    return make_spec(scheduler=PBT | {"quantile": 0.5}, budget={"trials": 8, "concurrency": 4}, seeds=[0, 1])


def test_copies_replace_trials_and_every_step_is_trained_once(coordinate, spec, ledger):
    trained = drive(coordinate(spec))
    trials = ledger.trials("demo")
    searched = [trial for trial in trials if trial.kind is TrialKind.SEARCH]
    copies = [trial for trial in searched if trial.parent is not None]
    assert copies
    assert len(searched) - len(copies) == 8  # copies take nothing of the budget
    pruned = [trial for trial in searched if trial.state is TrialState.PRUNED]
    assert len(pruned) == len(copies)
    assert sorted(copy.name for copy in copies) == sorted(
        f"replaces {trial.number} at {trial.step}" for trial in pruned
    )
    for copy in copies:
        donor, step = trials[copy.parent], forked_at(copy.params)
        assert first_values(copy.params) == first_values(donor.params)
        assert [point.step for point in ledger.points("demo", copy.number)][:step] == list(range(1, step + 1))
        assert [point.metrics for point in ledger.points("demo", copy.number)][:step] == [
            point.metrics for point in ledger.points("demo", donor.number)
        ][:step]
        assert all(trained[copy.number, done] == 0 for done in range(1, step + 1))
        assert all(copy.number not in values for rung, values in ledger.rungs("demo").items() if rung <= step)
        assert copy.key != donor.key
    assert set(trained.values()) == {1}
    assert sum(number in {trial.number for trial in searched} for number, _ in trained) == 8 * 6


def test_the_result_of_a_copy_is_that_of_its_whole_schedule(coordinate, spec, ledger):
    drive(coordinate(spec))
    for trial in ledger.trials("demo"):
        config = TrainConfig.model_validate(trial.config)
        assert trial.metrics == figures(config, trial.step)
        assert trial.config["schedule"]["changes"] == list(
            spec.train_config(trial.params, seed=0).model_dump()["schedule"]["changes"]
        )


def test_finalists_are_repeated_with_their_whole_schedule(coordinate, spec, ledger):
    drive(coordinate(spec))
    replicates = [trial for trial in ledger.trials("demo") if trial.kind is TrialKind.REPLICATE]
    assert replicates
    for trial in replicates:
        assert trial.params == ledger.trial("demo", trial.parent).params
        assert len(ledger.points("demo", trial.number)) == 6


def test_a_sweep_that_restarts_after_every_report_ends_the_same(coordinate, make_spec, ledger):
    def table(name, restart):
        spec = make_spec(name=name, scheduler=PBT | {"quantile": 0.5}, budget={"trials": 6, "concurrency": 1})
        drive(coordinate(spec), (lambda _: coordinate(spec)) if restart else lambda coordinator: coordinator)
        return [(trial.params, trial.state, trial.step, trial.metrics, trial.parent) for trial in ledger.trials(name)]

    whole = table("whole", restart=False)
    assert any(parent is not None for *_, parent in whole)
    assert table("restarted", restart=True) == whole


def test_a_driver_that_dies_between_copy_and_end_makes_no_second_copy(coordinate, spec, ledger, monkeypatch):
    coordinator = coordinate(spec)

    def die(*arguments, **options):
        raise KeyboardInterrupt

    original = type(ledger).add_point

    def add_point(self, sweep, number, **options):
        return die() if options.get("state") is TrialState.PRUNED else original(self, sweep, number, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(ledger), "add_point", add_point)
        with pytest.raises(KeyboardInterrupt):
            drive(coordinator)
    copies = [trial for trial in ledger.trials("demo") if trial.parent is not None]
    assert len(copies) == 1
    drive(coordinate(spec))
    trials = ledger.trials("demo")
    assert sum(trial.name == copies[0].name for trial in trials) == 1
    replaced = trials[int(copies[0].name.split()[1])]
    assert replaced.state is TrialState.PRUNED
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)


def test_a_copy_continues_the_donors_training_and_equals_its_schedule_from_nothing(
    coordinate, make_spec, ledger, store, tmp_path
):
    root = generate_scenes(tmp_path / "scenes", size=64, train=4, val=2, seed=1)
    domain = {"dataset": "scenes", "root": str(root)}
    base = {
        "data": {
            "source": domain | {"domain": "urban"},
            "target": domain | {"domain": "rural"},
            "height": 64,
            "width": 64,
            "cache": str(tmp_path / "cache"),
        },
        "model": {"pretrained": "none"},
        "method": {"name": "source_only"},
        "steps": 4,
        "report_every": 1,
        "batch_size": 2,
        "precision": "fp32",
        "oracle": "never",
    }
    spec = make_spec(base=base, scheduler=PBT | {"quantile": 0.5}, budget={"trials": 2, "concurrency": 1})
    coordinator = coordinate(spec)
    while (task := coordinator.next_task()) is not Wait.DONE:

        def send(message, task=task):
            if (
                message["event"] == "point"
            ):  # the first trial is the best one, whatever the machine makes of so few steps
                message["metrics"] |= {"source/val/miou": 1 - 0.1 * task.number}
            if coordinator.on_message(task.number, task.attempt, message) and message["event"] == "point":
                raise SystemExit

        try:
            run_task(task, send)
        except SystemExit:
            continue
    trials = ledger.trials("demo")
    assert [(trial.state, trial.step, trial.parent) for trial in trials] == [
        (TrialState.COMPLETE, 4, None),
        (TrialState.PRUNED, 2, None),
        (TrialState.COMPLETE, 4, 0),
    ]
    copy = trials[2]
    train(TrainConfig.model_validate(copy.config), lambda *report: None, folder=tmp_path / "alone")
    alone = read_checkpoint(tmp_path / "alone" / "checkpoint.pt")["method"]
    copied = read_checkpoint(store.trial(copy) / "checkpoint.pt")["method"]
    assert all(torch.equal(value, copied[name]) for name, value in alone.items())
    assert [point.step for point in ledger.points("demo", copy.number)] == [1, 2, 3, 4]
    assert not list(store.trial(copy).parent.glob("*/checkpoint-*.pt"))  # dropped at the end
