"""Whose checkpoints are made into artefacts, and what each is worth by the sweep's own criterion."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from sweeps.file.spec import SweepSpec
from sweeps.metrics import CRITERIA, finite
from sweeps.selection.choice import Selection, rank
from sweeps.selection.finalists import finalists_of, further_figures, unstable_finalists
from sweeps.selection.guards import Guard
from sweeps.trial import TrialRecord

USUAL_CANDIDATES = 3  # of a sweep with one seed, which has no finalists


@dataclass(frozen=True)
class Candidate:
    """A trial whose network may be shipped.

    Attributes:
        trial: as the ledger has it, with its pool figures.
        own: its figure by the sweep's criterion, with the seed of the search.
        worth: what it is ranked by: the mean over the further seeds that all candidates have finished, or else `own`.
        seeds: these further seeds.
        is_picked: whether the sweep picks it.
    """

    trial: TrialRecord
    own: float
    worth: float
    seeds: tuple[int, ...]
    is_picked: bool


def candidates_of(
    trials: Sequence[TrialRecord], spec: SweepSpec, selection: Selection, *, count: int | None
) -> list[Candidate]:
    """Return the finalists of a sweep and its pick.

    A finalist that collapsed or diverged with a further seed is left out, unless all did.

    The figure that made a finalist flatters it. So the mean over the further seeds counts that all of them have finished; where
    there is no such seed, they can only be compared by the seed of the search.

    Args:
        trials: records of one sweep, with their pool figures.
        spec: the sweep.
        selection: its choice, of some trial.
        count: how many of the best, or of each group of `finalists_of_each`; None: as many finalists as the file asks for, three
            of a sweep with one seed, which has none.

    Returns:
        Best first by the search's own figure.
    """
    usual = spec.finalists if spec.has_further_seeds else USUAL_CANDIDATES
    ranked = rank(trials, spec)
    picked = selection.picked
    metric = CRITERIA[selection.used]
    chosen = finalists_of(ranked, spec.model_copy(update={"finalists": count or usual}))
    chosen += [
        trial for trial in ranked if picked is not None and trial.number == picked.number and trial not in chosen
    ]
    guard = None if selection.used == "oracle" else Guard(trials)
    unstable = unstable_finalists(chosen, trials, lambda trial: guard.collapse(trial) if guard else None)
    shown = [trial for trial in chosen if trial.number not in unstable] or chosen
    figures = further_figures(shown, trials, metric)
    seeds = tuple(sorted(set.intersection(*(set(figures.get(trial.number, {})) for trial in shown))))
    return [
        Candidate(
            trial=trial,
            own=trial.metrics[metric],
            worth=fmean(figures[trial.number][seed] for seed in seeds) if seeds else trial.metrics[metric],
            seeds=seeds,
            is_picked=picked is not None and trial.number == picked.number,
        )
        for trial in shown
        if finite(trial.metrics, metric) is not None
    ]
