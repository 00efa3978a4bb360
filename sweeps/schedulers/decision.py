"""What a scheduler says of a trial that reported, and what it looks at; see `sweeps.schedulers.stopping`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

Rungs = Mapping[int, Mapping[int, float]]


@dataclass(frozen=True)
class Decision:
    """What becomes of a trial that reported.

    Attributes:
        stop: whether it ends here.
        reason: why, in one line with figures; empty when it goes on.
    """

    stop: bool
    reason: str = ""


CONTINUE = Decision(stop=False)


def not_a_number(step: int) -> Decision:
    """Return the decision on a trial whose value is NaN."""
    return Decision(stop=True, reason=f"its value at step {step} is not a number")


def compared_with(rungs: Rungs, step: int, number: int | None, rivals: Collection[int] | None) -> dict[int, float]:
    """Return the values at a rung that a trial is compared with, by trial; arguments as in `Asha.decide`."""
    return {
        other: value
        for other, value in rungs.get(step, {}).items()
        if other != number and (rivals is None or other in rivals)
    }
