"""What an audit finds: claims, how many things were looked at, and what contradicts them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from sweeps.metrics import SECONDS_PER_STEP

# How fast it went: another figure each time the same is trained.
TIMES = frozenset({SECONDS_PER_STEP, "train/images_per_second"})


@dataclass(frozen=True)
class Check:
    """One claim about a sweep, and whether it holds.

    Attributes:
        claim: what must be true, in words.
        count: how many things were looked at.
        problems: what contradicts it, one line each, with what to do where something can be done.
        note: what could not be looked at, and why; empty if everything was.
    """

    claim: str
    count: int
    problems: tuple[str, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        """Return the claim with what contradicts it."""
        return f"{self.claim}: {'; '.join(self.problems) or self.note or 'holds'}"

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts the claim."""
        return not self.problems


def check(claim: str, count: int, problems: Iterable[str], *, note: str = "") -> Check:
    """Return a check from whatever yields its problems."""
    return Check(claim, count, tuple(problems), note)


def same(first: float, second: float) -> bool:
    """Return whether two figures are equal; a NaN is equal to a NaN.

    Example:
        >>> same(float("nan"), float("nan")), same(0.1, 0.1), same(0.1, 0.2)
        (True, True, False)
    """
    return first == second or (math.isnan(first) and math.isnan(second))
