"""Which artefact to ship: the one that is worth most among those that keep every budget."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.deployment.artefacts import Artefact
from sweeps.deployment.values import Value
from sweeps.file.parts import Constraint

_SHOWN = 3  # of the artefacts that come nearest to a budget that none keeps


@dataclass(frozen=True)
class Entry:
    """An artefact with its place in the choice.

    Attributes:
        artefact: what it is.
        value: what it is worth.
        broken: the budgets that it breaks, with its figures; empty if it keeps all.
    """

    artefact: Artefact
    value: Value
    broken: tuple[str, ...]

    @property
    def obstacle(self) -> str | None:
        """Why it cannot be chosen, one line, or None."""
        if self.artefact.refused is not None:
            return self.artefact.refused
        if self.value.collapse is not None:
            return f"looks collapsed: {self.value.collapse}"
        if self.value.value is None:
            return "has no figure to choose by"
        return "; ".join(self.broken) or None


def entry_of(artefact: Artefact, value: Value, budgets: Sequence[Constraint]) -> Entry:
    """Return an artefact beside budgets.

    Args:
        artefact: what it is.
        value: what it is worth.
        budgets: what it must keep.
    """
    figures = artefact.figures()
    broken = [
        f"{item.metric} is {figures[item.metric]:.4g}, not {item.operator} {item.bound:g}"
        for item in budgets
        if figures and not item.holds(figures[item.metric])
    ]
    return Entry(artefact, value, tuple(broken))


def winner_of(entries: Sequence[Entry]) -> Entry | None:
    """Return the artefact to ship, or None if nothing can be shipped.

    Of equal worth the one that agrees more with its trial's network is better, then the faster, then the smaller.

    Args:
        entries: all artefacts.
    """
    return min((entry for entry in entries if entry.obstacle is None), key=_order, default=None)


def nearest_to(entries: Sequence[Entry], budgets: Sequence[Constraint]) -> list[Entry]:
    """Return the few that break budgets least, nearest first: each counts by the budget that it breaks most, as a share of it.

    Args:
        entries: all artefacts.
        budgets: what none of them keeps.
    """

    def violation(entry: Entry) -> float:
        figures = entry.artefact.figures()
        return max(item.violation(figures[item.metric]) for item in budgets)

    sound = [entry for entry in entries if entry.broken and entry.value.collapse is None]
    return sorted(sound, key=violation)[:_SHOWN]


def front(entries: Sequence[Entry], figure: str) -> list[Entry]:
    """Return the artefacts that none beats in worth and a cost together, by rising cost.

    Args:
        entries: all artefacts.
        figure: the cost, a name in `Artefact.figures`.
    """
    usable = [entry for entry in entries if entry.value.value is not None and entry.value.collapse is None]
    found: list[Entry] = []
    best = -math.inf
    for entry in sorted(usable, key=lambda entry: (entry.artefact.figures()[figure], *_order(entry))):
        if entry.value.value is not None and entry.value.value > best:
            best = entry.value.value
            found.append(entry)
    return found


def _order(entry: Entry) -> tuple[float, float, float, int, int, str]:
    artefact, value = entry.artefact, entry.value.value
    assert value is not None
    assert artefact.latency is not None
    return (
        -value,
        -artefact.agreement,
        artefact.latency.median_ms,
        artefact.file_bytes,
        artefact.candidate.trial.number,
        str(artefact.recipe),
    )
