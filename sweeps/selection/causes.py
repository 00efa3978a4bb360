"""What trials failed of, in one line."""

from collections import Counter
from collections.abc import Sequence

from sweeps.failures import POLICIES, FailureClass
from sweeps.trial import TrialRecord


def most_frequent_cause(failed: Sequence[TrialRecord]) -> str:
    """Return what most of some failed trials failed of: class, the last of them, and what to do.

    Args:
        failed: at least one trial that failed.
    """
    counts = Counter(trial.failure or FailureClass.ERROR for trial in failed)
    failure, times = counts.most_common(1)[0]
    last = max(
        (trial for trial in failed if (trial.failure or FailureClass.ERROR) is failure),
        key=lambda trial: (trial.finished or 0.0, trial.number),
    )
    share = f" ({times} of {len(failed)})" if len(counts) > 1 else ""
    where = f" on {last.worker}" if last.worker else ""
    remedy = POLICIES[failure].remedy
    return f"{failure.label}{share}, last trial {last.number}{where}: {last.error}" + (f"; {remedy}" if remedy else "")
