"""The risk on the source's validation images, weighted by how much each one looks like the target: image by image."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from segda.types import IGNORE_INDEX
from segda.validators.evidence import Evidence

MIN_EFFECTIVE_SHARE = 0.1
_MIN_IMAGES = 20  # of each domain: each half must tell the domains apart
_COMPONENTS = 16
_STEPS = 25  # of Newton's method; five are enough
_MOST_ODDS = 50.0  # natural logarithm; beyond lies what overflows


@dataclass(frozen=True)
class Importance:
    """What tells the domains apart, and what that leaves of the source.

    Attributes:
        domain_auc: probability that a target image looks more like the target than a source image does; 0.5: they are alike.
        effective_share: the share of the source images that the weights leave as an effective sample, (sum w)^2 / (n sum w^2),
            times mean w where that is below 1. It is 1 for true weights; domains that never overlap give all source images the
            same tiny weight, which alone would look like no shift at all.
        weights: of each source image, float64 [M].
    """

    domain_auc: float
    effective_share: float
    weights: Tensor


def deep_embedded_validation(evidence: Evidence) -> float:
    """Return minus the importance-weighted risk on the source, from -1 (all is wrong) to 0; NaN where that cannot be told.

    You et al., "Towards Accurate Model Selection in Deep Unsupervised Domain Adaptation" (ICML 2019): with the loss l of a source
    image and its weight w(x) = (N_s / N_t) P(target | x) / P(source | x), R = mean(w l) + eta mean(w) - eta, where the control
    variate has eta = - Cov(w l, w) / Var(w). The loss is the share of wrong pixels among the sampled ones of the image.

    Per image, not per pixel: features of single pixels tell the domains apart nearly always, and then the weights rest on a handful
    of pixels. Whole images do not save it where the domains are far apart: below an effective sample of a tenth of the source
    images, or with fewer than 20 images of a domain, the score is refused.

    Args:
        evidence: of the network.
    """
    known = (evidence.source_labels != IGNORE_INDEX).sum(dim=-1)
    if not evidence.is_finite or not evidence.target_features.isfinite().all() or not known.all():
        return math.nan
    found = importance(evidence)
    if found is None or not found.effective_share >= MIN_EFFECTIVE_SHARE:
        return math.nan
    wrong = (evidence.source.argmax(dim=-1) != evidence.source_labels) & (evidence.source_labels != IGNORE_INDEX)
    return -weighted_risk(wrong.sum(dim=-1).double() / known, found.weights)


def weighted_risk(losses: Tensor, weights: Tensor) -> float:
    """Return R, see `deep_embedded_validation`; weights that are all equal leave the mean of w l.

    Args:
        losses: float64 [M].
        weights: float64 [M].
    """
    product = losses * weights
    spread = weights.var(correction=0)
    if spread == 0:
        return float(product.mean())
    eta = -((product - product.mean()) * (weights - weights.mean())).mean() / spread
    return float(product.mean() + eta * weights.mean() - eta)


def importance(evidence: Evidence) -> Importance | None:
    """Return how the domains are told apart by a linear classifier; None with too few images.

    Each half of the images, every other one, is judged by the classifier of the other half, so that what it learned by heart does
    not count. It sees the 16 leading principal components of the standardized features: with as many features as images any two
    domains can be told apart.

    Args:
        evidence: of a network whose features are finite.
    """
    source, target = evidence.source_features.double(), evidence.target_features.double()
    if min(len(source), len(target)) < _MIN_IMAGES:
        return None
    both = torch.cat([source, target])
    is_target = torch.cat([torch.zeros(len(source)), torch.ones(len(target))]).double()
    both = both - both.mean(dim=0)
    both = both / both.std(dim=0).clamp(min=1e-12)
    _, _, directions = torch.linalg.svd(both, full_matrices=False)
    seen = both @ directions[:_COMPONENTS].T
    seen = torch.cat([seen / seen.std(dim=0).clamp(min=1e-12), torch.ones(len(seen), 1).double()], dim=1)
    # Both halves have images of all parts of both domains.
    half = torch.cat([torch.arange(len(source)), torch.arange(len(target))]) % 2
    odds = torch.empty(len(seen), dtype=torch.float64)  # logarithm of P(target) / P(source)
    shares = torch.empty(len(seen), dtype=torch.float64)
    for part in (0, 1):
        inside = half != part
        odds[~inside] = seen[~inside] @ _logistic(seen[inside], is_target[inside])
        shares[~inside] = (inside & (is_target == 0)).sum().double() / (inside & (is_target == 1)).sum()
    weights = (shares * odds.clamp(-_MOST_ODDS, _MOST_ODDS).exp())[: len(source)]
    gaps = odds[len(source) :, None] - odds[None, : len(source)]
    return Importance(
        domain_auc=float(((gaps > 0).double() + 0.5 * (gaps == 0)).mean()),
        effective_share=float(weights.mean() ** 2 / (weights**2).mean() * weights.mean().clamp(max=1)),
        weights=weights,
    )


def _logistic(seen: Tensor, is_target: Tensor) -> Tensor:
    """Return the weights of a logistic regression with a penalty of half their squared length, float64 [F]."""
    found = torch.zeros(seen.shape[1], dtype=torch.float64)
    for _ in range(_STEPS):
        probability = torch.sigmoid(seen @ found)
        gradient = seen.T @ (probability - is_target) + found
        curvature = (seen * (probability * (1 - probability))[:, None]).T @ seen + torch.eye(len(found)).double()
        found = found - torch.linalg.solve(curvature, gradient)
    return found
