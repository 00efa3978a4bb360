"""Target labels of a whole sweep: made garbage, then deleted from the disk, they change nothing but figures named `oracle/`."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sweep import tasks

from segda.checkpoint import read_checkpoint
from segda.datasets.scenes import generate_scenes
from sweeps.execution.predictions import compared
from sweeps.execution.worker import run_task
from sweeps.ledger.database import Ledger
from sweeps.metrics import ENSV, TARGET_MIOU
from sweeps.selection.choice import criteria_of, select
from sweeps.store import Store
from sweeps.trial import TrialState

SIDE = 64
# One that looks at the target alone, one that takes its colors, and rounds: of labels, and of labels and a choice of images.
METHODS = ("min_entropy", "fda", "self_training", "lse")
VALIDATORS = ("entropy", "im", "bnm", "snd", "soft_iou", "atc")
SPEED = ("train/seconds_per_step", "train/images_per_second")


def spec_of(make_spec, scenes: Path, cache: Path, *, oracle: str):
    domain = {"dataset": "scenes", "root": str(scenes)}
    return make_spec(
        base={
            "data": {
                "source": domain | {"domain": "urban"},
                "target": domain | {"domain": "rural"},
                "height": SIDE,
                "width": SIDE,
                "augmentation": "nadir_color",
                "style": {"name": "channel_statistics"},
                "sampling": {"name": "rare_class"},
                "cache": str(cache),
            },
            "model": {"name": "fast_scnn"},
            "loss": {"name": "cross_entropy", "class_weights": "median_frequency"},
            "validators": list(VALIDATORS),
            "steps": 6,
            "report_every": 2,
            "batch_size": 4,
            "precision": "fp32",
            "device": "cpu",
            "oracle": oracle,
        },
        search={"method.name": list(METHODS), "optimizer.lr": [0.003, 0.01, 0.03]},
        sampler={"name": "grid"},
        # By what the target's predictions look like: what leaks into training or scores leaks into the stops.
        objectives=[{"metric": "target/validator/soft_iou", "direction": "maximize"}],
        scheduler={"name": "median", "min_steps": 2, "min_trials": 4},
        selection="ensv",
        budget={"trials": 12, "concurrency": 1},
    )


class Stop(SystemExit):
    """What ends an attempt that the driver stops."""


@pytest.fixture
def drive(tmp_path):
    """Run a sweep to its end in this process, one trial after the other, and return its trials and weights."""

    def run(spec, name: str):
        store = Store.at(tmp_path / name)
        weights = {}
        with Ledger.open(store.ledger) as ledger:
            ledger.create_sweep(spec.name, spec=spec.canonical())
            for task, send in tasks(spec, ledger, store):

                def report(message, send=send):
                    if send(message):
                        raise Stop

                with contextlib.suppress(Stop):
                    run_task(task, report)
                weights[task.number] = read_checkpoint(Path(task.folder) / "checkpoint.pt")["method"]
            trials = compared(ledger.trials(spec.name), store=store, storage=None)
        return trials, weights

    return run


def without_labels_of_the_target(metrics):
    return {name: value for name, value in metrics.items() if not name.startswith("oracle/") and name not in SPEED}


@pytest.mark.slow  # three sweeps of twelve small trainings
def test_no_weights_no_stop_and_no_choice_of_a_sweep_change_with_labels_of_the_target(make_spec, drive, tmp_path):
    scenes = generate_scenes(tmp_path / "scenes", size=SIDE, train=4, val=2, seed=1)
    labels = sorted(scenes.glob("*/Rural/masks_png/*"))
    assert len(labels) == 6
    found = {}
    found["labels"] = drive(spec_of(make_spec, scenes, tmp_path / "cache 1", oracle="end"), "labels")
    for number, path in enumerate(labels):
        ids = np.random.default_rng(number).integers(0, 8, (SIDE, SIDE), dtype=np.uint8)
        Image.fromarray(ids).save(path)
    found["garbage"] = drive(spec_of(make_spec, scenes, tmp_path / "cache 2", oracle="end"), "garbage")
    for path in labels:
        path.unlink()
    without = spec_of(make_spec, scenes, tmp_path / "cache 3", oracle="never")
    found["nothing"] = drive(without, "nothing")

    trials, weights = found["labels"]
    states = [trial.state for trial in trials]
    assert {TrialState.COMPLETE, TrialState.PRUNED} == set(states)
    assert {trial.params["method.name"] for trial in trials} == set(METHODS)
    for other in ("garbage", "nothing"):
        others, others_weights = found[other]
        assert [trial.state for trial in others] == states, other
        for one, two in zip(trials, others, strict=True):
            assert one.params == two.params
            assert without_labels_of_the_target(one.metrics) == without_labels_of_the_target(two.metrics), other
            assert weights[one.number].keys() == others_weights[one.number].keys()
            for name, value in weights[one.number].items():
                assert value.equal(others_weights[one.number][name]), (other, one.params, name)

    # The garbage is read where labels may be, so it would have been seen.
    of_target = [
        [trial.metrics[TARGET_MIOU] for trial in found[name][0] if trial.state is TrialState.COMPLETE]
        for name in ("labels", "garbage")
    ]
    assert of_target[0] != of_target[1]
    assert not any(name.startswith("oracle/") for trial in found["nothing"][0] for name in trial.metrics)

    assert {trial.number for trial in trials if ENSV in trial.metrics} >= {
        trial.number for trial in trials if trial.state is TrialState.COMPLETE
    }
    for criterion in criteria_of(without):
        if criterion == "oracle":
            continue
        chosen = [select(of_name, without, criterion=criterion) for of_name, _ in found.values()]
        assert chosen[0].used == criterion
        assert len(chosen[0].ranked) >= 3, criterion
        for selection in chosen[1:]:
            assert selection.picked.number == chosen[0].picked.number, criterion
            assert (selection.ranked, selection.used) == (chosen[0].ranked, chosen[0].used), criterion
            assert selection.rejected == chosen[0].rejected, criterion
