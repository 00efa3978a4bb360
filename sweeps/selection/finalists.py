"""Which finalist to use, from trainings with further seeds.

The finalist that ranks best with the search's own seed is in possession. Another one takes its place only if its advantage holds
over the seeds that both have finished (`seeds.advantage_holds`). The seed of the search does not count: finalists were
chosen by it, so the first one leads there by construction, and more by luck than the others. When the seeds cannot separate two
finalists, the one with fewer multiply-accumulates is kept, and of equally cheap ones the one that ranked better: a
difference that may be noise is no reason to pay more.

A finalist that collapsed or diverged with a further seed gives way to those that did not, whatever its figures.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sweeps.report.analysis import finite
from sweeps.selection.seeds import MIN_SEEDS, Paired, paired
from sweeps.trial import FailureClass, TrialKind, TrialRecord, TrialState


@dataclass(frozen=True)
class Verdict:
    """What the further seeds say of the finalists.

    Attributes:
        picked: the finalist to use.
        comparisons: what decided against each other finalist, in the order of their ranks: an advantage over it that holds,
            otherwise the picked one's comparison with it.
        unstable: (trial number, why) of finalists that a further seed broke.
    """

    picked: TrialRecord
    comparisons: tuple[Paired, ...]
    unstable: tuple[tuple[int, str], ...]


def settle(
    finalists: Sequence[TrialRecord],
    trials: Sequence[TrialRecord],
    *,
    metric: str,
    collapsed: Callable[[TrialRecord], str | None],
) -> Verdict:
    """Choose among the finalists.

    Args:
        finalists: best rank first, at least one.
        trials: all records of the sweep.
        metric: figure to compare, larger is better.
        collapsed: tells why a trial must not be believed, or None.
    """
    unstable = _unstable(finalists, trials, collapsed)
    figures = _figures(finalists, trials, metric)
    stable = [trial for trial in finalists if trial.number not in unstable] or list(finalists)

    def better(trial: TrialRecord) -> list[Paired]:
        """Return the advantages that others have over a finalist and that hold."""
        pairs = [paired(other.number, trial.number, figures) for other in stable if other is not trial]
        return [pair for pair in pairs if pair.holds]

    # Where seeds are missing, advantages may go round in a circle; then the rank decides.
    unbeaten = [trial for trial in stable if not better(trial)] or stable[:1]
    first = unbeaten[0]
    comparable = [
        trial
        for trial in unbeaten
        if trial is first or len(paired(first.number, trial.number, figures).seeds) >= MIN_SEEDS
    ]
    picked = min(comparable, key=macs)  # of equals the first, which ranked better
    comparisons = []
    for other in finalists:
        if other is not picked:
            own = paired(picked.number, other.number, figures)
            held = [] if own.holds else better(other)
            comparisons.append(held[0] if held else own)
    return Verdict(picked, tuple(comparisons), tuple(unstable.items()))


def macs(trial: TrialRecord) -> float:
    """Return the multiply-accumulates of a trial's network; infinity if they are not known."""
    value = finite(trial.profile, "macs")
    return math.inf if value is None else value


def _repetitions(finalists: Sequence[TrialRecord], trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    numbers = {trial.number for trial in finalists}
    return [trial for trial in trials if trial.kind is TrialKind.REPLICATE and trial.parent in numbers]


def _figures(
    finalists: Sequence[TrialRecord], trials: Sequence[TrialRecord], metric: str
) -> Mapping[int, Mapping[int, float]]:
    """Return finalist -> further seed -> figure, of trainings in full."""
    figures: dict[int, dict[int, float]] = {}
    for trial in _repetitions(finalists, trials):
        value = finite(trial.metrics, metric)
        if trial.state is TrialState.COMPLETE and trial.parent is not None and value is not None:
            figures.setdefault(trial.parent, {})[trial.seed] = value
    return figures


def _unstable(
    finalists: Sequence[TrialRecord],
    trials: Sequence[TrialRecord],
    collapsed: Callable[[TrialRecord], str | None],
) -> dict[int, str]:
    found: dict[int, str] = {}
    for trial in _repetitions(finalists, trials):
        why = collapsed(trial) if trial.state is TrialState.COMPLETE else None
        if trial.state is TrialState.FAILED and trial.failure is FailureClass.DIVERGED:
            why = "training diverged"
        if why is not None and trial.parent is not None:
            found.setdefault(trial.parent, f"with seed {trial.seed} (trial {trial.number}): {why}")
    return found
