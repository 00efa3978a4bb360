import math

import numpy as np
import pytest
import torch

from segda.discriminators.inputs import probabilities, self_information


def reference(logits: np.ndarray, *, scaled: bool) -> np.ndarray:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    probs = shifted / shifted.sum(1, keepdims=True)
    information = -probs * np.log2(probs + 1e-30) / np.log2(logits.shape[1])
    return information * np.log(logits.shape[1]) * math.e if scaled else information


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("num_classes", [2, 7, 19])
def test_self_information_equals_its_float64_form(num_classes: int, scaled: bool) -> None:
    logits = 4 * torch.randn(2, num_classes, 9, 8, generator=torch.Generator().manual_seed(0))

    information = self_information(logits, scaled=scaled)

    expected = reference(logits.double().numpy(), scaled=scaled)
    np.testing.assert_allclose(information.numpy(), expected, atol=2e-6)
    assert information.min() >= 0
    assert information.max() <= (1.000001 if scaled else 1 / (math.e * math.log(num_classes)) + 1e-6)


# The figures of the literature: with 19 classes a discriminator sees at most an eighth of what it sees of probabilities.
@pytest.mark.parametrize(("num_classes", "largest"), [(19, 0.125), (12, 0.148), (7, 0.189)])
def test_no_class_has_more_information_than_at_one_over_e(num_classes: int, largest: float) -> None:
    probs = torch.full((1, num_classes, 1, 1), (1 - 1 / math.e) / (num_classes - 1))
    probs[0, 0] = 1 / math.e
    assert self_information(probs.log())[0, 0].item() == pytest.approx(largest, abs=5e-4)
    assert self_information(probs.log(), scaled=True)[0, 0].item() == pytest.approx(1)


def test_the_sum_over_classes_is_the_normalized_entropy() -> None:
    uniform, certain = torch.zeros(1, 5, 2, 2), torch.zeros(1, 5, 2, 2)
    certain[:, 3] = 200
    assert self_information(uniform).sum(1) == pytest.approx(torch.ones(1, 2, 2))
    assert (self_information(certain) == 0).all()


def test_a_probability_that_is_rounded_to_zero_has_a_finite_derivative() -> None:
    logits = torch.tensor([0.0, -500.0, -1e4]).view(1, 3, 1, 1).requires_grad_()
    self_information(logits).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_maps_are_single_precision_and_softmaxed_once_under_autocast() -> None:
    logits = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        probs, information = probabilities(logits), self_information(logits)
    assert probs.dtype == information.dtype == torch.float32
    powers = np.exp(logits.double().numpy())
    np.testing.assert_allclose(probs, powers / powers.sum(1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(information, reference(logits.double().numpy(), scaled=False), atol=1e-6)
