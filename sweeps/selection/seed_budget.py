"""Which finalist is trained once more, where a sweep has a budget of further runs in place of a list of seeds.

Every finalist is trained with one further seed, the default configuration with two; all runs after that go where they help most to
tell which finalist is the best (`sweeps.selection.belief`), until one of them is with the probability that the sweep file asks for,
or the budget is spent. A decision is a function of the runs before it, so a resumed sweep decides as one that never stopped.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sweeps.file.parts import SeedBudget
from sweeps.metrics import finite
from sweeps.selection.belief import Belief, belief, next_to_train
from sweeps.selection.seeds import MeanInterval
from sweeps.trial import TrialKind, TrialRecord, TrialState

_RUNS_OF_THE_DEFAULT = 2  # what it is worth is told, not contested


@dataclass(frozen=True)
class Run:
    """A further run of a finalist.

    Attributes:
        finalist: number of the trial that is repeated.
        seed: of the training.
        figure: the sweep's criterion at its end; None while it is open, and of one that failed.
        is_open: whether it has not ended.
    """

    finalist: int
    seed: int
    figure: float | None
    is_open: bool

    def unknown(self) -> "Run":
        """Return it as if it had not ended."""
        return replace(self, figure=None, is_open=True)


@dataclass(frozen=True)
class Standing:
    """What the runs of a budget say of the finalists.

    Attributes:
        finalists: numbers of their trials, in the order of their ranks.
        known: what is believed of them, in this order.
        runs: how many further runs ended, the default configuration's included.
        budget: how many there may be, and the probability that ends them.
        default: number of the default configuration's trial; None if it was not trained in full.
        gain: the leader's figure minus the default configuration's; None if it was not repeated, or leads itself.
    """

    finalists: tuple[int, ...]
    known: Belief
    runs: int
    budget: SeedBudget
    default: int | None
    gain: MeanInterval | None

    @property
    def leader(self) -> int:
        """Number of the finalist that most probably is the best."""
        return self.finalists[self.known.leader]

    @property
    def probability(self) -> float:
        """How probably it is."""
        return self.known.best[self.known.leader]


def runs_of(trials: Sequence[TrialRecord], *, metric: str) -> list[Run]:
    """Return the further runs of a sweep, in the order in which they were decided.

    Args:
        trials: records of one sweep; repetitions that the machines failed are passed over.
        metric: figure of the sweep's criterion.
    """
    return [
        Run(
            trial.parent,
            trial.seed,
            finite(trial.metrics, metric) if trial.state is TrialState.COMPLETE else None,
            not trial.state.is_finished,
        )
        for trial in sorted(trials, key=lambda trial: trial.number)
        if trial.kind is TrialKind.REPLICATE and trial.parent is not None and not trial.is_set_aside
    ]


def next_run(
    finalists: Sequence[int],
    runs: Sequence[Run],
    budget: SeedBudget,
    *,
    default: int | None,
    given_up: Collection[int],
    seed: int,
) -> tuple[int, int] | None:
    """Return the next run to begin.

    Args:
        finalists: numbers of their trials, best rank first.
        runs: those that were decided so far. What an open one will say is not known, but it is counted.
        budget: of the sweep.
        default: number of the default configuration's trial.
        given_up: finalists that a further seed broke; they get no more.
        seed: of the search.

    Returns:
        Number of the finalist and the seed to train it with; None if there is to be no further one as things stand.
    """
    if len(runs) >= budget.budget:
        return None
    wanted = dict.fromkeys(finalists, 1)
    if default is not None:
        wanted[default] = _RUNS_OF_THE_DEFAULT
    counts = {number: sum(run.finalist == number for run in runs) for number in wanted}
    for turn in range(max(wanted.values(), default=0)):
        for number, least in wanted.items():
            if turn < least and counts[number] <= turn:
                return number, counts[number] + 1
    shown = [number for number in finalists if number not in given_up]
    known = _belief(shown, runs, seed=seed)
    if len(shown) < 2 or known is None or max(known.best) >= budget.confidence:
        return None
    chosen = shown[next_to_train(known, seed=seed + len(runs))]
    return chosen, counts[chosen] + 1


def standing(
    finalists: Sequence[int], runs: Sequence[Run], budget: SeedBudget, *, default: int | None, seed: int
) -> Standing | None:
    """Return what the runs say of the finalists; None as long as none has a figure.

    Args:
        finalists: numbers of their trials, best rank first, without those that a further seed broke.
        runs: further runs of the sweep.
        budget: of the sweep.
        default: number of the default configuration's trial.
        seed: of the search.
    """
    known = _belief(finalists, runs, seed=seed)
    if known is None:
        return None
    ended = sum(not run.is_open for run in runs)
    leader = finalists[known.leader]
    gain = None if default in (None, leader) else _gain(known, [run.figure for run in runs if run.finalist == default])
    return Standing(tuple(finalists), known, ended, budget, default, gain)


def _belief(finalists: Sequence[int], runs: Sequence[Run], *, seed: int) -> Belief | None:
    figures = [
        [run.figure for run in runs if run.finalist == number and run.figure is not None] for number in finalists
    ]
    return belief(figures, seed=seed) if any(figures) else None


def _gain(known: Belief, figures: Sequence[float | None]) -> MeanInterval | None:
    """Return by how much the leader is ahead of a configuration that stands apart, with the pooled deviation of seeds."""
    values = [value for value in figures if value is not None]
    if not values or known.deviation is None:
        return None
    generator = np.random.default_rng(len(values))
    around = generator.standard_normal(len(known.draws)) * known.deviation / math.sqrt(len(values))
    ahead = known.draws[:, known.leader] - (float(np.mean(values)) + around)
    low, high = (float(bound) for bound in np.quantile(ahead, [0.025, 0.975]))
    return MeanInterval(len(values), float(ahead.mean()), float(ahead.std()), low, high)
