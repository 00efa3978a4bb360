"""Which finalist to use, from trainings with further seeds.

The finalist that ranks best with the search's own seed is in possession. Another one takes its place only if its advantage over it
holds over the seeds that both have finished (`seeds.advantage_holds`). The seed of the search does not count: finalists were
chosen by it, so the first one leads there by construction, and more by luck than the others. Costs do not count either: what
they may be is for the sweep's constraints to say, and what they are worth for its objectives.

With a budget of further runs in place of a list of seeds (`seed_budget.py`) finalists have different numbers of them, and the
one that most probably is the best is used.

A finalist that collapsed or diverged with a further seed gives way to those that did not, whatever its figures.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from segda.tunable import Scalar
from sweeps.failures import FailureClass
from sweeps.file.default_point import default_point
from sweeps.file.space import identity
from sweeps.file.spec import SweepSpec
from sweeps.metrics import finite
from sweeps.selection.analysis import is_candidate
from sweeps.selection.seed_budget import Standing, runs_of, standing
from sweeps.selection.seeds import Paired, paired, repetitions
from sweeps.trial import TrialKind, TrialRecord, TrialState


@dataclass(frozen=True)
class Verdict:
    """What the further seeds say of the finalists.

    Attributes:
        picked: the finalist to use.
        comparisons: what decided against each other finalist, in the order of their ranks: the picked one's advantage if that
            holds, otherwise the comparison with the better ranked one that it could not replace.
        unstable: (trial number, why) of finalists that a further seed broke.
        standing: what the runs of a budget say; None with a list of seeds, and as long as no run has ended.
    """

    picked: TrialRecord
    comparisons: tuple[Paired, ...]
    unstable: tuple[tuple[int, str], ...]
    standing: Standing | None = None


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
    spec: SweepSpec,
    metric: str,
    collapsed: Callable[[TrialRecord], str | None],
) -> Verdict:
    """Choose among the finalists.

    Args:
        finalists: best rank first, at least one.
        trials: all records of the sweep.
        spec: the sweep.
        metric: figure to compare, larger is better.
        collapsed: tells why a trial must not be believed, or None.
    """
    unstable = unstable_finalists(finalists, trials, collapsed)
    if spec.seed_budget is not None:
        return _most_probable(finalists, trials, unstable, spec=spec, metric=metric)
    figures = further_figures(finalists, trials, metric)
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


def _most_probable(
    finalists: Sequence[TrialRecord],
    trials: Sequence[TrialRecord],
    unstable: Mapping[int, str],
    *,
    spec: SweepSpec,
    metric: str,
) -> Verdict:
    assert spec.seed_budget is not None
    shown = [trial for trial in finalists if trial.number not in unstable] or list(finalists)
    default = default_trial(trials, spec)
    found = standing(
        [trial.number for trial in shown],
        runs_of(trials, metric=metric),
        spec.seed_budget,
        default=None if default is None else default.number,
        seed=spec.seed,
    )
    picked = shown[0] if found is None else next(trial for trial in shown if trial.number == found.leader)
    return Verdict(picked, (), tuple(unstable.items()), found)


def default_trial(trials: Iterable[TrialRecord], spec: SweepSpec) -> TrialRecord | None:
    """Return the trial of the configuration that nobody searched for; None if it was not trained in full.

    Args:
        trials: records of one sweep.
        spec: the sweep.
    """
    wanted = default_point(spec)
    if wanted is None:
        return None
    mark = identity(wanted)
    found = (trial for trial in trials if trial.kind is TrialKind.SEARCH and identity(trial.params) == mark)
    return next((trial for trial in found if is_candidate(trial)), None)


def _repetitions(finalists: Sequence[TrialRecord], trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [other for trial in finalists for other in repetitions(trial.number, trials)]


def further_figures(
    finalists: Sequence[TrialRecord], trials: Sequence[TrialRecord], metric: str
) -> Mapping[int, Mapping[int, float]]:
    """Return finalist -> further seed -> figure, of trainings in full."""
    figures: dict[int, dict[int, float]] = {}
    for trial in _repetitions(finalists, trials):
        value = finite(trial.metrics, metric)
        if trial.state is TrialState.COMPLETE and trial.parent is not None and value is not None:
            figures.setdefault(trial.parent, {})[trial.seed] = value
    return figures


def unstable_finalists(
    finalists: Sequence[TrialRecord],
    trials: Sequence[TrialRecord],
    collapsed: Callable[[TrialRecord], str | None],
) -> dict[int, str]:
    """Return the finalists that a further seed broke: number -> with which and how.

    Args:
        finalists: any order.
        trials: all records of the sweep.
        collapsed: tells why a trial must not be believed, or None.
    """
    found: dict[int, str] = {}
    for trial in _repetitions(finalists, trials):
        why = collapsed(trial) if trial.state is TrialState.COMPLETE else None
        if trial.state is TrialState.FAILED and trial.failure is FailureClass.DIVERGED:
            why = "training diverged"
        if why is not None and trial.parent is not None:
            found.setdefault(trial.parent, f"with seed {trial.seed} (trial {trial.number}): {why}")
    return found
