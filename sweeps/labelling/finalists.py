"""Among whom labels choose: the leaders by what is known without labels."""

from collections.abc import Sequence

from segda.errors import ConfigError
from sweeps.file.spec import SweepSpec
from sweeps.metrics import CRITERIA
from sweeps.selection.choice import Selection, select
from sweeps.trial import TrialRecord

MOST_FINALISTS = 8
# Of the best figure without labels; whoever is below has lost already.
MIN_SHARE_OF_BEST = 0.8


def leaders(trials: Sequence[TrialRecord], spec: SweepSpec) -> tuple[list[TrialRecord], Selection]:
    """Return the fully trained candidates that labels are worth telling apart, and the choice that ranked them.

    None that a guard or a constraint rejects; of the others the first few by `ensv`, or by what stands in for it where that is
    refused, without those that lose clearly by it. What the sweep itself picks without labels is always among them.

    Args:
        trials: records of one sweep, with their pool figures.
        spec: the sweep.

    Raises:
        ConfigError: there are fewer than two.
    """
    ranking = select(trials, spec, criterion="ensv")
    by_number = {trial.number: trial for trial in trials}
    metric = CRITERIA[ranking.used]
    ranked = [by_number[number] for number in ranking.ranked]
    found = [
        trial
        for trial in ranked[:MOST_FINALISTS]
        if trial.metrics[metric] >= MIN_SHARE_OF_BEST * ranked[0].metrics[metric]
    ]
    own = unlabelled_pick(trials, spec)
    if own is not None and own not in found:
        found.append(own)
    if len(found) < 2:
        raise ConfigError(
            f"labels choose among two candidates or more, sweep {spec.name!r} has {len(found)} worth it ({ranking.reason}); "
            "train more trials"
        )
    return found, ranking


def unlabelled_pick(trials: Sequence[TrialRecord], spec: SweepSpec) -> TrialRecord | None:
    """Return what the sweep picks without labels; of one that chooses by target labels what `ensv` would.

    Args:
        trials: records of one sweep, with their pool figures.
        spec: the sweep.
    """
    criterion = "ensv" if spec.selection == "oracle" else spec.selection
    return select(trials, spec, criterion=criterion).picked
