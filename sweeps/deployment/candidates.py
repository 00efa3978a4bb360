"""Whose checkpoints are made into artefacts, and what each is worth by the sweep's own criterion."""

from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.file.spec import SweepSpec
from sweeps.metrics import CRITERIA, finite
from sweeps.selection.choice import Selection, rank
from sweeps.selection.finalists import finalists_of, settle
from sweeps.selection.guards import Guard
from sweeps.selection.seeds import SeedGroup, seed_groups
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

    The figure that made a finalist flatters it. So where all of them were trained with the same further seeds the mean over
    these counts; where one was not, they can only be compared by the seed of the search.

    Args:
        trials: records of one sweep, with their pool figures.
        spec: the sweep.
        selection: its choice, of some trial.
        count: how many of the best, or of each group of `finalists_of_each`; None: as many finalists as the file asks for, three
            of a sweep with one seed, which has none.

    Returns:
        Best first by the search's own figure.
    """
    usual = spec.finalists if len(spec.seeds) > 1 else USUAL_CANDIDATES
    ranked = rank(trials, spec)
    picked = selection.picked
    metric = CRITERIA[selection.used]
    chosen = finalists_of(ranked, spec.model_copy(update={"finalists": count or usual}))
    chosen += [
        trial for trial in ranked if picked is not None and trial.number == picked.number and trial not in chosen
    ]
    guard = None if selection.used == "oracle" else Guard(trials)
    verdict = settle(chosen, trials, metric=metric, collapsed=lambda trial: guard.collapse(trial) if guard else None)
    unstable = {number for number, _ in verdict.unstable}
    shown = [trial for trial in chosen if trial.number not in unstable] or chosen
    groups = {group.trial.number: group for group in seed_groups(trials, metric=metric)}
    seeds = _common([groups.get(trial.number) for trial in shown])
    return [
        Candidate(
            trial=trial,
            own=trial.metrics[metric],
            worth=_mean(groups[trial.number]) if seeds else trial.metrics[metric],
            seeds=seeds,
            is_picked=picked is not None and trial.number == picked.number,
        )
        for trial in shown
        if finite(trial.metrics, metric) is not None
    ]


def _common(groups: Sequence[SeedGroup | None]) -> tuple[int, ...]:
    """Return the further seeds of all, if they are the same for all."""
    found = {group.seeds if group is not None and group.figure is not None else () for group in groups}
    return found.pop() if len(found) == 1 else ()


def _mean(group: SeedGroup) -> float:
    assert group.figure is not None
    return group.figure.mean
