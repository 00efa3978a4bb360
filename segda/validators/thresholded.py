"""The share of pixels that are as sure as right ones are on the source."""

import math

from segda.validators.entropy import entropy
from segda.validators.evidence import Evidence


def average_thresholded_confidence(evidence: Evidence) -> float:
    """Return the accuracy on the target that a threshold on confidence foretells, in [0, 1].

    Garg et al., "Leveraging Unlabeled Data to Predict Out-of-Distribution Performance" (ICLR 2022), with their better score, minus
    the entropy of a pixel's probabilities: as many labelled source pixels lie below the threshold as are wrong there; the estimate
    is the share of target pixels that do not. The threshold is that of the same checkpoint. Collapse on the target alone gets the
    best estimate, and so does confidence that is right on the source only.

    Args:
        evidence: of the network; NaN in, or no labelled source pixel: NaN out.
    """
    if not evidence.is_finite:
        return math.nan
    probs, labels = evidence.labeled
    wrong = int((probs.argmax(dim=-1) != labels).sum())
    if wrong == len(labels):
        return 0.0  # none is right, so no pixel is sure enough
    threshold = (-entropy(probs)).sort().values[wrong]
    return float((-entropy(evidence.pixels) >= threshold).double().mean())
