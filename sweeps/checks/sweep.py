"""What must hold between the parts of a sweep file; each check raises `LocatedError` at the key to change."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from segda.config import TrainConfig
from segda.config_problems import LocatedError, Location, Problem, dotted, first_problem, shortened
from segda.datasets import DATASETS
from segda.deployment.runtimes import RUNTIMES
from segda.methods import METHODS
from segda.models import MODELS
from segda.names import nearest
from segda.tunable import Scalar
from sweeps.checks.resources import check_resources
from sweeps.checks.sampler import check_sampler
from sweeps.checks.scheduler import check_comparison, check_rungs, compared_metrics
from sweeps.file.fields import (
    EXTERNAL_LABELS,
    FEW_SHOT,
    FIXED_FIELDS,
    HEAD_LR_FACTOR,
    HOST,
    METHOD,
    NETWORK_PREFIXES,
    VARIANTS,
    fields_of,
    has_part,
    known_paths,
    name_of,
    part_of,
)
from sweeps.file.parts import SeedBudget
from sweeps.file.search_part import NEVER_PICKED, check_name, is_candidate
from sweeps.file.space import Float, Parameter, SearchSpace
from sweeps.file.spec import SweepSpec
from sweeps.metrics import CRITERIA, EFFICIENCY, SPLITS, is_oracle, is_validator, label_free
from sweeps.paths import value_at, with_values

_LONGEST_NAME = 100  # characters, of a reference
_MOST_BRANCHES = 1000
_MOST_NETWORKS = 2000  # in all branches together


def check_spec(spec: SweepSpec) -> None:
    """Check what must hold between the parts of a sweep.

    Raises:
        LocatedError: relative to the sweep file.
    """
    try:
        space = spec.space
    except LocatedError as error:
        raise LocatedError(("search", *error.location), error.text) from error
    if space.exceeds(_MOST_BRANCHES):
        raise LocatedError(
            ("search",),
            f"the conditions make more than {_MOST_BRANCHES} branches, each of which is tried; search less at once",
        )
    _check_seeds(spec)
    _check_baseline(spec)
    fixed = value_at(spec.base, METHOD)
    if METHOD not in spec.search and not is_candidate("method", str(fixed)):
        raise LocatedError(("base", "method", "name"), f"{fixed} {NEVER_PICKED}")
    for part in VARIANTS:
        _check_settings(spec, space, part)
    _check_heads(spec, space)
    _check_labels(spec)
    _check_models(space)
    sample = _check_values(spec, space)
    _check_references(spec)
    known = [*_reported(sample), *label_free(sample.validators)]
    for index, objective in enumerate(spec.objectives):
        where: Location = ("objectives", index, "metric")
        _check_metric(spec, sample, where, objective.metric, [*known, *EFFICIENCY])
        if objective.metric in [other.metric for other in spec.objectives[:index]]:
            raise LocatedError(where, f"{objective.metric} is an objective already; keep one of them")
    _check_bounds(spec)
    if spec.selection == "oracle" and sample.oracle == "never":
        raise LocatedError(
            ("selection",), "oracle chooses by target scores, and base.oracle is never; set that to end or always"
        )
    if is_validator(CRITERIA[spec.selection]) and spec.selection not in sample.validators:
        listed = ", ".join((*sample.validators, spec.selection))
        raise LocatedError(
            ("selection",), f"trials do not compute {spec.selection}; add it: base.validators: [{listed}]"
        )
    _check_deploy(spec)
    check_resources(spec, space, sample)
    check_sampler(spec, space)
    for metric, where in compared_metrics(spec).items():
        _check_metric(spec, sample, where, metric, known)
    check_comparison(spec, sample)
    check_rungs(spec)


def _check_deploy(spec: SweepSpec) -> None:
    """Refuse a runtime that does not know the precision or the device, and bounds on what is not measured with one."""
    if spec.deploy is None:
        return
    kind = RUNTIMES[spec.deploy.runtime]
    if spec.deploy.precision not in kind.precisions:
        raise LocatedError(
            ("deploy", "precision"),
            f"{spec.deploy.runtime} knows {' or '.join(kind.precisions)}, got {spec.deploy.precision}; choose one of these, or "
            "another runtime",
        )
    if spec.resources.num_gpus and "cuda" not in kind.devices:
        raise LocatedError(
            ("deploy", "runtime"),
            f"{spec.deploy.runtime} computes on processors alone, and efficiency is measured where trials compute, on GPUs; choose "
            "another runtime, or resources.gpus: 0",
        )
    memory = "peak_memory_bytes"
    bounded = [("constraints", index) for index, item in enumerate(spec.constraints) if item.metric == memory]
    aimed = [("objectives", index) for index, item in enumerate(spec.objectives) if item.metric == memory]
    for where in [*bounded, *aimed]:
        raise LocatedError(
            where, f"{memory} is not measured of what {spec.deploy.runtime} runs; leave it out, or leave deploy out"
        )


def _check_bounds(spec: SweepSpec) -> None:
    """Refuse bounds that exclude each other or make each other superfluous, and a target that no figure reaches."""
    for index, constraint in enumerate(spec.constraints):
        for other in spec.constraints[:index]:
            if other.metric != constraint.metric:
                continue
            if other.operator == constraint.operator:
                raise LocatedError(("constraints", index), f"{other} bounds {other.metric} already; keep one of them")
            low, high = (other, constraint) if other.operator == ">=" else (constraint, other)
            if low.bound > high.bound:
                raise LocatedError(("constraints", index), f"{low} and {high} exclude each other; change one of them")
    first, target = spec.objectives[0].metric, spec.budget.target
    if target is not None and (first.startswith("source/") or is_oracle(first)) and not 0 <= target <= 1:
        raise LocatedError(("budget", "target"), f"{first} lies from 0 to 1, got {target:g}; 60 % is 0.6")


def _check_seeds(spec: SweepSpec) -> None:
    for index, seed in enumerate(spec.listed_seeds):
        if seed in spec.listed_seeds[:index]:
            raise LocatedError(("seeds", index), f"{seed} is listed twice; keep one of them")
    if spec.finalists > spec.budget.trials:
        raise LocatedError(("finalists",), f"must be at most budget.trials {spec.budget.trials}, got {spec.finalists}")
    if spec.seed_budget is not None:
        _check_seed_budget(spec, spec.seed_budget)
    if not spec.has_further_seeds:
        without_effect = {
            "finalists": spec.finalists > 1,
            "finalists_of_each": bool(spec.finalists_of_each),
            "repeat_references": spec.repeat_references,
        }
        for field, is_given in without_effect.items():
            if is_given:
                raise LocatedError(
                    (field,), "has no effect with one training seed; list further ones under seeds, or leave it out"
                )
    for index, path in enumerate(spec.finalists_of_each):
        if path not in spec.search:
            raise LocatedError(
                ("finalists_of_each", index),
                f"{path!r} is not searched{nearest(path, spec.search)}; name paths of search",
            )
        if spec.space.num_values([path]) is None:
            raise LocatedError(
                ("finalists_of_each", index),
                f"{path} has no end of values; name paths that have choices, whole numbers or a step",
            )
        if path in spec.finalists_of_each[:index]:
            raise LocatedError(("finalists_of_each", index), f"{path} is listed twice; keep one of them")
    if spec.repeat_references and not spec.references:
        raise LocatedError(("repeat_references",), "there are no references to repeat; name some, or leave it out")


def _check_seed_budget(spec: SweepSpec, budget: SeedBudget) -> None:
    if spec.finalists == 1 and not spec.finalists_of_each:
        raise LocatedError(("seeds",), "a budget is for telling finalists apart; set finalists to 2 or more, it is 1")
    if spec.repeat_references:
        raise LocatedError(
            ("repeat_references",), "needs a list of seeds, which all share; with a budget of seeds leave it out"
        )
    least = spec.finalists * max(1, spec.space.num_values(spec.finalists_of_each) or 1)
    if budget.budget < least:
        raise LocatedError(
            ("seeds", "budget"), f"must be at least {least}, a run for each finalist, got {budget.budget}"
        )


def _check_baseline(spec: SweepSpec) -> None:
    if spec.baseline is not None and spec.baseline not in spec.references:
        raise LocatedError(
            ("baseline",),
            f"there is no reference {spec.baseline!r}{nearest(spec.baseline, spec.references)}; name one of references",
        )


def _check_settings(spec: SweepSpec, space: SearchSpace, part: str) -> None:
    """A setting of a method or a network exists only where that method or network is."""
    path, noun = f"{part}.name", VARIANTS[part].noun
    reachable = _reachable(spec, part)

    def has(name: str, setting: str) -> bool:
        inner = part_of(setting)
        return setting in fields_of(part, name) if inner in (part, None) else has_part(str(inner), name)

    for item in space.parameters:
        if not item.path.startswith(f"{part}.") or item.path == path:
            continue
        for name in _names_beside(item, spec, space, part):
            if not has(name, item.path):
                owners = [owner for owner in sorted(reachable) if has(owner, item.path)]
                wanted = owners[0] if len(owners) == 1 else f"[{', '.join(owners)}]"
                raise LocatedError(
                    ("search", item.path), f"{noun} {name} has no such field; add `when: {{{path}: {wanted}}}`"
                )
    referenced = set()
    for name, params in spec.references.items():
        if path in params:
            check_name(part, params[path], at=("references", name, path))
            referenced.add(str(params[path]))
    known = known_paths({part: sorted(reachable | referenced)})
    parts = {
        inner
        for inner in VARIANTS
        if part_of(inner) == part and any(has_part(inner, name) for name in reachable | referenced)
    }
    for key in value_at(spec.base, part) or {}:
        if f"{part}.{key}" not in known.keys() | parts:
            names = [path.removeprefix(f"{part}.") for path in known if path.startswith(f"{part}.")]
            hint = nearest(key, names) or f"; known: {', '.join(names)}"
            raise LocatedError(("base", *part.split("."), key), f"no {noun} of this sweep has it{hint}")


def _reachable(spec: SweepSpec, part: str) -> set[str]:
    """Return the names that a part of proposed configurations can have."""
    searched = spec.search.get(f"{part}.name")
    return {str(name_of(spec.base, part))} if searched is None else {str(value) for value in searched.choices or ()}


def _names_beside(item: Parameter, spec: SweepSpec, space: SearchSpace, part: str) -> list[str]:
    """Return the names that a part can have where a parameter exists."""
    path = f"{part}.name"
    # A name that is searched but stands in no condition is no part of the branches.
    active = {str(branch[path]) for branch in space.branches() if path in branch and item.is_active(branch)}
    return sorted(active or _reachable(spec, part))


def _check_heads(spec: SweepSpec, space: SearchSpace) -> None:
    """Heads have a rate of their own where the network has a trunk."""
    for item in space.parameters:
        for name in _names_beside(item, spec, space, "model") if item.path == HEAD_LR_FACTOR else ():
            if MODELS[name].trunk_module is None:
                with_trunk = ", ".join(
                    model for model in sorted(_reachable(spec, "model")) if MODELS[model].trunk_module
                )
                raise LocatedError(
                    ("search", item.path),
                    f"{name} has no trunk beside which heads would learn at another rate; "
                    + (f"add `when: {{model.name: [{with_trunk}]}}`" if with_trunk else "leave it out"),
                )


def _check_labels(spec: SweepSpec) -> None:
    """Refuse labels that nothing uses: methods that do not need them do not see them."""
    names: set[Any] = set()
    for path in (METHOD, f"{HOST}.name"):
        names |= {value_at(spec.base, path), *(params.get(path) for params in spec.references.values())}
        if path in spec.search:
            names |= set(spec.search[path].choices or ())
    methods = [METHODS[str(name)] for name in names if name is not None]
    for path, what, is_used in (
        (FEW_SHOT, "target labels", any(method.needs_few_shot for method in methods)),
        (EXTERNAL_LABELS, "external labels", any(method.needs_external_labels for method in methods)),
    ):
        if value_at(spec.base, path) is not None and not is_used:
            raise LocatedError(
                ("base", *path.split(".")),
                f"no method of this sweep uses {what}; leave it out, or search one that does",
            )


def _check_models(space: SearchSpace) -> None:
    for item in space.parameters:
        if item.path.startswith("model.") and isinstance(item.distribution, Float):
            raise LocatedError(
                ("search", item.path),
                "networks are searched by choices, since the cost of each is measured before the search; list choices",
            )
    if space.exceeds(_MOST_NETWORKS, *NETWORK_PREFIXES):
        raise LocatedError(
            ("search",),
            f"there are more than {_MOST_NETWORKS} networks in it, each of which is measured; search less at once",
        )


def _check_values(spec: SweepSpec, space: SearchSpace) -> TrainConfig:
    """Build a configuration for every bound and choice, the others at their first value; return the first one."""
    sample: TrainConfig | None = None
    tried: dict[str, set[tuple[Scalar, ...]]] = {}
    for branch in space.branches():
        first = space.first(branch)
        found = _build(spec, first, at=None)
        sample = sample or found
        for item in space.parameters:
            # Once per method, network, optimizer and loss is enough: other parents change which parameters exist, not which values
            # a field takes.
            names = tuple(first.get(f"{part}.name") for part in VARIANTS)
            if item.path in branch or item.path not in first or names in tried.setdefault(item.path, set()):
                continue
            tried[item.path].add(names)
            for index, (key, value) in enumerate(item.distribution.extremes()):
                where: Location = ("search", item.path, key) if key != "choices" else ("search", item.path, key, index)
                _build(spec, first | {item.path: value}, at=where)
    if sample is None:
        raise LocatedError(("search",), "no trial is possible")
    return sample


def _build(spec: SweepSpec, params: Mapping[str, Scalar], *, at: Location | None) -> TrainConfig:
    plain = spec.plain_config(params, seed=spec.first_seed)
    try:
        config = TrainConfig.model_validate(plain)
    except ValidationError as error:
        problem = first_problem(error, TrainConfig, plain)
        raise _blame(spec, problem, params, at) from error
    taken = config.model_dump()
    for path, value in params.items():
        # A training takes "4" for 4; a search would take them for two choices. Paths are text too, and so is what plain data leave
        # out because it is the default.
        if isinstance(value, str) and not isinstance(value_at(taken, path, value), str | Path):
            raise LocatedError(at or ("search", path), f"must be {value} without quotes, got text")
    return config


def _blame(spec: SweepSpec, problem: Problem, params: Mapping[str, Scalar], at: Location | None) -> LocatedError:
    """Say which key of the sweep file causes a problem of a training configuration."""
    path = dotted(problem.location)
    remedy = "" if path in params else _remedy(spec, path, params)
    if at is not None and path == at[1]:
        return LocatedError(at, problem.text)
    if at is not None:
        value = params[str(at[1])]
        return LocatedError(at, f"{value!r} makes a configuration that cannot be trained: {problem}{remedy}")
    if path in params:
        return LocatedError(("search", path), problem.text)
    return LocatedError(("base", *problem.location), f"{problem.text}{remedy}")


def _remedy(spec: SweepSpec, path: str, params: Mapping[str, Scalar]) -> str:
    """Return how to give a value of `base` to those networks, methods, ... alone that take it; empty if that is not the problem."""
    part, value = part_of(path), value_at(spec.base, path)
    if part is None or value is None:
        return ""
    name = params.get(f"{part}.name", name_of(spec.base, part))
    fitting = [other for other in sorted(_reachable(spec, part)) if _takes(part, other, path, value)]
    if not fitting or name in fitting:
        return ""
    wanted = f"{path}: {{choices: [{value}], when: {{{part}.name: [{', '.join(fitting)}]}}}}"
    return (
        f". Of the {VARIANTS[part].noun}s of this sweep only {', '.join(fitting)} can have {value}, {name} cannot: leave it out of "
        f"base, where each keeps its own default, or say for which it is meant, under search: `{wanted}`"
    )


def _takes(part: str, name: str, path: str, value: Any) -> bool:
    """Return whether a part with some name can have a value at a path, its other settings at their defaults."""
    if path not in fields_of(part, name):
        return False
    try:
        VARIANTS[part][name].Config.model_validate(with_values({"name": name}, {path.removeprefix(f"{part}."): value}))
    except ValidationError:
        return False
    return True


def _check_references(spec: SweepSpec) -> None:
    for name, params in spec.references.items():
        if not name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
            raise LocatedError(
                ("references",),
                f"a reference needs a name of one line and at most {_LONGEST_NAME} characters, got {shortened(repr(name))}",
            )
        method = params.get(METHOD, value_at(spec.base, METHOD))
        if method is None:
            raise LocatedError(("references", name), f"base has no method, so the reference must name one: {METHOD}")
        names = {part: params.get(f"{part}.name", name_of(spec.base, part)) for part in VARIANTS}
        for part, chosen in names.items():
            check_name(part, chosen, at=("references", name, f"{part}.name"))
        known = known_paths({part: [str(chosen)] for part, chosen in names.items()})
        for path in params:
            where: Location = ("references", name, path)
            if path in FIXED_FIELDS:
                raise LocatedError(where, f"cannot differ in a reference: {FIXED_FIELDS[path]}")
            if path not in known:
                raise LocatedError(where, f"a training configuration has no such field{nearest(path, known)}")
        problem = spec.problem_with(params)
        if problem is not None:
            path = dotted(problem.location)
            if path in params:
                raise LocatedError(("references", name, path), problem.text)
            raise LocatedError(("references", name), str(problem))


def _reported(sample: TrainConfig) -> list[str]:
    """Return the metrics that a training reports again and again."""
    classes = DATASETS[sample.data.source.dataset].classes
    names = ["miou", "miou_well", "miou_under", "pixel_accuracy", *(f"iou/{name}" for name in classes)]
    return [f"{split}/{name}" for split in SPLITS for name in names]


def _check_metric(spec: SweepSpec, sample: TrainConfig, where: Location, metric: str, known: Iterable[str]) -> None:
    if is_oracle(metric):
        if spec.selection != "oracle":
            raise LocatedError(
                where,
                f"{metric} is made from target labels, which must not steer a search; use source/val/miou, or say "
                "`selection: oracle` and every table will say that target labels were used",
            )
        if sample.oracle == "never":
            raise LocatedError(where, f"{metric} is not reported with base.oracle: never; set it to end or always")
    elif metric.startswith("source/test/"):
        raise LocatedError(
            where, f"{metric} is made from the test split, which is for the final table; use source/val/..."
        )
    allowed = [name for name in known if spec.selection == "oracle" or not is_oracle(name)]
    if metric not in allowed:
        hint = nearest(metric, allowed) or f"; known: {', '.join(name for name in allowed if '/iou/' not in name)}"
        raise LocatedError(where, f"unknown metric {metric!r}{hint}")
