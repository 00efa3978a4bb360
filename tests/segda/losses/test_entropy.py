"""Losses without a label against forms of their own in NumPy and float64."""

import numpy as np
import pytest
import torch

from segda.losses.class_prior import class_prior
from segda.losses.entropy import charbonnier_entropy, divergence_from_uniform, entropy, entropy_pixels
from segda.types import IGNORE_INDEX

CLASSES = 5


def scores(seed: int = 0, *, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(2, CLASSES, 6, 7, generator=torch.Generator().manual_seed(seed))


def softmax(logits: torch.Tensor) -> np.ndarray:
    plain = logits.detach().double().numpy()
    raised = np.exp(plain - plain.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def where() -> torch.Tensor:
    return torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(1)) < 0.6


@pytest.mark.parametrize("some", [False, True])
def test_entropy_is_the_mean_over_pixels_in_shares_of_the_largest(some):
    logits, counted = scores(), where() if some else torch.ones(2, 6, 7, dtype=torch.bool)
    probs = softmax(logits)
    expected = -(probs * np.log(probs)).sum(1)[counted.numpy()].mean() / np.log(CLASSES)
    assert entropy(logits, counted if some else None).value.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("some", [False, True])
def test_divergence_from_uniform_is_that_of_kullback_and_leibler(some):
    logits, counted = scores(), where() if some else torch.ones(2, 6, 7, dtype=torch.bool)
    probs = softmax(logits)
    pixels = ((1 / CLASSES) * (np.log(1 / CLASSES) - np.log(probs))).sum(1)
    got = divergence_from_uniform(logits, counted if some else None).value.item()
    assert got == pytest.approx(pixels[counted.numpy()].mean(), rel=1e-6)


def test_entropy_is_one_where_nothing_is_decided_and_zero_where_all_is():
    undecided, decided = torch.zeros(1, CLASSES, 2, 2), torch.zeros(1, CLASSES, 2, 2)
    decided[:, 3] = 1e4
    assert entropy_pixels(undecided) == pytest.approx(torch.ones(1, 2, 2))
    assert torch.equal(entropy_pixels(decided), torch.zeros(1, 2, 2))
    assert divergence_from_uniform(undecided).value.item() == pytest.approx(0, abs=1e-6)
    assert divergence_from_uniform(decided).value.item() > 1000


def test_descending_decides_predictions_and_the_divergence_undoes_it():
    """The signs."""
    for loss, way in ((entropy, -1), (divergence_from_uniform, -1)):
        logits = scores(scale=0.5).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(logits).value, logits)
        moved = logits + way * 20 * gradient
        largest = [float(torch.from_numpy(softmax(item)).amax(1).mean()) for item in (logits, moved)]
        assert (largest[1] > largest[0]) == (loss is entropy)


def test_without_a_pixel_that_counts_all_are_zero_with_a_gradient_of_zero():
    logits, nothing = scores().requires_grad_(), torch.zeros(2, 6, 7, dtype=torch.bool)
    label = torch.randint(0, CLASSES, (2, 6, 7))
    for loss in (
        entropy(logits, nothing),
        divergence_from_uniform(logits, nothing),
        charbonnier_entropy(logits, nothing, eta=2.0),
        class_prior(logits, label, nothing, share=0.5),
        class_prior(logits, torch.full_like(label, IGNORE_INDEX), share=0.5),
    ):
        assert loss.value.item() == 0
        (gradient,) = torch.autograd.grad(loss.value, logits)
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_a_prior_asks_for_what_classes_lack_of_a_share_of_their_frequency(share, some):
    logits, counted = scores(), where() if some else torch.ones(2, 6, 7, dtype=torch.bool)
    label = torch.randint(0, 3, (3, 8, 8), generator=torch.Generator().manual_seed(2))
    label[0, :4], label[1] = IGNORE_INDEX, 1
    known = label.numpy()[label.numpy() != IGNORE_INDEX]
    frequency = np.bincount(known, minlength=CLASSES) / len(known)
    predicted = softmax(logits).transpose(0, 2, 3, 1)[counted.numpy()].mean(0)
    expected = np.maximum(0, share * frequency - predicted).sum()
    assert (expected > 0) == (share == 0.9)
    got = class_prior(logits, label, counted if some else None, share=share).value.item()
    assert got == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_a_prior_asks_for_nothing_of_classes_that_are_frequent_enough_or_absent_from_the_source():
    logits = scores(scale=1.0).requires_grad_()
    with torch.no_grad():
        logits[:, 0] += 8  # all pixels are of class 0
    label = torch.tensor([0, 0, 0, 1]).view(1, 2, 2)
    loss = class_prior(logits, label, share=0.5)
    assert loss.value.item() == pytest.approx(0.5 * 0.25, abs=2e-3)  # what class 1 lacks; class 0 may have more
    (gradient,) = torch.autograd.grad(loss.value, logits)
    assert bool((gradient[:, 1] < 0).all())  # descending gives it to class 1
    assert bool((gradient[:, 0] > 0).all())


@pytest.mark.parametrize("eta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("some", [False, True])
def test_charbonnier_is_a_power_of_the_entropy_in_shares_of_the_largest(some, eta):
    """Divided by ln C, not by ln 19 for every number of classes; 1e-8 keeps the slope finite."""
    logits, counted = scores(), where() if some else torch.ones(2, 6, 7, dtype=torch.bool)
    probs = softmax(logits)
    share = -(probs * np.log(probs)).sum(1)[counted.numpy()] / np.log(CLASSES)
    expected = ((share**2 + 1e-8) ** eta).mean()
    got = charbonnier_entropy(logits, counted if some else None, eta=eta).value.item()
    assert got == pytest.approx(expected, rel=1e-5)
    assert charbonnier_entropy(torch.zeros(1, CLASSES, 2, 2), eta=eta).value.item() == pytest.approx(1, rel=1e-5)


def test_charbonnier_has_a_finite_slope_where_predictions_are_certain_and_lowers_entropy():
    certain = torch.tensor([100.0, 0, 0, 0, 0]).reshape(1, CLASSES, 1, 1).requires_grad_()
    (slope,) = torch.autograd.grad(charbonnier_entropy(certain, eta=0.5).value, certain)
    assert bool(slope.isfinite().all())
    logits = scores().requires_grad_()
    (slope,) = torch.autograd.grad(charbonnier_entropy(logits, eta=2.0).value, logits)
    assert entropy(logits - 10 * slope).value < entropy(logits).value
