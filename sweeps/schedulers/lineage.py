"""Parameters that change in the middle of a training, as population based training makes them.

A parameter set names such a change `path@step`: `{"optimizer.lr": 0.02, "optimizer.lr@300": 0.016}` trains at 0.02 and after 300
steps at 0.016. So a trial's parameters, and with them its configuration and its key, say everything that was ever in force:
no table shows the last value as if it had been there from the start, and the trial can be trained again from nothing.
"""

from collections.abc import Mapping
from typing import Any

from segda.tunable import Scalar
from sweeps.trial import TrialKind, TrialRecord

_AT = "@"


def first_values(params: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return the parameters as they are at the start.

    Example:
        >>> first_values({"optimizer.lr": 0.02, "optimizer.lr@300": 0.016})
        {'optimizer.lr': 0.02}
    """
    return {path: value for path, value in params.items() if _AT not in path}


def values_at(params: Mapping[str, Scalar], step: int) -> dict[str, Scalar]:
    """Return the parameters that are in force after a number of updates.

    Example:
        >>> values_at({"optimizer.lr": 0.02, "optimizer.lr@300": 0.016}, 300)
        {'optimizer.lr': 0.016}
    """
    present = first_values(params)
    for change in changes_of(params):
        if change["step"] <= step:
            present |= change["values"]
    return present


def changes_of(params: Mapping[str, Scalar]) -> list[dict[str, Any]]:
    """Return the changes as `schedule.changes` of a training configuration, by ascending step.

    Example:
        >>> changes_of({"optimizer.lr": 0.02, "optimizer.lr@300": 0.016})
        [{'step': 300, 'values': {'optimizer.lr': 0.016}}]
    """
    by_step: dict[int, dict[str, Scalar]] = {}
    for key, value in params.items():
        path, at, step = key.partition(_AT)
        if at:
            by_step.setdefault(int(step), {})[path] = value
    return [{"step": step, "values": by_step[step]} for step in sorted(by_step)]


def with_changes(params: Mapping[str, Scalar], values: Mapping[str, Scalar], *, step: int) -> dict[str, Scalar]:
    """Return parameters that take new values after a number of updates.

    Args:
        params: without changes at that step or later.
        values: dotted path -> new value.
        step: number of updates made with the earlier values.
    """
    return dict(params) | {f"{path}{_AT}{step}": value for path, value in values.items()}


def forked_at(params: Mapping[str, Scalar]) -> int:
    """Return the step up to which a trial repeats its donor: that of its last change; 0 for a trial of its own."""
    return max((int(change["step"]) for change in changes_of(params)), default=0)


def own_steps(record: TrialRecord) -> int:
    """Return how many of a trial's steps it trained itself: of a copy those after the step at which it left its donor."""
    is_copy = record.kind is TrialKind.SEARCH and record.parent is not None
    return max(0, record.step - forked_at(record.params)) if is_copy else record.step
