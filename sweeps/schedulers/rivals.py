"""Which trials a trial may be stopped in favor of.

Schedulers of this kind stop trials by one metric, `scheduler.metric`: the objective that training decides, unless the file names
another one, by which trials may be stopped that lead in the objective. With quality as the only objective everybody competes with
everybody. In a sweep that also minimizes a cost (macs, latency_ms, ...) that would be wrong: a small network belongs on the Pareto
front because it is cheap, although most larger ones are better than it at every step. So there a trial is compared only with its
rivals: trials that are at least as good in every cost objective. It stops only if some of them are strictly better at the rung,
hence only if it is dominated there, and never in favor of a more expensive network. Costs belong to architectures and do not change
while training; so as long as the rungs order trials as full training does, no member of the Pareto front is ever stopped.

This is the idea of MO-ASHA (Schmucker et al., "Multi-objective Asynchronous Successive Halving", arXiv:2106.12639, 2021), which
ranks a rung by non-dominated sorting. Deviation: no sorting into fronts. The costs are known before training, so dominance is
decided by the one metric that is not, and one trial's rung never depends on how a third one's front is numbered.

Two objectives that are both decided by training cannot be pruned soundly by one of them, so `sweeps.checks.scheduler` refuses such
a sweep file; `sweeps.schedulers.fronts` compares in all of them.
"""

from collections.abc import Collection, Iterable, Mapping

from sweeps.metrics import Direction, finite, sound
from sweeps.trial import TrialKind, TrialRecord


def rivals(
    record: TrialRecord,
    records: Iterable[TrialRecord],
    *,
    costs: Mapping[str, Direction],
    settled: Collection[int] | None = None,
) -> frozenset[int] | None:
    """Return the numbers of the trials that a trial may be stopped in favor of.

    Args:
        record: the trial that reported.
        records: all trials of the sweep; itself, references and replicates are passed over.
        costs: objectives that are efficiency metrics of the architecture -> which values are better.
        settled: numbers of the trials that a reproducible sweep lets this one depend on. They must have finished before it started:
            then they have all the rung values that they will ever have, and what becomes of the trial is a function of their
            values and its own, however fast the others are. Unset: it may depend on every trial.

    Returns:
        The numbers, without the trial's own; None for all, which needs neither a cost objective nor `settled`. A trial whose
        cost is not known, or was measured in company, is nobody's rival and has none.
    """
    if not costs and settled is None:
        return None
    return frozenset(
        other.number
        for other in records
        if other.number != record.number
        and other.kind is TrialKind.SEARCH
        and (settled is None or other.number in settled)
        and all(_at_least_as_good(other, record, metric, direction) for metric, direction in costs.items())
    )


def _at_least_as_good(first: TrialRecord, second: TrialRecord, metric: str, direction: Direction) -> bool:
    own, other = finite(sound(first.profile), metric), finite(sound(second.profile), metric)
    if own is None or other is None:
        return False
    return own >= other if direction == "maximize" else own <= other
