"""Which finalist to use, from trainings with further seeds.

The finalist that ranks best with the search's own seed is in possession. Another one takes its place only if its advantage over it
holds over the seeds that both have finished (`seeds.advantage_holds`). The seed of the search does not count: finalists were
chosen by it, so the first one leads there by construction, and more by luck than the others. Costs do not count either: what
they may be is for the sweep's constraints to say, and what they are worth for its objectives.

A finalist that collapsed or diverged with a further seed gives way to those that did not, whatever its figures.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from segda.tunable import Scalar
from sweeps.failures import FailureClass
from sweeps.file.spec import SweepSpec
from sweeps.metrics import finite
from sweeps.selection.seeds import Paired, paired, repetitions
from sweeps.trial import TrialRecord, TrialState


@dataclass(frozen=True)
class Verdict:
    """What the further seeds say of the finalists.

    Attributes:
        picked: the finalist to use.
        comparisons: what decided against each other finalist, in the order of their ranks: the picked one's advantage if that
            holds, otherwise the comparison with the better ranked one that it could not replace.
        unstable: (trial number, why) of finalists that a further seed broke.
    """

    picked: TrialRecord
    comparisons: tuple[Paired, ...]
    unstable: tuple[tuple[int, str], ...]


def finalists_of(ranked: Sequence[TrialRecord], spec: SweepSpec) -> list[TrialRecord]:
    """Return the trials that are trained again with the further seeds.

    Args:
        ranked: candidates, best first.
        spec: says how many, and of what each.

    Returns:
        Best first; the first so many of all, or of each combination of values of `finalists_of_each`.
    """
    chosen: list[TrialRecord] = []
    counts: Counter[tuple[Scalar | None, ...]] = Counter()
    for trial in ranked:
        group = tuple(trial.params.get(path) for path in spec.finalists_of_each)
        if counts[group] < spec.finalists:
            counts[group] += 1
            chosen.append(trial)
    return chosen


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
    picked, *others = [trial for trial in finalists if trial.number not in unstable] or finalists
    stopped_by: dict[int, TrialRecord] = {}
    # Who takes the place has an advantage that holds over each one that had it before.
    while better := [trial for trial in others if paired(trial.number, picked.number, figures).holds]:
        stopped_by |= {trial.number: picked for trial in others if trial not in better}
        picked, *others = better
    comparisons = []
    for other in finalists:
        if other is not picked:
            own = paired(picked.number, other.number, figures)
            holder = stopped_by.get(other.number, picked)
            comparisons.append(own if own.holds else paired(holder.number, other.number, figures))
    return Verdict(picked, tuple(comparisons), tuple(unstable.items()))


def _repetitions(finalists: Sequence[TrialRecord], trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [other for trial in finalists for other in repetitions(trial.number, trials)]


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
