"""What the best of several is worth: images that are made up, of candidates that are known to be equal or not."""

import numpy as np
import pytest
import torch

from segda.metrics import ConfusionMatrix
from sweeps.selection.winners_curse import corrected


def candidate(generator, right, *, images=40, pixels=200, spread=0.1):
    """Confusions of images: a share of right pixels that scatters over the images around a mean, two classes."""
    shares = np.clip(generator.normal(right, spread, images), 0.02, 0.98)
    counts = np.zeros((images, 2, 2), dtype=np.int32)
    for train_id in (0, 1):
        counts[:, train_id, train_id] = generator.binomial(pixels, shares)
        counts[:, train_id, 1 - train_id] = pixels - counts[:, train_id, train_id]
    return counts


def miou(right):
    return right / (2 - right)


@pytest.mark.slow
def test_of_equal_candidates_the_corrected_best_is_unbiased_and_the_naive_one_is_not():
    naive, value, held = [], [], 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        found = corrected([candidate(generator, 0.8) for _ in range(30)], seed=seed)
        naive.append(found.naive - miou(0.8))
        value.append(found.value - miou(0.8))
        held += found.low <= miou(0.8) <= found.high
    error = np.std(value) / np.sqrt(len(value))
    assert np.mean(naive) > 0.02
    assert abs(np.mean(value)) < 0.004 + 2 * error
    assert held >= 54  # 95 % of 60 are 57


def test_a_candidate_that_is_far_ahead_needs_no_correction():
    generator = np.random.default_rng(0)
    found = corrected([candidate(generator, right) for right in (0.9, 0.5, 0.5)], seed=0)
    assert found.value == pytest.approx(found.naive, abs=0.004)
    assert (found.candidates, found.images) == (3, 40)
    assert found.low < found.value < found.high


def test_a_class_that_is_rare_is_no_luck():
    """Of twenty images one has it: a third of them lacks it mostly, and whoever predicts it there has nothing right."""
    counts = np.zeros((20, 3, 3), dtype=np.int32)
    counts[:, 0, 0] = counts[:, 1, 1] = 90
    counts[:, 0, 2] = 10  # taken for the rare one
    counts[0, 2, 2] = 800
    worse = counts.copy()
    worse[:, 1, 1], worse[:, 1, 0] = 30, 60
    found = corrected([counts, worse], seed=0)
    assert found.value == pytest.approx(found.naive, abs=0.005)


def test_the_naive_figure_is_the_mean_iou_that_trainings_report():
    generator = np.random.default_rng(1)
    counts = generator.integers(0, 9, (12, 4, 4)).astype(np.int32)
    counts[:, 3] = counts[:, :, 3] = 0  # a class that nobody has
    matrix = ConfusionMatrix(4)
    matrix.counts += torch.from_numpy(counts.sum(axis=0))
    for unscored in ((), (1,)):
        found = corrected([counts, counts // 2 * 0 + np.eye(4, dtype=np.int32)[::-1]], unscored=unscored)
        assert found.naive == pytest.approx(matrix.compute(unscored=frozenset(unscored)).miou)


def test_the_same_draws_give_the_same_figures():
    generator = np.random.default_rng(2)
    candidates = [candidate(generator, 0.7) for _ in range(3)]
    assert corrected(candidates, seed=1) == corrected(candidates, seed=1)


@pytest.mark.parametrize(("number", "images"), [(1, 40), (3, 9)])
def test_one_candidate_or_few_images_are_not_corrected(number, images):
    generator = np.random.default_rng(3)
    assert corrected([candidate(generator, 0.7, images=images) for _ in range(number)]) is None
