"""What a few repeated trainings let one believe of several configurations, and which of them to train once more.

The model: a configuration's trainings with further seeds scatter normally around its mean, all configurations with the same
deviation, which is pooled; the means scatter normally around a common one. The second part keeps the best of many from being
believed because it is the best of many: means of equals are drawn together. Neither deviation is known, so both are integrated
over: the one of seeds with a scale-free prior on a grid, their ratio with a half-Cauchy prior (Gelman, "Prior distributions for
variance parameters in hierarchical models", Bayesian Analysis 2006).

Who is trained next is top-two Thompson sampling (Russo, "Simple Bayesian Algorithms for Best-Arm Identification", COLT 2016): the
best of a draw from that belief, or, with probability 1/2, the best of the first further draw that has another best. It spends the
runs on those that may be the best and are hard to tell apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

_DRAWS = 4000
_SCALES = np.geomspace(0.02, 5.0, 60)  # deviation of seeds, in deviations of all figures
_RATIOS = np.tan(
    np.pi / 2 * (np.arange(24) + 0.5) / 24
)  # deviation of means over that of seeds: quantiles of a half-Cauchy
_POWER = float(ndtri(0.8))  # of a test that finds a difference four times in five


@dataclass(frozen=True)
class Belief:
    """What is believed of the means of several configurations.

    Attributes:
        counts: trainings of each, in their order.
        draws: from the joint belief, float64 [draws, configurations], in their order.
        deviation: of one training around its configuration's mean, pooled over all with two trainings or more; None without any.
        freedom: degrees of freedom of that deviation.
    """

    counts: tuple[int, ...]
    draws: NDArray[np.float64]
    deviation: float | None
    freedom: int

    @cached_property
    def best(self) -> tuple[float, ...]:
        """Probability of each to have the largest mean; they sum to 1."""
        wins = np.bincount(self.draws.argmax(axis=1), minlength=len(self.counts))
        return tuple(float(share) for share in wins / len(self.draws))

    @cached_property
    def leader(self) -> int:
        """Index of the one that most probably is the best; the first of equals."""
        return int(np.argmax(self.best))

    @cached_property
    def means(self) -> tuple[float, ...]:
        """Expected mean of each."""
        return tuple(float(mean) for mean in self.draws.mean(axis=0))

    def resolvable(self) -> float | None:
        """Return the difference between the two most probable ones that so many trainings would find.

        Found is: told from nothing at 5 % (two-sided), four times in five. None where the deviation is not known, or one of the
        two was never trained.
        """
        if self.deviation is None or len(self.counts) < 2:
            return None
        first, second = (self.counts[index] for index in np.argsort(-np.array(self.best), kind="stable")[:2])
        if not first or not second:
            return None
        return (float(stdtrit(self.freedom, 0.975)) + _POWER) * self.deviation * math.sqrt(1 / first + 1 / second)


def belief(figures: Sequence[Sequence[float]], *, seed: int) -> Belief:
    """Return what trainings let one believe.

    Args:
        figures: of each configuration those of its trainings, finite, larger is better; an empty one is known by the others alone.
        seed: of the draws: the same figures and seed give the same belief.

    Raises:
        ValueError: there is no figure at all.

    Example:
        >>> known = belief([[0.61, 0.62, 0.60], [0.52, 0.53, 0.51]], seed=0)
        >>> known.leader, known.best[0] > 0.95, round(known.deviation, 3)
        (0, True, 0.01)
    """
    everything = np.array([value for values in figures for value in values], dtype=np.float64)
    if not everything.size:
        raise ValueError("a belief needs at least one figure, got none")
    counts = np.array([len(values) for values in figures])
    centers = np.array([np.mean(values) if len(values) else 0.0 for values in figures])
    within = float(sum(np.sum((np.asarray(values) - np.mean(values)) ** 2) for values in figures if len(values)))
    freedom = int(np.sum(np.maximum(counts - 1, 0)))
    generator = np.random.default_rng([seed, *map(int, counts)])
    unit = float(everything.std()) or abs(float(everything.mean())) * 1e-9 or 1e-12
    draws = _draws((centers - everything.mean()) / unit, counts, within / unit**2, generator)
    deviation = math.sqrt(within / freedom) if freedom else None
    return Belief(tuple(map(int, counts)), draws * unit + everything.mean(), deviation, freedom)


def _draws(
    centers: NDArray[np.float64], counts: NDArray[np.int64], within: float, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Draw means, in units of the deviation of all figures."""
    seeds, means = (axis.ravel() for axis in np.meshgrid(_SCALES**2, _RATIOS**2, indexing="ij"))
    means = means * seeds  # variances: of a training around its mean, and of the means
    known = counts > 0
    noise = seeds[:, None] / counts[known]
    weights = 1 / (means[:, None] + noise)
    middle = (weights @ centers[known]) / weights.sum(axis=1)
    freedom = int(np.sum(counts[known] - 1))
    likelihood = (
        0.5 * np.log(weights).sum(axis=1)
        - 0.5 * (weights * (centers[known] - middle[:, None]) ** 2).sum(axis=1)
        - 0.5 * np.log(weights.sum(axis=1))
        - 0.5 * freedom * np.log(seeds)
        - 0.5 * within / seeds
    )
    chances = np.exp(likelihood - likelihood.max())
    cell = generator.choice(len(chances), size=_DRAWS, p=chances / chances.sum())
    common = middle[cell] + generator.standard_normal(_DRAWS) / np.sqrt(weights.sum(axis=1)[cell])
    precision = counts / seeds[cell, None] + 1 / means[cell, None]
    expected = (counts * centers / seeds[cell, None] + (common / means[cell])[:, None]) / precision
    drawn: NDArray[np.float64] = expected + generator.standard_normal(expected.shape) / np.sqrt(precision)
    return drawn


def next_to_train(known: Belief, *, seed: int) -> int:
    """Return the configuration to train once more, by top-two Thompson sampling.

    Args:
        known: what is believed of at least one.
        seed: of the choice between the two.
    """
    generator = np.random.default_rng([seed, 1, *known.counts])
    winners = known.draws.argmax(axis=1)[generator.permutation(len(known.draws))]
    leader = int(winners[0])
    challengers = winners[winners != leader]
    if generator.random() < 0.5 or not challengers.size:
        return leader
    return int(challengers[0])
