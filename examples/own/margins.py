"""A validator of one's own: how far ahead the first class of a pixel is of the second one."""

from segda.validators import Evidence


def margins(evidence: Evidence) -> float:
    """Return the mean difference of the two largest probabilities of a target pixel, in [0, 1].

    Args:
        evidence: what the network says of both domains; no label of the target is in it.
    """
    first, second = evidence.target.double().topk(2, dim=-1).values.unbind(dim=-1)
    return float((first - second).mean())
