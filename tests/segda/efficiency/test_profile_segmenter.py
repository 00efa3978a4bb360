import dataclasses

import pytest
import torch
from torch import nn

from segda.efficiency import (
    EfficiencyProfile,
    count_macs,
    count_parameters,
    measure_peak_memory,
    profile_segmenter,
)
from segda.models import build_segmenter
from segda.models.bisenet_v1 import BiSeNetV1

SHAPE = (1, 3, 33, 47)


@pytest.fixture(scope="module")
def segmenter() -> nn.Module:
    return build_segmenter(BiSeNetV1.Config(), num_classes=4, pretrained=False)


@pytest.fixture(scope="module")
def profile(segmenter: nn.Module) -> EfficiencyProfile:
    return profile_segmenter(segmenter, input_shape=SHAPE, warmup=1, runs=5)


def test_metrics_have_the_names_that_searches_use(profile: EfficiencyProfile) -> None:
    assert set(profile.metrics()) == {
        "num_parameters",
        "macs",
        "latency_ms",
        "latency_p90_ms",
        "latency_p95_ms",
        "latency_iqr_ms",
        "latency_spread",
        "latency_reliable",
        "fps",
        "peak_memory_bytes",
    }


def test_a_profile_joins_the_single_measurements(segmenter: nn.Module, profile: EfficiencyProfile) -> None:
    metrics = profile.metrics()

    assert metrics["num_parameters"] == count_parameters(segmenter)
    assert metrics["macs"] == count_macs(segmenter, input_shape=SHAPE)
    assert metrics["peak_memory_bytes"] == measure_peak_memory(segmenter, input_shape=SHAPE)
    assert metrics["fps"] == pytest.approx(1000 / metrics["latency_ms"])
    assert 0 < metrics["latency_ms"] <= metrics["latency_p90_ms"] <= metrics["latency_p95_ms"]


def test_the_conditions_say_what_the_numbers_hold_for(profile: EfficiencyProfile) -> None:
    conditions = profile.conditions

    assert conditions["device"]
    assert conditions["precision"] == "fp32"
    assert conditions["input_shape"] == "1x3x33x47"
    assert conditions["torch"] == str(torch.__version__)
    assert (conditions["warmup"], conditions["runs"]) == (1, 5)
    assert conditions["threads"] == profile.latency.threads


def test_a_profile_is_frozen(profile: EfficiencyProfile) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.macs = 0  # type: ignore[misc]


def test_profiling_leaves_the_network_as_it_was(segmenter: nn.Module, profile: EfficiencyProfile) -> None:
    assert segmenter.training
    assert len(list(segmenter.auxiliary_heads)) == 2
