"""Which checkpoints something may still need, and why.

What is kept is kept by what a sweep without target labels knows: what the oracle would pick decides nothing here either.
"""

from collections.abc import Collection, Mapping, Sequence

from sweeps.deployment.candidates import USUAL_CANDIDATES, candidates_of
from sweeps.execution.requeue import is_worth_another_try
from sweeps.file.spec import SweepSpec
from sweeps.ledger.records import SweepState
from sweeps.selection.choice import criteria_of, rank, select
from sweeps.selection.finalists import finalists_of
from sweeps.trial import TrialKind, TrialRecord, TrialState

_SETTLED = (SweepState.FINISHED, SweepState.OUT_OF_BUDGET)


def needed(
    trials: Sequence[TrialRecord],
    spec: SweepSpec,
    *,
    state: SweepState | None,
    read: Mapping[int, str],
    labelled: Collection[int] = (),
) -> dict[int, str]:
    """Return the trials whose checkpoints something may need.

    Those are trials that go on from them, or among which labels choose; the picks of all criteria that read no target label,
    finalists, candidates for deployment, and their repetitions with further seeds; references; all that were trained in full as
    long as the sweep is not finished or picks none, since any of them may be picked later.

    Args:
        trials: records of one sweep, with their pool figures.
        spec: the sweep.
        state: what its driver last said.
        read: trials whose files another sweep reads -> which one does.
        labelled: trials among which labels choose.

    Returns:
        Number -> why, for people.
    """
    found = dict.fromkeys(labelled, "labels choose among it and others")
    found |= {number: f"sweep {sweep!r} reads it" for number, sweep in read.items()}
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    unfinished = [trial for trial in trials if not trial.state.is_finished or is_worth_another_try(trial)]
    found |= {trial.number: "it goes on from there" for trial in unfinished}
    is_settled = state in _SETTLED and not unfinished
    selection = select(trials, spec)
    if not is_settled or selection.picked is None:
        why = "the sweep picks none yet" if is_settled else "the sweep is not finished, and may pick it"
        return {trial.number: why for trial in complete} | found
    candidates = _candidates(trials, spec)
    for trial in complete:
        if trial.kind is TrialKind.REFERENCE:
            found.setdefault(trial.number, "a reference, to compare with")
        elif trial.number in candidates:
            found.setdefault(trial.number, candidates[trial.number])
        elif trial.kind is TrialKind.REPLICATE and trial.parent in candidates:
            found.setdefault(trial.number, f"repeats trial {trial.parent}, which may be used")
    return found


def _candidates(trials: Sequence[TrialRecord], spec: SweepSpec) -> dict[int, str]:
    """Return the trials that are picked, or may be next -> why."""
    found: dict[int, str] = {}
    for criterion in dict.fromkeys((spec.selection, *(name for name in criteria_of(spec) if name != "oracle"))):
        selection = select(trials, spec, criterion=criterion)
        if selection.picked is not None:
            found.setdefault(selection.picked.number, f"picked by {criterion}")
    most = max(spec.finalists, USUAL_CANDIDATES)
    for trial in finalists_of(rank(trials, spec), spec.model_copy(update={"finalists": most})):
        found.setdefault(trial.number, "a finalist, or a candidate for deployment")
    for candidate in candidates_of(trials, spec, select(trials, spec), count=None):
        found.setdefault(candidate.trial.number, "a candidate for deployment")
    return found
