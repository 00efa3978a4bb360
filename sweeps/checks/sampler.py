"""What a sweep file must hold for its sampler; each check raises `LocatedError` at the key to change."""

from collections.abc import Mapping

from segda.config_problems import LocatedError, Location, dotted
from segda.names import nearest
from segda.tunable import Scalar
from sweeps.file.default_point import default_point
from sweeps.file.space import Float, SearchSpace, identity
from sweeps.file.spec import SweepSpec

# Setting -> the samplers that heed it: those that learn from results, and those that start at random before.
_USERS = {
    "warm_start": ("auto", "tpe", "gp", "nsga2"),
    "startup_trials": ("auto", "tpe", "gp"),
    "cost_aware": ("auto", "tpe"),
}


def unused_settings(sampler: str) -> list[str]:
    """Return the settings of `sampler` that have no effect with one.

    Args:
        sampler: a name that `sampler.name` may have.
    """
    return [key for key, users in _USERS.items() if sampler not in users]


def check_sampler(spec: SweepSpec, space: SearchSpace) -> None:
    """Check the settings of the sampler.

    Raises:
        LocatedError: relative to the sweep file: a setting has no effect, the sampler cannot search the space, or a point to
            begin with is not in it.
    """
    name = spec.sampler.name
    for key in unused_settings(name):
        if getattr(spec.sampler, key) != type(spec.sampler).model_fields[key].default:
            raise LocatedError(("sampler", key), f"has no effect with sampler {name}; leave it out")
    if spec.sampler.cost_aware and len(spec.objectives) > 1:
        raise LocatedError(
            ("sampler", "cost_aware"),
            f"weighs one objective by the time of a trial, and this sweep has {len(spec.objectives)}, whose front needs its dear "
            "end too; leave it out",
        )
    if name == "grid":
        for item in space.parameters:
            if item.distribution.values() is None:
                raise LocatedError(
                    ("search", item.path),
                    "has no end of values, of which sampler grid would propose every one; give it a step or choices, or take "
                    "sampler qmc, which covers ranges evenly",
                )
    for index, earlier in enumerate(spec.sampler.warm_start):
        where: Location = ("sampler", "warm_start", index)
        if earlier == spec.name:
            raise LocatedError(where, "is this sweep itself, whose results are known anyway; name earlier ones")
        if earlier in spec.sampler.warm_start[:index]:
            raise LocatedError(where, f"{earlier} is listed twice; keep one of them")
    default = default_point(spec) if spec.sampler.default and spec.sampler.first else None
    is_one_more = default is not None and identity(default) not in map(identity, spec.sampler.first)
    if len(spec.sampler.first) + is_one_more > spec.budget.trials:
        one_more = ", the default configuration is one more (sampler.default)" if is_one_more else ""
        raise LocatedError(
            ("sampler", "first"),
            f"has {len(spec.sampler.first)} points{one_more} and budget.trials is {spec.budget.trials}; raise that or name fewer "
            "points",
        )
    for index, params in enumerate(spec.sampler.first):
        _check_point(spec, space, params, ("sampler", "first", index))
        if identity(params) in [identity(other) for other in spec.sampler.first[:index]]:
            raise LocatedError(("sampler", "first", index), "is listed twice; keep one of them")


def _check_point(spec: SweepSpec, space: SearchSpace, params: Mapping[str, Scalar], where: Location) -> None:
    known = {item.path: item for item in space.parameters}
    for path, value in params.items():
        if path not in known:
            raise LocatedError((*where, path), f"is not searched{nearest(path, known)}; searched: {', '.join(known)}")
        item = known[path]
        if not item.is_active(params):
            wanted = " and ".join(
                f"{parent} is {' or '.join(str(value) for value in values)}"
                for parent, values in item.condition.items()
            )
            raise LocatedError((*where, path), f"does not exist at this point, only where {wanted}; leave it out")
        if not item.distribution.contains(value):
            kind = "a number from " if isinstance(item.distribution, Float) else ""
            raise LocatedError((*where, path), f"must be {kind}{item.distribution}, got {value!r}")
    missing = [path for path, item in known.items() if item.is_active(params) and path not in params]
    if missing:
        raise LocatedError(where, f"every parameter that exists there needs a value; without one: {', '.join(missing)}")
    problem = spec.problem_with(params)
    if problem is not None:
        path = dotted(problem.location)
        if path in params:
            raise LocatedError((*where, path), problem.text)
        raise LocatedError(where, f"cannot be trained: {problem}")
