"""What repeated trainings let one believe: trainings that are made up, of configurations whose means are known."""

import numpy as np
import pytest

from sweeps.file.parts import SeedBudget
from sweeps.selection.belief import belief, next_to_train
from sweeps.selection.seed_budget import Run, next_run, standing

DEVIATION = 0.007


def test_a_clear_lead_is_believed_and_equals_are_not_told_apart():
    clear = belief([[0.60, 0.61, 0.605], [0.50, 0.51, 0.505]], seed=0)
    assert clear.leader == 0
    assert clear.best[0] > 0.99
    assert clear.means == pytest.approx((0.605, 0.505), abs=0.003)
    assert clear.deviation == pytest.approx(0.005)
    equal = belief([[0.60, 0.61, 0.605], [0.605, 0.60, 0.61]], seed=0)
    assert max(equal.best) < 0.7


def test_the_best_of_many_equals_is_drawn_to_the_others():
    naive, believed = [], []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        figures = [list(generator.normal(0.6, DEVIATION, 2)) for _ in range(20)]
        naive.append(max(np.mean(values) for values in figures) - 0.6)
        believed.append(max(belief(figures, seed=seed).means) - 0.6)
    assert np.mean(believed) < 0.6 * np.mean(naive)


def test_units_do_not_matter_and_equal_figures_give_equal_beliefs():
    figures = [[0.60, 0.61], [0.58, 0.60], [0.59]]
    known = belief(figures, seed=3)
    assert belief(figures, seed=3).best == known.best
    shifted = belief([[100 * value - 7 for value in values] for values in figures], seed=3)
    assert shifted.best == pytest.approx(known.best, abs=0.003)
    assert shifted.deviation == pytest.approx(100 * known.deviation)


def test_one_that_was_never_trained_is_known_by_the_others_alone():
    known = belief([[0.60, 0.61], [], [0.59, 0.60]], seed=0)
    assert known.counts == (2, 0, 2)
    assert known.means[1] == pytest.approx(0.6, abs=0.01)
    assert known.resolvable() is None or known.best[1] < min(known.best[0], known.best[2])


def test_without_any_figure_nothing_is_believed():
    with pytest.raises(ValueError, match="at least one figure"):
        belief([[], []], seed=0)


def test_what_many_seeds_resolve_is_what_a_two_sided_test_needs():
    generator = np.random.default_rng(1)
    # 31 runs each tell half a point from nothing where the deviation is .7 points: a table of every textbook.
    known = belief([list(generator.normal(mean, DEVIATION, 31)) for mean in (0.60, 0.61)], seed=0)
    assert known.resolvable() == pytest.approx(0.005 * known.deviation / DEVIATION, rel=0.03)


def _contest(means, *, budget, seed, follow, confidence=0.999):
    """Train finalists as `follow` says; return the pick, the runs that it took, and the probability that it is the best."""
    generator = np.random.default_rng([seed, 5])
    runs: list[Run] = []
    numbers = range(len(means))
    limits = SeedBudget(budget=budget, confidence=confidence)
    while (found := follow(numbers, runs, limits, seed)) is not None:
        number, own = found
        runs.append(Run(number, own, float(generator.normal(means[number], DEVIATION)), is_open=False))
    return standing(numbers, runs, limits, default=None, seed=seed)


def _thompson(numbers, runs, limits, seed):
    return next_run(numbers, runs, limits, default=None, given_up=(), seed=seed)


def _uniform(numbers, runs, limits, seed):
    return None if len(runs) >= limits.budget else (len(runs) % len(numbers), 1 + len(runs) // len(numbers))


@pytest.mark.slow
def test_top_two_sampling_finds_the_best_with_a_third_fewer_runs():
    """Eight finalists half a point apart: as sure after 24 runs as one seed after the other after 36."""
    right = {"thompson": 0, "uniform": 0}
    for seed in range(120):
        means = np.random.default_rng(seed).permutation(0.6 - 0.005 * np.arange(8))
        right["thompson"] += means[_contest(means, budget=24, seed=seed, follow=_thompson).leader] == max(means)
        right["uniform"] += means[_contest(means, budget=36, seed=seed, follow=_uniform).leader] == max(means)
    assert right["thompson"] >= right["uniform"] - 3  # of 120, whose spread is 4
    assert right["thompson"] > 100


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.002, 0.007, 0.02])
def test_a_sweep_ends_with_a_wrong_certificate_no_more_often_than_it_says(spread):
    """Whatever lies between the finalists: much more than between seeds, as much, or much less."""
    wrong = certified = 0
    for seed in range(100):
        means = np.random.default_rng(seed).normal(0.6, spread, 6)
        found = _contest(means, budget=40, seed=seed, follow=_thompson, confidence=0.9)
        certified += found.probability >= 0.9
        wrong += found.probability >= 0.9 and means[found.leader] < max(means)
    assert wrong <= 10 + 6  # of 100 one in ten, and two standard deviations of that
    assert certified >= 10 or spread < DEVIATION


def test_every_finalist_is_trained_once_and_the_default_twice_before_anything_is_decided():
    runs: list[Run] = []
    for _ in range(4):
        found = next_run([7, 3], runs, SeedBudget(budget=9), default=0, given_up=(), seed=0)
        runs.append(Run(*found, 0.5, is_open=False))
    assert [(run.finalist, run.seed) for run in runs] == [(7, 1), (3, 1), (0, 1), (0, 2)]
    number, seed = next_run([7, 3], runs, SeedBudget(budget=9), default=0, given_up=(), seed=0)
    assert number in (7, 3)
    assert seed == 2


def test_runs_end_with_the_budget_with_certainty_and_when_nobody_is_left_to_compare():
    sure = [Run(0, 1, 0.60, is_open=False), Run(1, 1, 0.30, is_open=False)]
    sure += [Run(0, 2, 0.61, is_open=False), Run(1, 2, 0.31, is_open=False)]
    open_end = SeedBudget(budget=5, confidence=0.999999)
    assert next_run([0, 1], sure, SeedBudget(budget=5), default=None, given_up=(), seed=0) is None
    assert next_run([0, 1], sure, open_end, default=None, given_up=(), seed=0) is not None
    assert next_run([0, 1], sure, open_end, default=None, given_up={1}, seed=0) is None
    assert next_run([0, 1], [*sure, sure[0]], open_end, default=None, given_up=(), seed=0) is None


def test_an_open_run_counts_and_says_nothing():
    runs = [Run(0, 1, 0.6, is_open=False), Run(1, 1, None, is_open=True)]
    found = standing([0, 1], runs, SeedBudget(budget=4), default=None, seed=0)
    assert (found.runs, found.known.counts) == (1, (1, 0))
    assert next_run([0, 1], runs, SeedBudget(budget=2), default=None, given_up=(), seed=0) is None


def test_the_gain_over_the_default_has_an_interval_that_holds_its_truth():
    held = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        runs = [Run(0, own, float(generator.normal(0.62, DEVIATION)), is_open=False) for own in (1, 2, 3, 4)]
        runs += [Run(1, own, float(generator.normal(0.61, DEVIATION)), is_open=False) for own in (1, 2, 3)]
        runs += [Run(9, own, float(generator.normal(0.59, DEVIATION)), is_open=False) for own in (1, 2)]
        found = standing([0, 1], runs, SeedBudget(budget=9), default=9, seed=seed)
        truth = (0.62 if found.leader == 0 else 0.61) - 0.59
        held += found.gain.low <= truth <= found.gain.high
    assert held >= 50  # 95 % of 60 are 57


def test_a_training_is_chosen_by_what_is_known_alone():
    known = belief([[0.60, 0.61], [0.60, 0.60], [0.2, 0.21]], seed=0)
    assert next_to_train(known, seed=4) == next_to_train(known, seed=4)
    chosen = [next_to_train(known, seed=seed) for seed in range(40)]
    assert set(chosen) == {0, 1}  # the third is no match for them
