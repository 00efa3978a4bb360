"""Thresholds of pseudo-labels against an independent form in NumPy and float64, which sorts all confidences."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from segda.methods.thresholds import (
    adapted_thresholds,
    class_balanced_thresholds,
    constant_thresholds,
    count_confidences,
    label_by_thresholds,
    label_the_confident,
    quantile_thresholds,
)
from segda.types import IGNORE_INDEX

CLASSES = 4


def probabilities(*, sharpness: float = 2.0, seed: int = 0) -> Tensor:
    """Predictions in which class 3 is never ahead and class 0 is surer than the others."""
    logits = sharpness * torch.randn(3, CLASSES, 40, 50, generator=torch.Generator().manual_seed(seed))
    logits[:, 0] = 1.5 * logits[:, 0]
    logits[:, 3] = logits.min() - 1
    return logits.softmax(dim=1)


def exact_thresholds(probs: Tensor, portion: float) -> np.ndarray:
    """Sort the confidences of each class, most confident first; the last one that is kept is the threshold."""
    plain = probs.double().numpy()
    confidence, prediction = plain.max(axis=1), plain.argmax(axis=1)
    thresholds = np.ones(CLASSES)
    for number in range(CLASSES):
        ordered = np.sort(confidence[prediction == number])[::-1]
        rank = int(np.floor(len(ordered) * portion))
        if rank:
            thresholds[number] = ordered[rank - 1]
    return thresholds


def exact_labels(probs: Tensor, thresholds: np.ndarray) -> np.ndarray:
    ratio = probs.double().numpy() / thresholds[:, None, None]
    return np.where(ratio.max(axis=1) >= 1, ratio.argmax(axis=1), IGNORE_INDEX)


@pytest.mark.parametrize("portion", [0.05, 0.2, 0.5, 0.9])
def test_thresholds_and_labels_are_those_of_sorted_confidences_up_to_a_bin(portion):
    probs = probabilities()
    thresholds = class_balanced_thresholds(count_confidences(probs), portion)
    exact = exact_thresholds(probs, portion)
    too_low = exact - thresholds.double().numpy()
    assert (too_low[:3] > 0).all()
    assert (too_low <= np.maximum(0.0028 * (1 - exact), 2e-7)).all()
    labels, expected = label_by_thresholds(probs, thresholds), exact_labels(probs, exact)
    assert (labels.numpy() == expected).mean() > 0.995
    assert (expected != IGNORE_INDEX).any()
    assert (expected == IGNORE_INDEX).any()


@pytest.mark.parametrize("sharpness", [1.0, 30.0])
def test_at_least_the_portion_of_each_class_is_kept_and_hardly_more(sharpness):
    """A sharp network is sure of nearly everything, up to probabilities of exactly one."""
    probs = probabilities(sharpness=sharpness)
    confidence, prediction = probs.max(dim=1)
    thresholds = class_balanced_thresholds(count_confidences(probs), 0.3)
    for number in range(3):
        own = confidence[prediction == number]
        kept = int((own > thresholds[number]).sum())
        as_sure = int((own >= min(own.sort(descending=True).values[kept - 1].item(), 1 - 2e-7)).sum())
        assert int(0.3 * len(own)) <= kept
        assert kept <= max(1.02 * 0.3 * len(own) + 2, as_sure)


def test_a_class_that_is_never_predicted_keeps_nothing():
    probs = probabilities()
    thresholds = class_balanced_thresholds(count_confidences(probs), 1.0)
    assert thresholds[3] == 1
    assert not (label_by_thresholds(probs, thresholds) == 3).any()
    certain = torch.zeros(1, CLASSES, 1, 1)
    certain[0, 3] = 1  # as sure as can be of a class that was never counted
    assert (label_by_thresholds(certain, thresholds) == IGNORE_INDEX).all()


def test_a_rank_of_zero_keeps_nothing():
    probs = probabilities()[:1, :, :2, :2]
    thresholds = class_balanced_thresholds(count_confidences(probs), 0.1)
    assert torch.equal(thresholds, torch.ones(CLASSES))
    assert (label_by_thresholds(probs, thresholds) == IGNORE_INDEX).all()


def test_a_portion_of_one_keeps_every_prediction():
    probs = probabilities()
    labels = label_by_thresholds(probs, class_balanced_thresholds(count_confidences(probs), 1.0))
    assert (labels != IGNORE_INDEX).all()


def test_permuting_the_classes_permutes_thresholds_and_labels():
    order = torch.tensor([2, 0, 3, 1])  # new class -> old one
    probs = probabilities()
    thresholds = class_balanced_thresholds(count_confidences(probs), 0.3)
    permuted = class_balanced_thresholds(count_confidences(probs[:, order]), 0.3)
    assert torch.equal(permuted, thresholds[order])
    labels, renamed = label_by_thresholds(probs, thresholds), label_by_thresholds(probs[:, order], permuted)
    kept = labels != IGNORE_INDEX
    assert torch.equal(kept, renamed != IGNORE_INDEX)
    assert torch.equal(order[renamed[kept]], labels[kept])


def test_a_larger_portion_labels_more_pixels_and_loses_none():
    probs = probabilities()
    counts = count_confidences(probs)
    labeled = [
        label_by_thresholds(probs, class_balanced_thresholds(counts, p)) != IGNORE_INDEX for p in (0.1, 0.3, 0.6)
    ]
    for fewer, more in itertools.pairwise(labeled):
        assert int(fewer.sum()) < int(more.sum())
        assert bool((more | ~fewer).all())


def test_counts_of_images_add_up_to_those_of_all():
    probs = probabilities()
    counts = count_confidences(probs)
    assert torch.equal(counts, sum(count_confidences(image[None]) for image in probs))
    assert int(counts.sum()) == probs[:, 0].numel()


def test_the_class_is_the_one_that_exceeds_its_threshold_most_not_the_most_probable_one():
    probs = torch.tensor([0.55, 0.45]).reshape(1, 2, 1, 1)
    assert label_by_thresholds(probs, torch.tensor([0.9, 0.3])).item() == 1
    assert label_by_thresholds(probs, torch.tensor([0.5, 0.44])).item() == 0
    assert label_by_thresholds(probs, torch.tensor([0.9, 0.5])).item() == IGNORE_INDEX


def test_a_constant_threshold_keeps_what_is_more_probable():
    probs = probabilities()
    labels = label_by_thresholds(probs, constant_thresholds(CLASSES, 0.8, device=probs.device))
    confidence, prediction = probs.double().numpy().max(axis=1), probs.numpy().argmax(axis=1)
    # Where the quotient of float32 numbers is not about one.
    clear = np.abs(confidence / 0.8 - 1) > 1e-6
    expected = np.where(confidence > 0.8, prediction, IGNORE_INDEX)
    assert (labels.numpy() == expected)[clear].all()


def exact_adapted(probs: np.ndarray, thresholds: np.ndarray, alpha: float, beta: float, gamma: float) -> np.ndarray:
    confidence, prediction = probs.max(0).ravel(), probs.argmax(0).ravel()
    seen = [
        np.percentile(np.append(confidence[prediction == c], theta), 100 * (1 - alpha * theta**gamma))
        for c, theta in enumerate(thresholds)
    ]
    return np.minimum(beta * thresholds + (1 - beta) * np.array(seen), 0.999)


@pytest.mark.parametrize(
    ("alpha", "beta", "gamma"), [(0.2, 0.9, 8.0), (0.6, 0.5, 1.0), (1.0, 0.0, 0.0), (0.0, 0.3, 8.0)]
)
def test_adaptive_thresholds_follow_the_percentile_of_each_class_image_by_image(alpha, beta, gamma):
    """The percentile is 100 * (1 - alpha * theta^gamma), of the confidences and the threshold itself."""
    probs = probabilities(sharpness=1.5)
    got, expected = torch.full((CLASSES,), 0.9, dtype=torch.float64), np.full(CLASSES, 0.9)
    for image in probs:
        got = adapted_thresholds(image, got, alpha=alpha, beta=beta, gamma=gamma)
        expected = exact_adapted(image.double().numpy(), expected, alpha, beta, gamma)
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9)
        labels = label_the_confident(image, got).numpy()
        plain = image.double().numpy()
        kept = plain.max(0) > expected[plain.argmax(0)]
        assert np.array_equal(labels, np.where(kept, plain.argmax(0), IGNORE_INDEX))
    assert got[3] == pytest.approx(0.9)  # never predicted: united with itself alone
    assert len(set(got[:3].tolist())) == 3


def test_adaptive_thresholds_stay_below_certainty_and_what_is_certain_is_kept():
    certain = torch.zeros(CLASSES, 8, 8)
    certain[1] = 1
    thresholds = torch.full((CLASSES,), 0.9, dtype=torch.float64)
    for _ in range(100):
        thresholds = adapted_thresholds(certain, thresholds, alpha=0.2, beta=0.9, gamma=8.0)
    assert thresholds[1] == 0.999
    assert (label_the_confident(certain, thresholds) == 1).all()


def test_an_adaptive_threshold_judges_the_most_probable_class_and_no_other():
    """Unlike class-balanced ones, which divide first."""
    probs = torch.tensor([0.55, 0.45]).reshape(2, 1, 1)
    assert label_the_confident(probs, torch.tensor([0.9, 0.3])).item() == IGNORE_INDEX
    assert label_the_confident(probs, torch.tensor([0.5, 0.3])).item() == 0


@pytest.mark.parametrize("quantile", [0.0, 0.34, 0.5, 0.66, 0.99])
@pytest.mark.parametrize("cap", [0.6, 1.0])
def test_quantile_thresholds_are_those_of_sorted_confidences_up_to_a_bin(quantile, cap):
    probs = probabilities()
    thresholds = quantile_thresholds(count_confidences(probs), quantile, cap=cap).double().numpy()
    confidence, prediction = probs.double().numpy().max(axis=1), probs.numpy().argmax(axis=1)
    for number in range(3):
        ascending = np.sort(confidence[prediction == number])
        exact = min(ascending[round(quantile * len(ascending))], cap)
        assert exact - max(0.0028 * (1 - exact), 2e-7) <= thresholds[number] <= exact + 1e-7
        kept = (confidence[prediction == number] > thresholds[number]).mean()
        assert kept >= (ascending >= exact).mean()
        assert kept <= (ascending >= exact).mean() + 0.02


def test_quantile_thresholds_of_absent_and_single_predictions():
    """A class that is never predicted keeps nothing; a single prediction, beyond which the authors' index reaches, is kept."""
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.3, 0.4, 0.3]]).T.reshape(1, 3, 1, 3)
    thresholds = quantile_thresholds(count_confidences(probs), 0.66, cap=0.9)
    assert thresholds[2] == 1
    assert label_the_confident(probs, thresholds).flatten().tolist() == [0, 1, IGNORE_INDEX]
    certain = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1)
    assert label_the_confident(certain, thresholds).item() == IGNORE_INDEX
