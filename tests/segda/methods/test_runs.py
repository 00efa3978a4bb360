"""What every method must show in whole trainings; a new line in METHODS is tested from then on."""

from pathlib import Path

import pytest

from segda.methods import METHODS
from segda.testing.runs import RUN_CHECKS, RunCase

pytestmark = pytest.mark.usefixtures("narrow_discriminator")

STAGES = {"warm_up": 0.2, "rounds": 2}

# Settings beyond the defaults that deserve whole trainings too: padded images, rounds inside of another method, and what every
# method may be given: weights of classes, draws of rare ones, looks of the target.
CASES = {name: RunCase(name) for name in METHODS} | {
    "self_training-adaptive-padded": RunCase(
        "self_training", {"thresholds": "instance_adaptive", "lambda_ent": 0.4}, augmentation="scale_crop"
    ),
    "mic-on-self_training": RunCase("mic", {"host": {"name": "self_training", "warm_up": 0.2, "rounds": 2}}),
    "dacs-padded": RunCase("dacs", {"tau": 0.2, "mix": "cutmix"}, augmentation="scale_crop_color"),
    "mic-on-joint": RunCase("mic", {"host": {"name": "joint"}}),
    "mic-on-adversarial": RunCase("mic", {"host": {"name": "adversarial"}}),
    "mic-on-lse": RunCase("mic", {"host": {"name": "lse", **STAGES}}),
    "mic-on-external_labels": RunCase("mic", {"host": {"name": "external_labels", "weighting": "confidence"}}),
    "mic-on-pixda": RunCase("mic", {"host": {"name": "pixda", **STAGES, "distillation": 0.2}}),
    "fda-in-rounds": RunCase("fda", STAGES),
    "min_entropy-balanced-and-styled": RunCase(
        "min_entropy",
        {"lambda_ent": 0.1},
        {"loss": {"name": "focal", "class_weights": "median_frequency"}},
        data={"sampling": {"name": "rare_class"}, "style": {"name": "histogram"}},
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A folder for each case, in which its checks share a training."""
    return {name: tmp_path_factory.mktemp(name) for name in CASES}


@pytest.mark.parametrize("check", RUN_CHECKS)
@pytest.mark.parametrize("name", CASES)
def test_every_method_keeps_the_contract_in_whole_trainings(name, check, folders):
    RUN_CHECKS[check](CASES[name], folders[name])
