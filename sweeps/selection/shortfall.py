"""Whether a sweep that has used its budget found what was asked for."""

from collections.abc import Sequence

from sweeps.file.spec import SweepSpec
from sweeps.selection.causes import most_frequent_cause
from sweeps.selection.choice import select
from sweeps.trial import TrialRecord, TrialState

_TRAINED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)
_TOO_MANY = 0.5  # share of the trained trials


def shortfall_of(trials: Sequence[TrialRecord], spec: SweepSpec) -> str | None:
    """Return what is wrong with what a sweep has found, as one line that names the most frequent cause, or None.

    At least half of the trials that were trained failed, or none of those that ended can be picked.

    Args:
        trials: of one sweep, whose budget is used.
        spec: the sweep.
    """
    trained = [trial for trial in trials if trial.state in _TRAINED]
    failed = [trial for trial in trained if trial.state is TrialState.FAILED]
    if failed and len(failed) >= _TOO_MANY * len(trained):
        return f"{len(failed)} of {len(trained)} trained trials failed, most often by {most_frequent_cause(failed)}"
    if not any(trial.state.is_finished for trial in trials):
        return None
    selection = select(trials, spec)
    return None if selection.picked is not None else selection.reason
