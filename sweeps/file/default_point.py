"""The configuration that nobody searched for, which every search is measured by: about one in ten ends with something worse.

(Nagler et al., "Overtuning in Hyperparameter Optimization", AutoML 2025.)
"""

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from segda.config import TrainConfig
from segda.tunable import Scalar
from sweeps.file.space import Categorical, Distribution, Parameter, SearchSpace
from sweeps.paths import value_at

if TYPE_CHECKING:
    from sweeps.file.spec import SweepSpec

_NOTHING = object()


def default_point(spec: "SweepSpec") -> dict[str, Scalar] | None:
    """Return the point of the search space that is nearest to training without a search.

    A parameter has the value that `base` gives it, else that of the training configuration's default; where neither lies in the
    space, the nearest number, or the choice that is listed first.

    Args:
        spec: the sweep.

    Returns:
        Dotted path -> value, of the parameters that exist; None if that makes no training configuration.
    """
    space = spec.space
    params: dict[str, Scalar] = {}
    for item in space.parameters:
        if item.is_active(params):
            params[item.path] = _nearest(_usual(spec, space, params, item), item.distribution)
    return None if spec.problem_with(params) is not None else params


def _usual(spec: "SweepSpec", space: SearchSpace, params: dict[str, Scalar], item: Parameter) -> Any:
    """Return the value of a parameter that is not searched; the others are as they are, or at their first value."""
    others = {path: value for path, value in space.first(params).items() if path != item.path}
    try:
        config = TrainConfig.model_validate(spec.plain_config(others, seed=spec.first_seed))
    except ValidationError:  # it has none, and nothing can be trained without
        return _NOTHING
    return value_at(config.model_dump(mode="json"), item.path, _NOTHING)


def _nearest(value: Any, distribution: Distribution) -> Scalar:
    if isinstance(distribution, Categorical):
        return value if value is not _NOTHING and distribution.contains(value) else distribution.choices[0]
    if not isinstance(value, int | float) or isinstance(value, bool):
        return distribution.low
    values = distribution.values()
    if values is None:
        return min(max(float(value), distribution.low), distribution.high)
    return min((known for known in values if isinstance(known, int | float)), key=lambda known: abs(known - value))
