"""Decisions by the labels of a few images, on tables that are made up by hand or by benchmarks/few_labels.py."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from segda.metrics import ConfusionMatrix
from sweeps.selection.few_labels import (
    FURTHER,
    LEADERS,
    RANDOM_IMAGES,
    interval,
    miou_of,
    most_disputed,
    random_images,
    standing,
)

NONE = frozenset()


@pytest.fixture(scope="module")
def bench():
    path = Path(__file__).parents[2] / "benchmarks" / "few_labels.py"
    specification = importlib.util.spec_from_file_location("few_labels_bench", path)
    module = sys.modules[specification.name] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    yield module
    del sys.modules[specification.name]


@pytest.fixture(scope="module")
def tables(bench):
    return [bench.made_up(seed, gap=bench.GAPS["narrow gaps"]) for seed in range(100)]


def counts(*rows):
    return np.array(rows, dtype=np.int64)


def better_everywhere(images=12):
    """Three finalists, of which the last is right in more pixels of every image."""
    one = [counts([8 + k, 2 - k], [2 - k, 8 + k]) for k in range(3)]
    return np.stack([np.stack(one)] * images)


def test_a_mean_iou_is_that_of_the_metrics():
    rng = np.random.default_rng(0)
    for unscored in (NONE, frozenset({1})):
        table = rng.integers(0, 50, (4, 4))
        table[3] = table[:, 3] = 0  # appears nowhere
        matrix = ConfusionMatrix(4)
        matrix.counts += torch.from_numpy(table)
        assert miou_of(table, unscored) == pytest.approx(matrix.compute(unscored=unscored).miou)


def test_pixels_of_all_images_count_together():
    small, large = counts([1, 0], [1, 0]), counts([0, 0], [0, 98])
    said = standing(np.stack([small[None], large[None]]), [True, True], seed=0, unscored=NONE)
    assert said.miou == (pytest.approx(miou_of(small + large)),)
    assert said.miou[0] != pytest.approx((miou_of(small) + miou_of(large)) / 2)


def test_the_random_images_follow_from_the_seed_and_leave_out_what_must_not_be_asked():
    assert random_images(50, seed=3) == random_images(50, seed=3)
    assert random_images(50, seed=3) != random_images(50, seed=4)
    first = random_images(50, seed=3)
    assert len(set(first)) == RANDOM_IMAGES
    assert len(random_images(3, seed=3)) == 3


def test_each_image_is_drawn_as_often_as_every_other():
    drawn = np.bincount([image for seed in range(2000) for image in random_images(10, seed=seed)], minlength=10)
    assert drawn.min() > 900
    assert drawn.max() < 1100


def test_the_most_disputed_are_those_in_which_the_leaders_differ_and_nobody_else():
    shares = np.zeros((4, 4, 4))
    shares[0, 0, 3] = shares[0, 3, 0] = 0.9  # the last finalist is no leader
    shares[1, 0, 1] = shares[1, 1, 0] = 0.2
    shares[2, 1, 2] = shares[2, 2, 1] = 0.4
    assert most_disputed(shares, (0, 1, 2), left=[0, 1, 2, 3], count=3) == [2, 1, 0]
    assert most_disputed(shares, (0, 1, 2), left=[0, 1, 3], count=1) == [1]
    assert most_disputed(shares, (0, 1, 2), left=[3], count=5) == [3]


def test_who_is_better_everywhere_is_picked_without_doubt():
    said = standing(better_everywhere(), [True] * 5 + [False] * 7, seed=0, unscored=NONE)
    assert said.pick == 2
    assert said.order == (2, 1, 0)
    assert (said.certainty, said.regret, said.regret_bound, said.regret_with_more) == (1.0, 0.0, 0.0, 0.0)


def test_of_equals_the_first_without_labels_is_picked():
    same = np.stack([np.stack([counts([5, 5], [5, 5])] * 3)] * 6)
    assert standing(same, [True] * 6, seed=0, unscored=NONE).pick == 0


def test_equal_labels_say_the_same_again_and_more_promise_less_regret(bench, tables):
    shown = []
    for seed, table in enumerate(tables[:20]):
        chosen = bench.asked(table, "disputed, in rounds", labels=15, seed=seed)
        one, again = (
            standing(table.confusions[chosen], [place < 5 for place in range(15)], seed=seed, unscored=NONE)
            for _ in range(2)
        )
        assert one == again
        shown.append((one.regret, one.regret_with_more))
    now, more = np.mean(shown, axis=0)
    assert FURTHER == 10
    assert more < now


def test_only_the_random_part_tells_of_the_target():
    table = better_everywhere()
    table[5:] = 0
    table[5:, :, 0, 1] = 1000  # disputed images are all wrong
    said = standing(table, [True] * 5 + [False] * 7, seed=0, unscored=NONE)
    assert [item.images for item in said.on_random] == [5, 5, 5]
    assert said.on_random[2].miou == pytest.approx(miou_of(table[:5, 2].sum(axis=0)))
    assert said.miou[2] < 0.1 < said.on_random[2].miou
    assert standing(table[5:], [False] * 7, seed=0, unscored=NONE).on_random is None
    assert standing(table[5:], [False] * 7, seed=0, unscored=NONE).expected is None


def test_what_is_expected_of_the_pick_is_not_judged_by_the_labels_that_chose_it():
    # Two finalists of pure luck: each is right in half of the images, and the labels choose the luckier one.
    rng = np.random.default_rng(0)
    right, wrong = counts([10, 0], [0, 10]), counts([4, 6], [6, 4])
    flattered, told = [], []
    for _ in range(200):
        table = np.stack([np.stack([right if rng.random() < 0.5 else wrong for _ in range(6)]) for _ in range(8)])
        said = standing(table, [True] * 8, seed=0, unscored=NONE)
        flattered.append(said.on_random[said.pick].miou)
        told.append(said.expected.miou)
    truth = float(miou_of(right + wrong))
    assert np.mean(flattered) > truth + 0.05
    assert abs(np.mean(told) - truth) < abs(np.mean(flattered) - truth) / 2


def test_two_images_have_no_interval_and_none_no_standing():
    assert interval(better_everywhere(2)[:, 0], NONE).low is None
    with pytest.raises(ValueError, match="at least one image"):
        standing(better_everywhere()[:0], [], seed=0, unscored=NONE)


@pytest.mark.parametrize("images", [5, 10, 20])
def test_the_interval_of_random_images_covers_at_about_its_nominal_rate(images, tables):
    rng = np.random.default_rng(images)
    held = []
    for table in tables:
        truth = miou_of(table.confusions.sum(axis=0))
        for network in range(0, 8, 2):
            ends = interval(table.confusions[rng.permutation(150)[:images], network], NONE)
            held.append(ends.low <= truth[network] <= ends.high)
    assert 0.9 <= np.mean(held) <= 0.99


def test_disputed_images_need_about_half_of_the_labels_of_random_ones(bench, tables):
    def mean(rule, labels):
        return np.mean([bench.regret_of(table, rule, labels=labels, seed=seed) for seed, table in enumerate(tables)])

    assert LEADERS == 3
    assert mean("disputed, in rounds", 20) <= mean("random", 40) * 1.1
    assert mean("disputed, in rounds", 10) <= mean("random", 20) * 1.1


def test_the_bound_on_the_regret_holds(bench, tables):
    held = []
    for seed, table in enumerate(tables):
        for labels in (5, 20):
            chosen = bench.asked(table, "disputed, in rounds", labels=labels, seed=seed)
            said = standing(table.confusions[chosen], [place < 5 for place in range(labels)], seed=seed, unscored=NONE)
            held.append(table.regret(said.pick) <= said.regret_bound)
    assert np.mean(held) >= 0.93
