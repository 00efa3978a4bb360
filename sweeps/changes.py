"""What differs between two versions of a sweep file, and whether a sweep may go on under the other one."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sweeps.fields import leaves
from sweeps.spec import OUTSIDE_FINGERPRINT, SweepSpec, without_places

_ABSENT = "-"
# Results stay comparable, but what is proposed, stopped and picked from now on follows other rules.
_RULES = frozenset({"search", "objectives", "constraints", "selection", "scheduler", "sampler", "seed"})


class Effect(Enum):
    """What a change does to a sweep that has begun."""

    NONE = "none"  # budget, resources, places: takes effect, nothing else changes
    RULES = "rules"  # other trials are proposed or stopped from now on
    RESULTS = "results"  # trials would compute something else: not comparable with those that are there


@dataclass(frozen=True)
class Change:
    """One key that differs.

    Attributes:
        path: dotted path in the sweep file.
        before: its value when the sweep began, for people; `-` where it was absent.
        after: its value now.
        effect: what it does to the sweep.
    """

    path: str
    before: str
    after: str
    effect: Effect


def changes_between(before: SweepSpec, after: SweepSpec) -> list[Change]:
    """Return the differences of two sweeps, those with the largest effect first.

    Args:
        before: the sweep as it began.
        after: the sweep as it is wanted now.
    """
    old, new = _settings(before.canonical()), _settings(after.canonical())
    computed = {
        path for spec in (before, after) for path, _ in leaves(without_places(spec.canonical()["base"]), "base.")
    }
    has_other_seed = before.seeds[0] != after.seeds[0]
    found = [
        Change(
            path,
            old.get(path, _ABSENT),
            new.get(path, _ABSENT),
            _effect(path, computed=computed, has_other_seed=has_other_seed),
        )
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]
    order = [Effect.RESULTS, Effect.RULES, Effect.NONE]
    return sorted(found, key=lambda change: (order.index(change.effect), change.path))


def _settings(canonical: Mapping[str, Any]) -> dict[str, str]:
    # The keys of `search` and `references` are dotted themselves; they read the same either way.
    return {path: str(value) for path, value in leaves(canonical)}


def _effect(path: str, *, computed: set[str], has_other_seed: bool) -> Effect:
    part = path.partition(".")[0]
    if part == "seeds":
        return Effect.RESULTS if has_other_seed else Effect.NONE
    if part in OUTSIDE_FINGERPRINT:
        return Effect.NONE
    if part in _RULES:
        return Effect.RULES
    return Effect.RESULTS if part == "name" or path in computed else Effect.NONE
