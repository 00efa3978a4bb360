"""Magnitude pruning: which weights are the smallest."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from segda.errors import ConfigError

Scope = Literal["global", "module"]


@torch.no_grad()
def smallest_weights(
    weights: Mapping[str, Tensor],
    level: float,
    *,
    scope: Scope,
    largest_layer_share: float = 1.0,
    pruned: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Mark the smallest weights by their absolute values (L1).

    global: the round(level * n) smallest of all n weights, ranked together. A layer lends at most
    floor(largest_layer_share * its size) of them; what is beyond that is taken from the others.
    module: the round(level * n) smallest of the n weights of each layer, with the same bound.

    The numbers are exact, also when this is called again and again: `level` is what there is in the end, not a share of what
    earlier calls have left, which is how `torch.nn.utils.prune` takes it (n calls with a leave 1 - (1 - a)^n). Weights that were
    pruned before are the smallest of all, whatever they hold. Of equal ones the first in the order of names and indices are
    taken, on every device and in every memory format.

    Args:
        weights: name -> weight, float, any shape.
        level: share to mark, in [0, 1].
        scope: whether layers are ranked together or each by itself.
        largest_layer_share: bound for each layer, in (0, 1]; keeps one ranking from taking a layer whole.
        pruned: name -> bool, true where a weight is pruned already; None: nowhere.

    Returns:
        Name -> bool of the weight's shape, device and memory format; true where a weight is to be zero. If a bound is smaller
        than the level, so many are marked as it lets.

    Raises:
        ConfigError: a level or a bound that is no share.

    Source: Han et al., NeurIPS 2015, arXiv:1506.02626; one ranking and each layer by itself as in the adaptation report's
    post-training pruning. The bound is ours.

    Example:
        >>> weights = {"a": torch.tensor([0.1, -3.0]), "b": torch.tensor([2.0, -0.2])}
        >>> {name: mask.tolist() for name, mask in smallest_weights(weights, 0.5, scope="global").items()}
        {'a': [True, False], 'b': [False, True]}
    """
    if not 0 <= level <= 1:
        raise ConfigError(f"a level of pruning is a share of the weights in [0, 1], got {level:g}")
    if not 0 < largest_layer_share <= 1:
        raise ConfigError(f"the largest share of a layer lies in (0, 1], got {largest_layer_share:g}")
    if not weights:
        return {}
    sizes = {name: weight.numel() for name, weight in weights.items()}
    allowed = {name: int(largest_layer_share * size) for name, size in sizes.items()}
    before = pruned or {}
    ranks = {name: _magnitudes(weight, before.get(name)) for name, weight in weights.items()}
    if scope == "module":
        marked = {name: _smallest(ranks[name], min(round(level * size), allowed[name])) for name, size in sizes.items()}
    else:
        for name, rank in ranks.items():
            if allowed[name] < sizes[name]:
                rank[~_smallest(rank, allowed[name])] = torch.inf
        count = min(round(level * sum(sizes.values())), sum(allowed.values()))
        together = _smallest(torch.cat(list(ranks.values())), count)
        marked = dict(zip(weights, torch.split(together, list(sizes.values())), strict=True))
    return {
        name: torch.zeros_like(weight, dtype=torch.bool).copy_(marked[name].view(weight.shape))
        for name, weight in weights.items()
    }


def _magnitudes(weight: Tensor, pruned: Tensor | None) -> Tensor:
    """Return what weights are ranked by, float [n]; a copy."""
    magnitude = weight.detach().abs().flatten()
    return magnitude if pruned is None else magnitude.masked_fill_(pruned.flatten(), -1.0)


def _smallest(magnitude: Tensor, count: int) -> Tensor:
    """Return where the `count` smallest values are, bool [n]; of equal ones the first."""
    marked = torch.zeros_like(magnitude, dtype=torch.bool)
    # A stable sort says the same on every device; selection by a threshold would have to break ties by itself.
    marked[magnitude.argsort(stable=True)[:count]] = True
    return marked
