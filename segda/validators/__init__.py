"""Label-free scores by which trained networks can be compared on the target: higher is better for every one of them.

Each is a function on the network's outputs at fixed pixels of both domains (`Evidence`). None can be believed alone, and none of
them across methods: a network that is surely wrong on the target only looks as good as one that is surely right, and entropy
losses and self-training make such networks. Who ranks by them must first reject collapsed networks, as `sweeps.selection.choice`
does.
"""

from collections.abc import Callable, Iterable

from segda.catalog import Catalog, function
from segda.validators.dev import deep_embedded_validation, importance
from segda.validators.diversity import batch_nuclear_norm, information_maximization
from segda.validators.entropy import negative_entropy
from segda.validators.evidence import Evidence
from segda.validators.neighborhood import soft_neighborhood_density
from segda.validators.sample import PixelSample
from segda.validators.soft_iou import soft_iou
from segda.validators.thresholded import average_thresholded_confidence

# Name in sweep files and reports -> score of what a network says.
VALIDATORS: Catalog[Callable[[Evidence], float]] = Catalog(
    "validator",
    group="segda.validators",
    built_in={
        "entropy": negative_entropy,
        "im": information_maximization,
        "bnm": batch_nuclear_norm,
        "snd": soft_neighborhood_density,
        "soft_iou": soft_iou,
        "atc": average_thresholded_confidence,
        "dev": deep_embedded_validation,
    },
    check=function,
)

# What a training computes unless it is told otherwise.
USUAL_VALIDATORS = ("entropy", "im", "bnm", "snd", "soft_iou", "atc")

# Needs more images than are looked at in the middle of a training.
ONLY_AT_THE_END = frozenset({"dev"})


def validator_metric(name: str) -> str:
    """Return the name of the metric that a validator's score is reported under.

    Args:
        name: of the validator.
    """
    return f"target/validator/{name}"


def scores(names: Iterable[str], evidence: Evidence) -> dict[str, float]:
    """Return metric -> value of some validators; for `dev` also how far the domains are apart, by which it may be refused.

    Args:
        names: of the validators.
        evidence: of the network.
    """
    found = {}
    for name in names:
        found[validator_metric(name)] = float(VALIDATORS[name](evidence))
        told_apart = importance(evidence) if name == "dev" else None
        if told_apart is not None:
            found["target/domain_auc"] = told_apart.domain_auc
            found["target/effective_source_share"] = told_apart.effective_share
    return found


__all__ = [
    "ONLY_AT_THE_END",
    "USUAL_VALIDATORS",
    "VALIDATORS",
    "Evidence",
    "PixelSample",
    "scores",
    "validator_metric",
]
