"""What every method must show in whole trainings; a new line in METHODS is tested from then on."""

import pytest

from segda.methods import METHODS
from segda.testing.runs import RUN_CHECKS, RunCase

# Settings beyond the defaults that deserve whole trainings too: padded images, rounds inside of another method.
CASES = {name: RunCase(name) for name in METHODS} | {
    "self_training-adaptive-padded": RunCase(
        "self_training", {"thresholds": "instance_adaptive", "lambda_ent": 0.4}, augmentation="scale_crop"
    ),
    "mic-on-self_training": RunCase("mic", {"host": {"name": "self_training", "warm_up": 0.2, "rounds": 2}}),
    "dacs-padded": RunCase("dacs", {"tau": 0.2, "mix": "cutmix"}, augmentation="scale_crop_color"),
    "mic-on-joint": RunCase("mic", {"host": {"name": "joint"}}),
}


@pytest.mark.parametrize("check", RUN_CHECKS)
@pytest.mark.parametrize("name", CASES)
def test_every_method_keeps_the_contract_in_whole_trainings(name, check, tmp_path):
    RUN_CHECKS[check](CASES[name], tmp_path)
