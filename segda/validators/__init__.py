"""Label-free scores by which trained networks can be compared on the target: higher is better for every one of them.

Each is a function on class probabilities of a fixed sample of the target's pixels (see `PixelSample`). None can be believed
alone: all but one reward a network that is surely wrong as much as one that is surely right, and the other one rewards collapse.
Who ranks by them must first reject collapsed networks, as `sweeps.selection.choice` does.
"""

from collections.abc import Callable

from torch import Tensor

from segda.catalog import Catalog, function
from segda.validators.diversity import batch_nuclear_norm, information_maximization
from segda.validators.entropy import negative_entropy
from segda.validators.neighborhood import soft_neighborhood_density
from segda.validators.sample import PixelSample

# Name in sweep files and reports -> score of probabilities, float [N, P, C] for P pixels of each of N images.
VALIDATORS: Catalog[Callable[[Tensor], float]] = Catalog(
    "validator",
    group="segda.validators",
    built_in={
        "entropy": negative_entropy,
        "im": information_maximization,
        "bnm": batch_nuclear_norm,
        "snd": soft_neighborhood_density,
    },
    check=function,
)

# What a training computes unless it is told otherwise.
USUAL_VALIDATORS = ("entropy", "im", "bnm", "snd")


def validator_metric(name: str) -> str:
    """Return the name of the metric that a validator's score is reported under.

    Args:
        name: of the validator.
    """
    return f"target/validator/{name}"


__all__ = ["USUAL_VALIDATORS", "VALIDATORS", "PixelSample", "validator_metric"]
