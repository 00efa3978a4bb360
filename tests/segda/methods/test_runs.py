"""What every method must show in whole trainings; a new line in METHODS is tested from then on."""

import pytest

from segda.methods import METHODS
from segda.testing.runs import RUN_CHECKS, RunCase


@pytest.mark.parametrize("check", RUN_CHECKS)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_the_contract_in_whole_trainings(name, check, tmp_path):
    RUN_CHECKS[check](RunCase(name), tmp_path)
