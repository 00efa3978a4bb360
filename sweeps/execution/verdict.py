"""Whether a training that ended has what its sweep compares trials by."""

import math

from sweeps.failures import FailureClass
from sweeps.file.spec import SweepSpec
from sweeps.metrics import visible_metrics
from sweeps.trial import TrialRecord


def fault_of(record: TrialRecord, spec: SweepSpec) -> tuple[FailureClass, str] | None:
    """Return what is wrong with the result of a training that ended by itself, as class and one line, or None.

    Args:
        record: the trial.
        spec: its sweep.
    """
    wanted = [objective.metric for objective in spec.objectives]
    figures = {**record.profile, **visible_metrics(record.metrics, spec.selection)}
    missing = [metric for metric in wanted if metric not in figures]
    if missing:
        reported = ", ".join(sorted(figures))
        return (
            FailureClass.INVALID,
            f"training ended without reporting {', '.join(missing)}; it reported: {reported}",
        )
    undefined = [f"{metric} = {figures[metric]}" for metric in wanted if not math.isfinite(figures[metric])]
    return (FailureClass.DIVERGED, f"training ended with {', '.join(undefined)}") if undefined else None
