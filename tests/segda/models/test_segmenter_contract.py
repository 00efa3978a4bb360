"""What every network must show with every choice of its settings; a new line in MODELS or BACKBONES is tested from then on."""

import pytest
import torch

from segda.models import MODELS, ModelConfig
from segda.testing.models import ARITHMETIC_CHECKS, SegmenterCheck, check_shapes, configurations

CASES = {config.label(): config for name, kind in MODELS.items() for config in configurations(kind, name=name)}


def _is_small(config: ModelConfig) -> bool:
    with torch.device("meta"):
        network = MODELS[config.name](config, num_classes=2)
    return sum(parameter.numel() for parameter in network.parameters()) < 15e6


# Of deep networks shapes alone are checked: their arithmetic is that of their smaller kin.
SMALL = {label: config for label, config in CASES.items() if _is_small(config)}


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
def test_every_output_has_the_size_of_the_image(config: ModelConfig) -> None:
    check_shapes(MODELS[config.name], config)


@pytest.mark.parametrize("check", ARITHMETIC_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("config", SMALL.values(), ids=SMALL)
def test_the_arithmetic_keeps_the_contract(config: ModelConfig, check: SegmenterCheck) -> None:
    check(MODELS[config.name], config)
