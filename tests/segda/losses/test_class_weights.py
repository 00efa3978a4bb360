"""Weights of classes against their formulas."""

import math

import numpy as np
import pytest

from segda.losses.class_weights import CLASS_WEIGHTINGS, class_weights

# Three images, four classes: class 2 in one image only, class 3 in none.
COUNTS = np.array([[60, 40, 0, 0], [90, 10, 0, 0], [30, 30, 20, 0]])


def test_median_frequency_counts_the_pixels_of_images_that_have_the_class():
    """Shares of all images instead would make a class that few images have look rarer than it is where it is."""
    frequency = np.array([180 / 280, 80 / 280, 20 / 80])
    expected = np.median(frequency) / frequency
    got = class_weights(COUNTS, "median_frequency")
    np.testing.assert_allclose(got[:3], expected)
    assert got[3] == got[:3].max()
    assert got[1] == 1.0  # the median class
    assert got[2] > got[1] > got[0]


def test_enet_and_the_inverse_square_root_are_of_shares_of_all_pixels():
    share = np.array([180, 80, 20, 0]) / 280
    np.testing.assert_allclose(class_weights(COUNTS, "enet"), [1 / math.log(1.02 + item) for item in share])
    np.testing.assert_allclose(class_weights(COUNTS, "inverse_sqrt")[:3], share[:3] ** -0.5)
    enet = class_weights(np.array([[10**9, 0]]), "enet")
    np.testing.assert_allclose(enet, [1.4222, 50.4983], rtol=1e-4)


@pytest.mark.parametrize("weighting", CLASS_WEIGHTINGS)
def test_rare_classes_never_weigh_less_and_nothing_is_infinite(weighting):
    got = class_weights(COUNTS, weighting)
    assert np.isfinite(got).all()
    assert (got > 0).all()
    assert (np.diff(got) >= 0).all()  # classes are in descending order of frequency
    assert (class_weights(np.zeros((2, 3), dtype=np.int64), weighting) > 0).all()


def test_without_weights_all_classes_are_alike():
    assert class_weights(COUNTS, "none").tolist() == [1.0] * 4
