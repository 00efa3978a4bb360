"""How confident a network may be: a temperature for its softmax, fitted on labelled pixels of the source."""

import math

import torch
from torch import Tensor

# A network that is right less often than chance has no temperature that makes it unsure enough: then the last one is taken.
COLDEST, HOTTEST = 1 / 50, 50.0
_HALVINGS = 26  # of ln T, whose range is 7.8: to 1e-7


def fitted_temperature(probs: Tensor, labels: Tensor) -> float:
    """Return the temperature at which the mean largest probability equals the share of pixels that are right.

    Not the one of the smallest negative log-likelihood (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017): what is
    computed with it are sums of probabilities that stand for numbers of right pixels, and with this one they are those numbers on
    the source. A few pixels that are surely wrong, which borders are full of, would move the likelihood's far away.

    Args:
        probs: class probabilities, float64 [K, C].
        labels: train ids, int64 [K].

    Returns:
        Within 1 / 50 .. 50; NaN without a pixel, or if a probability is not a number.
    """
    if len(labels) == 0 or not probs.isfinite().all():
        return math.nan
    accuracy = float((probs.argmax(dim=-1) == labels).double().mean())
    scores = _scores(probs)
    behind = scores - scores.amax(dim=-1, keepdim=True)
    # The hotter the less confident, so one place has to be found.
    low, high = math.log(COLDEST), math.log(HOTTEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        confidence = 1 / (behind / math.exp(middle)).exp_().sum(dim=-1)
        if float(confidence.mean()) > accuracy:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def tempered(probs: Tensor, temperature: float) -> Tensor:
    """Return what the softmax would have given with its scores divided by a temperature.

    Args:
        probs: class probabilities, float64 [..., C]; a probability of 0 counts as the smallest normal number.
        temperature: 1 changes nothing, more makes it less sure.
    """
    return torch.softmax(_scores(probs) / temperature, dim=-1)


def _scores(probs: Tensor) -> Tensor:
    """Return class scores whose softmax they are."""
    return probs.clamp(min=torch.finfo(torch.float32).tiny).log()
