"""Rare-class sampling: how often classes and images are drawn, and that draws depend on their number alone."""

import math
from contextlib import closing

import numpy as np
import pytest
import torch

from segda.datasets.cache import DecodedSplit
from segda.datasets.loaders import training_batches
from segda.datasets.sampling import RareClasses, class_chances
from segda.datasets.statistics import class_counts, rarest_half
from segda.errors import ConfigError
from segda.types import IGNORE_INDEX

SHARES = np.array([0.40, 0.25, 0.15, 0.10, 0.05, 0.03, 0.02])
PIXELS = (SHARES * 10_000).astype(np.int64)


def of_temperature(temperature):
    odds = np.exp((1 - SHARES) / temperature)
    return odds / odds.sum()


@pytest.mark.parametrize("ratio", [1.0, 5.0, 10.0])
def test_the_rarest_class_is_drawn_ratio_times_as_often_as_the_most_frequent_one(ratio):
    chances = class_chances(PIXELS, ratio=ratio)
    assert chances[-1] / chances[0] == pytest.approx(ratio)
    assert chances.sum() == pytest.approx(1)
    assert (np.diff(chances) >= 0).all()  # classes are in descending order of frequency
    if ratio > 1:
        np.testing.assert_allclose(chances, of_temperature((0.40 - 0.02) / math.log(ratio)))


def test_the_published_temperature_draws_hardly_anything_but_the_rarest_classes():
    """With T = 0.01 as in DAFormer and seven classes: this is what a ratio is chosen instead for."""
    published, ours = of_temperature(0.01), class_chances(PIXELS, ratio=5.0)
    assert published[-3:].sum() > 0.99
    assert published[0] < 1e-15
    assert ours[-3:].sum() < 0.65
    assert ours.min() > 0.04


def test_absent_and_equally_frequent_classes():
    assert class_chances(np.array([5, 0, 5]), ratio=10.0).tolist() == [0.5, 0.0, 0.5]
    assert class_chances(np.array([0, 7]), ratio=10.0).tolist() == [0.0, 1.0]
    with pytest.raises(ConfigError, match="no image has a labelled pixel"):
        RareClasses(np.zeros((3, 2), dtype=np.int64), ratio=5.0, min_share=0.0)


# Four images, three classes: class 2 is a speck in image 0 and real in image 3; image 1 is void.
COUNTS = np.array([[899, 100, 1], [0, 0, 0], [500, 500, 0], [600, 380, 20]])


def test_images_are_drawn_uniformly_of_those_with_enough_of_the_class():
    rare = RareClasses(COUNTS, ratio=8.0, min_share=0.01)
    draws = [rare.draw(np.random.default_rng(number)) for number in range(4000)]
    counts = np.zeros((4, 3))
    np.add.at(counts, tuple(np.array(draws).T), 1)
    classes = counts.sum(axis=0)
    np.testing.assert_allclose(classes / 4000, rare.chances, atol=0.03)
    assert classes[2] / classes[0] == pytest.approx(8.0, rel=0.2)
    np.testing.assert_allclose(counts[[0, 2, 3], 0] / classes[0], 1 / 3, atol=0.08)
    assert counts[:, 2].tolist() == [0, 0, 0, classes[2]]  # the speck is no reason to draw image 0
    assert counts[1].sum() == 0


def test_where_no_image_has_enough_of_a_class_those_that_have_it_at_all_are_drawn():
    rare = RareClasses(COUNTS, ratio=8.0, min_share=0.1)
    draws = [rare.draw(np.random.default_rng(number)) for number in range(300)]
    assert {index for index, train_id in draws if train_id == 2} == {0, 3}
    assert rare.enough(0, 2) == 1
    assert rare.enough(3, 1) == 50  # half of a tenth of 1000 pixels
    assert rare.enough(3, 2) == 10  # half of what there is


def test_a_round_that_chooses_images_draws_of_those_alone():
    rare = RareClasses(COUNTS, ratio=8.0, min_share=0.01)
    part = rare.among(np.array([0, 2]))
    drawn = {part.draw(np.random.default_rng(number)) for number in range(300)}
    assert drawn == {(0, 0), (2, 0), (0, 1), (2, 1), (0, 2)}  # the speck is all that they have of class 2
    without = rare.among(np.array([2]))
    assert without.chances[2] == 0
    assert without.chances[1] / without.chances[0] == pytest.approx(rare.chances[1] / rare.chances[0])


def split_of(labels):
    labels = np.array(labels, dtype=np.uint8)
    images = np.repeat(labels[..., None], 3, axis=3)
    return DecodedSplit(images, labels, tuple(f"i{number}" for number in range(len(labels))), "test")


@pytest.fixture
def patches():
    """Twelve images of class 0 with a patch of class 1 at an edge of the first two."""
    labels = np.zeros((12, 64, 64), dtype=np.uint8)
    labels[0, 24:32, :8] = labels[1, 24:32, -8:] = 1
    labels[2:, :4] = IGNORE_INDEX
    return split_of(labels)


def batches(split, *, rare=True, size=(32, 32), start=0, steps=20, **parts):
    counts = class_counts(split, num_classes=2)
    chosen = RareClasses(counts, ratio=5.0, min_share=0.003) if rare else None
    settings = {"recipe": "aug1", "size": size, "batch_size": 4, "seed": 3}
    with closing(training_batches(split, rare=chosen, start_step=start, steps=steps, **settings | parts)) as stream:
        return [(batch.image, batch.label) for batch in stream]


def test_classes_are_counted_by_image_and_void_in_none(patches):
    counts = class_counts(patches, num_classes=2)
    assert counts.dtype == np.int64
    assert counts[:3].tolist() == [[64 * 64 - 64, 64], [64 * 64 - 64, 64], [60 * 64, 0]]


def test_rare_classes_come_often_and_stay_in_the_crop(patches):
    """One image in six has a patch, and one crop of it in five has it in it: five of six draws are for it, ten crops are tried."""
    share = [
        np.mean([(label == 1).sum().item() >= 6 for _, labels in batches(patches, rare=rare) for label in labels])
        for rare in (False, True)
    ]
    assert share[0] < 0.1
    assert share[1] > 0.55


def test_draws_depend_on_their_number_alone(patches):
    """Neither where the stream begins, nor loader processes, nor how many ranks share a batch changes them."""
    whole = batches(patches, steps=4)
    for other in (batches(patches, start=2, steps=2), batches(patches, start=2, steps=2, workers=1)):
        for (image, label), (expected_image, expected_label) in zip(other, whole[2:], strict=True):
            assert torch.equal(image, expected_image)
            assert torch.equal(label, expected_label)
    parts = [batches(patches, steps=4, rank=rank, ranks=2) for rank in range(2)]
    for (image, _), *ranks in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([part for part, _ in ranks]), image)


def test_the_rarest_half_of_the_scored_classes_is_under_represented():
    counts = np.array([[50, 1, 9, 0, 30, 7], [50, 1, 9, 0, 30, 1]])
    assert rarest_half(counts) == [1, 3, 5]
    assert rarest_half(counts, unscored={3}) == [1, 5]  # of five classes two
    assert rarest_half(np.array([[4, 4, 4]])) == [0]  # of equally rare ones the first
