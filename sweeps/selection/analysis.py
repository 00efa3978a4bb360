"""What the figures of a sweep's trials say: pure functions over trial records.

Quality is mean IoU in [0, 1]; only presentation turns it into per cent. Figures made from target labels (`oracle/...`)
are read here, because a report shows them; what may steer a choice is decided in `sweeps.metrics`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from segda.methods import METHODS
from sweeps.labels import method_name
from sweeps.metrics import finite, sound
from sweeps.trial import TrialKind, TrialRecord, TrialState

MIN_RANKED = 10  # trials below which a rank correlation says nothing, and its interval is not to be had by Fisher's z
_Z = 1.959964  # standard normal, two-sided 95 %


def uses_target_labels(trial: TrialRecord) -> bool:
    """Whether the trial was trained with target labels and so is an upper bound, not a candidate."""
    method = METHODS.get(method_name(trial))
    return method is not None and method.supervision == "target"


def is_candidate(trial: TrialRecord) -> bool:
    """Whether a trial is of full fidelity, was proposed by the search and saw no target label."""
    return trial.state is TrialState.COMPLETE and trial.kind is TrialKind.SEARCH and not uses_target_labels(trial)


def pareto_front(trials: Iterable[TrialRecord], *, metric: str, cost: str) -> list[TrialRecord]:
    """Return the fully trained candidates that no other candidate beats at quality and cost together.

    Only COMPLETE search trials enter: pruned trials are of another fidelity, references saw target labels or are
    baselines, replicates repeat a candidate; nor does a cost that was measured in company. Of trials equal in both figures
    the one with the smallest number stays.

    Args:
        trials: records of one sweep.
        metric: quality to maximize.
        cost: name in the profile to minimize, e.g. `latency_ms`.

    Returns:
        The front by rising cost, so by rising quality too.
    """
    points = []
    for trial in trials:
        quality, price = finite(trial.metrics, metric), finite(sound(trial.profile), cost)
        if is_candidate(trial) and quality is not None and price is not None:
            points.append((price, -quality, trial.number, trial))
    front: list[TrialRecord] = []
    best = -math.inf
    for _, negative_quality, _, trial in sorted(points, key=lambda point: point[:3]):
        if -negative_quality > best:
            best = -negative_quality
            front.append(trial)
    return front


def best_by(trials: Iterable[TrialRecord], metric: str) -> TrialRecord | None:
    """Return the COMPLETE trial with the highest figure; of equals the one with the smallest number."""
    scored = [
        (-value, trial.number, trial)
        for trial in trials
        if trial.state is TrialState.COMPLETE and (value := finite(trial.metrics, metric)) is not None
    ]
    return min(scored, key=lambda item: item[:2])[2] if scored else None


@dataclass(frozen=True)
class RankCorrelation:
    """How alike two figures order trials: Spearman's rank correlation and what is known of it.

    Attributes:
        value: of these trials, in [-1, 1].
        n: how many they are.
    """

    value: float
    n: int

    @property
    def is_enough(self) -> bool:
        """Whether there are enough trials to say anything."""
        return self.n >= MIN_RANKED

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval: Fisher's z with Bonett and Wright's (2000) variance for ranks; all of [-1, 1] with too few trials."""
        if not self.is_enough:
            return -1.0, 1.0
        # That of a perfect order would have no width: it is taken for one between that and the next to it.
        most = 1 - 6 / (self.n * (self.n**2 - 1))
        z, half = math.atanh(max(-most, min(most, self.value))), _Z * _deviation(self.value, self.n)
        return math.tanh(z - half), math.tanh(z + half)

    @property
    def is_told_from_none(self) -> bool:
        """Whether its interval leaves out zero."""
        low, high = self.interval
        return low > 0 or high < 0

    @property
    def needed(self) -> int | None:
        """How many trials would tell one as large from none; None of exactly zero."""
        if self.value == 0:
            return None
        size = min(abs(self.value), 1 - 1e-9)
        return max(MIN_RANKED, math.floor(3 + (_Z / math.atanh(size)) ** 2 * (1 + size**2 / 2)) + 1)


def _deviation(value: float, n: int) -> float:
    return math.sqrt((1 + value**2 / 2) / (n - 3))


def rank_correlation(trials: Iterable[TrialRecord], *, metric: str, against: str) -> RankCorrelation | None:
    """Return Spearman's rank correlation of two figures over the fully trained candidates.

    It says how well a criterion that needs no target label orders the trials as the target labels would.

    Returns:
        None with fewer than three trials or where a figure never varies.
    """
    pairs = [
        (first, second)
        for trial in trials
        if is_candidate(trial)
        and (first := finite(trial.metrics, metric)) is not None
        and (second := finite(trial.metrics, against)) is not None
    ]
    if len(pairs) < 3 or any(len(set(column)) < 2 for column in zip(*pairs, strict=True)):
        return None
    from scipy import stats  # takes most of a second to import, for a report only

    first_column, second_column = zip(*pairs, strict=True)
    return RankCorrelation(float(stats.spearmanr(first_column, second_column).statistic), len(pairs))


def weighted_rank_correlation(scores: Sequence[float], quality: Sequence[float]) -> float | None:
    """Return the weighted Spearman correlation by which Musgrave et al. (2022) compare validators, in [-1, 1].

    Ranks are dense and divided by the largest; each pair weighs the square of its larger rank, so that a poor network which is
    ranked high counts against a score, and the order of poor networks hardly counts. A score that is not finite counts as the
    lowest one that is.

    Args:
        scores: of each network, higher is better.
        quality: of the same networks, finite.

    Returns:
        The correlation, or None with fewer than three networks, or where scores or quality never vary.
    """
    given = np.asarray(scores, dtype=np.float64)
    known = given[np.isfinite(given)]
    if len(given) < 3 or not known.size:
        return None
    given = np.where(np.isfinite(given), given, known.min())
    first, second = (
        np.unique(values, return_inverse=True)[1] + 1.0 for values in (given, np.asarray(quality, np.float64))
    )
    first, second = first / first.max(), second / second.max()
    weights = np.maximum(first, second) ** 2
    first, second = (values - np.average(values, weights=weights) for values in (first, second))
    spread = math.sqrt(float(weights @ first**2) * float(weights @ second**2))
    return float(weights @ (first * second)) / spread if spread > 0 else None
