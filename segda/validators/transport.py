"""An alarm for collapse: what it costs to give the predictions the class shares of the source."""

import math

import torch
from torch import Tensor

from segda.validators.evidence import Evidence

MOST_PIXELS = (
    1024  # evenly spaced ones of the sample: an alarm needs no more, and they are assigned in a tenth of a second
)


def transport_alarm(evidence: Evidence) -> float:
    """Return the accuracy on the target if its classes were as frequent as in the source, in [0, 1].

    Lu et al., "Characterizing Out-of-Distribution Error via Optimal Transport" (NeurIPS 2023), with probabilities calibrated on the
    source. Low where predictions lack what the source has: a network that puts class k everywhere gets about the source's share
    of k. It is no score to rank by: a target whose shares differ is charged to the network, so the better one may get less.

    Args:
        evidence: of the network; NaN in, or no labelled source pixel: NaN out.
    """
    if not evidence.is_finite:
        return math.nan
    probs = evidence.calibrated
    picked = torch.linspace(0, len(probs) - 1, min(len(probs), MOST_PIXELS)).round().long()
    return transported_accuracy(probs[picked], evidence.source_shares)


def transported_accuracy(probs: Tensor, shares: Tensor) -> float:
    """Return one minus the cost of the optimal transport from one-hot labels of given shares to probabilities.

    Half the L1 distance from a one-hot label to p is 1 - p_c, so this is max sum_ic g_ic p_ic over couplings g >= 0 with
    sum_c g_ic = 1/n and sum_i g_ic = pi_c, and by its dual

        min over u of  sum_c pi_c u_c + mean_i max_c (p_ic - u_c).

    One label is assigned to each pixel, exactly, so the shares are rounded to whole labels; that changes the result by less than
    C / 2n. (The dual has one unknown per class only, but where probabilities are nearly one-hot it has no curvature to go by.)

    Args:
        probs: class probabilities, float64 [n, C].
        shares: pi, float64 [C], not negative, sum 1.
    """
    from scipy.optimize import (
        linear_sum_assignment,
    )  # takes long to import, and is needed at the end of a training only

    labels = torch.repeat_interleave(torch.arange(len(shares)), whole_labels(shares, len(probs)))
    right = probs[:, labels].numpy()
    pixels, places = linear_sum_assignment(right, maximize=True)
    return float(right[pixels, places].mean())


def whole_labels(shares: Tensor, count: int) -> Tensor:
    """Return how many of some labels each class gets, int64 [C]: rounded down, and the rest to the largest remainders.

    Args:
        shares: of the classes, float64 [C], sum 1.
        count: of labels; theirs sum to it.
    """
    exact = shares * count
    counts = (exact + 1e-9).floor().long()
    rest = count - int(counts.sum())
    counts[(exact - counts).argsort(descending=True, stable=True)[:rest]] += 1
    return counts
