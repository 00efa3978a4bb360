"""What differs between two versions of a sweep file, and whether a sweep may go on under the other one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from segda.errors import ConfigError
from segda.masking import masked
from segda.tunable import Scalar
from sweeps.checks.makers import spec_from
from sweeps.checks.sampler import unused_settings
from sweeps.file.auto import chosen_sampler
from sweeps.file.space import SearchSpace
from sweeps.file.spec import SweepSpec, without_places
from sweeps.paths import leaves
from sweeps.trial import TrialKind, TrialRecord

_ABSENT = "-"
# Results stay comparable, but what is proposed, stopped and picked from now on follows other rules.
_RULES = frozenset({"search", "objectives", "constraints", "selection", "scheduler", "sampler", "seed"})
_REFERENCES = "references"


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
    if before.first_seed != after.first_seed:
        computed.add("seeds")
    # References are known by name: a new one is trained, an earlier one is not trained again.
    for name in before.references.keys() & after.references.keys():
        for params in (before.references[name], after.references[name]):
            computed |= {path for path, _ in leaves({name: params}, f"{_REFERENCES}.")}
    follows = {"budget.concurrency"} if before.sampler.reproducible or after.sampler.reproducible else set()
    found = [
        Change(
            path,
            masked(old.get(path, _ABSENT)),
            masked(new.get(path, _ABSENT)),
            _effect(path, computed=computed, proposed=follows),
        )
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]
    order = [Effect.RESULTS, Effect.RULES, Effect.NONE]
    return sorted(found, key=lambda change: (order.index(change.effect), change.path))


def _settings(canonical: Mapping[str, Any]) -> dict[str, str]:
    # The keys of `search` and `references` are dotted themselves; they read the same either way.
    return {path: str(value) for path, value in leaves(canonical)}


def _effect(path: str, *, computed: set[str], proposed: set[str]) -> Effect:
    if path == "name" or path in computed:
        return Effect.RESULTS
    return Effect.RULES if path.partition(".")[0] in _RULES or path in proposed else Effect.NONE


def with_sampler(spec: SweepSpec, *, begun: SweepSpec | None = None) -> SweepSpec:
    """Return a sweep that names its sampler, which its file may leave to `auto`.

    A sweep that has begun keeps its sampler under `auto`: what `auto` takes depends on the budget, and more trials are no reason to
    propose them in another way.

    Args:
        spec: the sweep as it is wanted.
        begun: the sweep as it began, its sampler named; unset: it has not begun.

    Raises:
        ConfigError: that sampler cannot search the space.
    """
    if spec.sampler.name != "auto":
        return spec
    name = chosen_sampler(spec, spec.space) if begun is None else begun.sampler.name
    # What only other samplers heed had no effect under `auto` and would be refused beside a name.
    kept = {key: value for key, value in spec.canonical()["sampler"].items() if key not in unused_settings(name)}
    plain = spec.canonical() | {"sampler": kept | {"name": name}}
    return spec_from(plain, where=f"sweep {spec.name} with sampler {name}, which `sampler: {{name: auto}}` means here")


def check_trials_fit(spec: SweepSpec, trials: Iterable[TrialRecord]) -> None:
    """Check that what was proposed lies in the space that is wanted now; a search learns from all that it proposed.

    Args:
        spec: the sweep as it is wanted.
        trials: its records of any kind.

    Raises:
        ConfigError: a trial lies outside.
    """
    space = spec.space
    for record in trials:
        if record.kind is not TrialKind.SEARCH or space.contains(record.params):
            continue
        path = _outside(space, record.params)
        value = repr(record.params[path]) if path in record.params else "nothing"
        raise ConfigError(
            f"search.{path} no longer fits trial {record.number}, which has {value}, and a search learns from all its trials; "
            f"start a sweep of another name, and let it learn from those that fit with `sampler: {{warm_start: [{spec.name}]}}`"
        )


def _outside(space: SearchSpace, params: Mapping[str, Scalar]) -> str:
    """Return the first parameter that keeps parameters from lying in a space."""
    for item in space.parameters:
        has_value = item.path in params
        if has_value != item.is_active(params) or (has_value and not item.distribution.contains(params[item.path])):
            return item.path
    known = {item.path for item in space.parameters}
    return next(path for path in params if path not in known)
