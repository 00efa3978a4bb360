import math

import pytest
import torch

from segda.discriminator_health import ACCURACIES, discriminator_trouble
from segda.methods import METHODS
from segda.testing.methods import MethodCase


def reports(*pairs):
    return [dict(zip(ACCURACIES, pair, strict=True)) for pair in pairs]


def test_a_discriminator_that_is_always_right_gives_no_signal():
    told = discriminator_trouble(reports((0.7, 0.6), (0.99, 0.995), (1.0, 1.0), (0.998, 0.991)))
    assert "always right at its last 3 reports (right on 99.8% of the source and 99.1% of the target)" in told


@pytest.mark.parametrize(
    "pairs",
    [
        [(0.5, 0.5), (0.52, 0.49), (0.5, 0.5)],
        [(1.0, 0.0), (0.0, 1.0), (0.98, 0.04)],  # always the same answer
    ],
)
def test_a_discriminator_that_never_left_chance_has_learned_nothing(pairs):
    assert "at chance at its last 3 reports and never better" in discriminator_trouble(reports(*pairs))


def test_chance_after_knowledge_may_be_alignment():
    told = discriminator_trouble(reports((0.9, 0.8), (0.55, 0.5), (0.5, 0.5), (0.49, 0.5)))
    assert "at chance at its last 3 reports, after 85%" in told
    assert "aligned" in told


@pytest.mark.parametrize(
    "pairs",
    [
        [(1.0, 1.0), (1.0, 1.0), (0.97, 1.0)],  # recovered
        [(0.5, 0.5), (0.5, 0.5), (0.7, 0.6)],
        [(0.8, 0.7)] * 5,
        [(1.0, 0.8)] * 3,  # one domain alone
        [(math.nan, math.nan)] * 3,
    ],
)
def test_a_discriminator_between_the_two_is_in_order(pairs):
    assert discriminator_trouble(reports(*pairs)) is None


def test_reports_without_a_discriminator_say_nothing():
    assert discriminator_trouble([{"train/loss_seg": 1.0}] * 4) is None
    assert discriminator_trouble([]) is None
    assert "at its only report" in discriminator_trouble([{"train/loss_seg": 1.0}, *reports((1.0, 1.0))])


def trained(change, *, lr=1e-2):
    """Train a discriminator beside a segmenter that stays as it is, and return what is said of it after six reports."""
    case = MethodCase(METHODS["adversarial"], {"discriminator": "light_light"})
    method = case.build()
    with torch.no_grad():
        method.segmenter.head.weight *= 30  # confident, as a trained network is
    optimizer = torch.optim.Adam(method.discriminators.parameters(), lr=lr)
    history = []
    for _ in range(6):
        sums = dict.fromkeys(ACCURACIES, 0.0)
        for number in range(10):
            output = method.training_step(change(case.step(number)))
            optimizer.zero_grad()
            output.losses["discriminator"].value.backward()
            optimizer.step()
            for name in ACCURACIES:
                sums[name] += output.logs[name.removeprefix("train/")].value.item() / 10
        history.append(sums)
    return discriminator_trouble(history)


def as_source(step):
    return step._replace(target=step.target._replace(image=step.labeled.image))


def white(step):
    return step._replace(target=step.target._replace(image=torch.full_like(step.labeled.image, 3.0)))


def test_both_dead_ends_are_told_in_real_trainings():
    # Separable at a glance: pinned at 1. The same images on both sides: at chance, however long it learns.
    assert "always right" in trained(white)
    assert "at chance" in trained(as_source)
    assert "never better" in trained(white, lr=0.0)
