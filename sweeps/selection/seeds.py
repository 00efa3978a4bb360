"""Trainings of one configuration with several seeds: what they say about one configuration, and about two."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from sweeps.metrics import SOURCE_MIOU, TARGET_MIOU, finite
from sweeps.trial import TrialKind, TrialRecord, TrialState

MIN_SEEDS = 2
INTERVAL_FROM = 5


@dataclass(frozen=True)
class MeanInterval:
    """Mean of repeated trainings and how far it can be trusted.

    Attributes:
        n: number of values.
        mean: arithmetic mean.
        std: sample standard deviation (n - 1 in the denominator); None for one value.
        low, high: two-sided 95 % Student t-interval of the mean; None for one value.
    """

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Paired:
    """One configuration against another one, seed by seed.

    Attributes:
        number: its trial.
        other: trial of the other one.
        seeds: seeds that both finished, without the one of the search.
        difference: its figure minus the other one's, summarized over these seeds; None without a common seed.
        everywhere: whether it is better with each of these seeds.
        holds: whether it is better, see `advantage_holds`.
    """

    number: int
    other: int
    seeds: tuple[int, ...]
    difference: MeanInterval | None
    everywhere: bool
    holds: bool


@dataclass(frozen=True)
class SeedGroup:
    """A configuration over the seeds that the search did not see.

    The seed of the search is left out: a finalist was chosen by its figure there, so that figure is high by luck too. The best of
    twenty equal candidates lies almost two standard deviations above their mean.

    Attributes:
        trial: the finalist, with its figures on the seed of the search.
        seeds: further training seeds that finished, in ascending order.
        source: source validation mean IoU over these seeds.
        target: target mean IoU over these seeds (oracle); None where it was not measured for every seed.
        figure: the sweep's criterion over these seeds; None where it was not measured for every seed.
    """

    trial: TrialRecord
    seeds: tuple[int, ...]
    source: MeanInterval
    target: MeanInterval | None
    figure: MeanInterval | None


def mean_interval(values: Sequence[float]) -> MeanInterval:
    """Return mean, standard deviation and 95 % t-interval.

    Args:
        values: one figure per seed, at least one.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("a mean needs at least one value, got none")
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return MeanInterval(n=1, mean=mean, std=None, low=None, high=None)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, 0.975)) * std / math.sqrt(n)
    return MeanInterval(n=n, mean=mean, std=std, low=mean - half, high=mean + half)


def advantage_holds(differences: Sequence[float]) -> bool:
    """Return whether one configuration is better than another one, from their differences with the same seeds.

    With two to four seeds it must be better with each: a 95 % t-interval of so few differences is wider than any advantage worth
    having (with two seeds, nine standard deviations to either side), and where it excludes zero all signs agree anyway. Of two
    configurations that are equally good, a given one looks better in 1 of 2^n comparisons: 1 of 4 with two seeds, 1 of 8 with
    three, 1 of 16 with four. From five seeds on a contrary one is forgiven if the t-interval of the mean lies above zero. One
    seed shows nothing.

    Args:
        differences: figure of the one minus figure of the other, one per common seed; larger figures are better.

    Example:
        >>> advantage_holds([0.01, 0.02]), advantage_holds([0.05, -0.01]), advantage_holds([0.05])
        (True, False, False)
    """
    if len(differences) < MIN_SEEDS:
        return False
    if all(difference > 0 for difference in differences):
        return True
    low = mean_interval(differences).low
    return len(differences) >= INTERVAL_FROM and low is not None and low > 0


def paired(number: int, other: int, figures: Mapping[int, Mapping[int, float]]) -> Paired:
    """Compare two configurations over the seeds that both finished.

    Args:
        number: trial of the one.
        other: trial of the other one.
        figures: trial -> seed -> figure, larger is better; the seed of the search left out.
    """
    mine, theirs = figures.get(number, {}), figures.get(other, {})
    seeds = tuple(sorted(mine.keys() & theirs.keys()))
    differences = [mine[seed] - theirs[seed] for seed in seeds]
    summary = mean_interval(differences) if differences else None
    everywhere = bool(differences) and min(differences) > 0
    return Paired(number, other, seeds, summary, everywhere, advantage_holds(differences))


def repetitions(number: int, trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return the trainings of a trial's configuration with further seeds, in the order of the seeds and whatever their state.

    Args:
        number: the trial that is repeated.
        trials: records of one sweep.
    """
    found = [trial for trial in trials if trial.kind is TrialKind.REPLICATE and trial.parent == number]
    return sorted(found, key=lambda trial: trial.seed)


def seed_groups(trials: Sequence[TrialRecord], *, metric: str) -> list[SeedGroup]:
    """Return what the further seeds of each repeated trial say; trials without a finished repetition are left out.

    Args:
        trials: records of one sweep.
        metric: figure of the sweep's criterion.
    """
    repeated = {trial.parent for trial in trials if trial.kind is TrialKind.REPLICATE}
    groups = []
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.number not in repeated:
            continue
        members = [
            other
            for other in repetitions(trial.number, trials)
            if other.state is TrialState.COMPLETE and finite(other.metrics, SOURCE_MIOU) is not None
        ]
        source = _summary(members, SOURCE_MIOU)
        if source is not None:
            seeds = tuple(other.seed for other in members)
            groups.append(SeedGroup(trial, seeds, source, _summary(members, TARGET_MIOU), _summary(members, metric)))
    return groups


def _summary(trials: Sequence[TrialRecord], metric: str) -> MeanInterval | None:
    values = [value for trial in trials if (value := finite(trial.metrics, metric)) is not None]
    return mean_interval(values) if values and len(values) == len(trials) else None
