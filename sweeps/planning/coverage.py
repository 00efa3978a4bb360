"""Which configurations of a space to try so that whatever can crash has been tried once.

Every branch (combination of the values that conditions name) is tried, every choice and every end of a range of whole numbers at
least once, every architecture at least once, and every reference. All pairs would be more than a person waits for.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from segda.config import TrainConfig
from segda.methods import METHODS
from segda.tunable import Scalar
from sweeps.file.space import Float, Parameter, SearchSpace
from sweeps.file.spec import SweepSpec
from sweeps.labels import format_value, short_names
from sweeps.planning.profiles import Architecture, Profile


@dataclass(frozen=True)
class Case:
    """A configuration to try.

    Attributes:
        label: what a person tells it by.
        params: dotted path -> value, put over the sweep's base.
        is_reference: whether the sweep file fixes it, as opposed to being a point of the space.
    """

    label: str
    params: Mapping[str, Scalar]
    is_reference: bool = False


def cases(spec: SweepSpec, *, infeasible: Set[Architecture] = frozenset()) -> list[Case]:
    """Return configurations that cover a sweep, references last.

    Args:
        spec: the sweep.
        infeasible: architectures that its search never trains.

    Returns:
        Two methods and three trunks give three cases, not six: each method and each trunk occurs.
    """
    space = spec.space
    branches = [
        [(params, _items(spec, space, params)) for params in _candidates(spec, space, branch, infeasible)]
        for branch in space.branches()
    ]
    every = list(itertools.chain.from_iterable(branches))
    left = {item for _, items in every for item in items}
    chosen: list[dict[str, Scalar]] = []

    def choose(candidates: Iterable[tuple[dict[str, Scalar], frozenset[tuple[str, str]]]]) -> None:
        params, items = max(candidates, key=lambda candidate: len(candidate[1] & left))
        left.difference_update(items)
        chosen.append(params)

    for candidates in branches:
        if candidates:
            choose(candidates)
    while left:
        choose(every)
    found = [Case(_label(space, params), params) for params in chosen]
    return found + [Case(f"reference: {name}", dict(params), True) for name, params in spec.references.items()]


def heaviest(
    spec: SweepSpec, profiles: Mapping[Architecture, Profile], *, infeasible: Set[Architecture] = frozenset()
) -> list[Case]:
    """Return the configuration of each method that is likely to need the most memory, likeliest first.

    Args:
        spec: the sweep.
        profiles: of the architectures that it can reach.
        infeasible: architectures that are never trained.
    """
    space = spec.space
    found: dict[str, tuple[float, Case]] = {}
    points = [
        Case(_label(space, params), params)
        for branch in space.branches()
        for params in _candidates(spec, space, branch, infeasible, largest=True)
    ]
    points += [Case(f"reference: {name}", dict(params), True) for name, params in spec.references.items()]
    for case in points:
        config = spec.train_config(case.params, seed=spec.first_seed)
        architecture = Architecture.of(config, spec.deploy)
        if architecture in infeasible:  # a reference's; the others are left out above
            continue
        weight = _weight(config, profiles[architecture])
        if weight > found.get(config.method.name, (-1.0, case))[0]:
            found[config.method.name] = (weight, case)
    return [case for _, case in sorted(found.values(), key=lambda item: -item[0])]


def _weight(config: TrainConfig, profile: Profile) -> float:
    """Multiply-accumulates of a step's forward passes, the best guess at the memory of a training without training."""
    height, width = config.data.train_size
    share = height * width / (config.data.height * config.data.width)
    images = config.batch_size * (1 + METHODS[config.method.name].needs_target)
    return profile.metrics.get("macs", 0.0) * share * images


# A larger number of these takes more memory.
_SIZES = frozenset({"batch_size", "data.crop_height", "data.crop_width"})


def _candidates(
    spec: SweepSpec,
    space: SearchSpace,
    branch: Mapping[str, Scalar],
    infeasible: Set[Architecture],
    *,
    largest: bool = False,
) -> list[dict[str, Scalar]]:
    """Complete a branch in several ways: every architecture, and every value of each other parameter, occurs."""
    free = [item for item in space.parameters if item.path not in branch and item.is_active(branch)]
    networks = [item for item in free if item.path.startswith("model.")]
    others = [item for item in free if not item.path.startswith("model.")]
    architectures = [
        dict(zip((item.path for item in networks), values, strict=True))
        for values in itertools.product(*(item.distribution.values() or [] for item in networks))
    ]
    values = {item.path: [_largest(item)] if largest and item.path in _SIZES else _to_try(item) for item in others}
    feasible = []
    for architecture in architectures:
        params = _ordered(space, {**branch, **architecture, **{path: tried[0] for path, tried in values.items()}})
        if Architecture.of(spec.train_config(params, seed=spec.first_seed), spec.deploy) not in infeasible:
            feasible.append(architecture)
    if not feasible:
        return []
    rows = len(feasible) if largest else max(len(feasible), *(len(tried) for tried in values.values()), 1)
    return [
        _ordered(
            space,
            {
                **branch,
                **feasible[row % len(feasible)],
                **{path: tried[row % len(tried)] for path, tried in values.items()},
            },
        )
        for row in range(rows)
    ]


def _to_try(item: Parameter) -> Sequence[Scalar]:
    """Return all choices, both ends of whole numbers, and one real number, which neither crashes nor costs by itself."""
    ends = [value for _, value in item.distribution.extremes()]
    return ends[:1] if isinstance(item.distribution, Float) else ends


def _largest(item: Parameter) -> Scalar:
    return max((value for value in _to_try(item) if isinstance(value, int | float)), default=_to_try(item)[0])


def _ordered(space: SearchSpace, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {item.path: params[item.path] for item in space.parameters if item.path in params}


def _items(spec: SweepSpec, space: SearchSpace, params: Mapping[str, Scalar]) -> frozenset[tuple[str, str]]:
    """Return what a configuration covers: its architecture and its values, apart from real numbers."""
    architecture = Architecture.of(spec.train_config(params, seed=spec.first_seed), spec.deploy)
    return frozenset({("", str(architecture)), *((path, repr(value)) for path, value in _telling(space, params))})


def _telling(space: SearchSpace, params: Mapping[str, Scalar]) -> Iterator[tuple[str, Scalar]]:
    for item in space.parameters:
        if item.path in params and not isinstance(item.distribution, Float):
            yield item.path, params[item.path]


def _label(space: SearchSpace, params: Mapping[str, Scalar]) -> str:
    """Return the values that tell a configuration from others, e.g. `adversarial, fcd, resnet18, batch_size 8`."""
    told = dict(_telling(space, params))
    names = short_names(told)
    words = [
        value if isinstance(value, str) else f"{names[path]} {format_value(value)}" for path, value in told.items()
    ]
    return ", ".join(words) or "the only branch"
