"""Weight sharing: a layer's weights take a few values, which are written down once.

k-means in one dimension needs no distances between all pairs. Clusters are intervals of the sorted weights, so an iteration looks
up k borders by bisection and takes means as differences of running sums: n log n for the sort, k log n for each iteration.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segda.errors import ConfigError

MOST_BITS = 8  # an index is a byte at most
_MOST_ITERATIONS = 300


@dataclass(frozen=True)
class Codebook:
    """The weights of a layer as indices of shared values.

    Attributes:
        values: shared values, ascending, float32 [k], k <= 2^bits.
        indices: of all weights, or of those that `is_zero` leaves, in the order of the flattened weight, uint8 [n] or [nnz].
        is_zero: which weights are zero, bool of the weight's shape; None: none is, or zero is one of the values.
        shape: of the weight.
        bits: of an index.
    """

    values: NDArray[np.float32]
    indices: NDArray[np.uint8]
    is_zero: NDArray[np.bool_] | None
    shape: tuple[int, ...]
    bits: int

    def weight(self) -> NDArray[np.float32]:
        """Return the weight, float32 of its shape."""
        result = np.zeros(self.shape, dtype=np.float32)
        if self.is_zero is None:
            result.reshape(-1)[:] = self.values[self.indices]
        else:
            result[~self.is_zero] = self.values[self.indices]
        return result

    def num_bytes(self) -> int:
        """Return what it takes: packed indices, shared values, and a bit for every weight if `is_zero` is there.

        bits * nnz / 8 + 4 k + n / 8, or bits * n / 8 + 4 k, each part rounded up to bytes.
        """
        zeros = 0 if self.is_zero is None else -(-self.is_zero.size // 8)
        return -(-self.bits * self.indices.size // 8) + self.values.nbytes + zeros


def share_weight(weight: NDArray[np.float32], *, bits: int) -> Codebook:
    """Give a layer's weights 2^bits values, by k-means over those that are not zero.

    Zeros stay zeros: they are what pruning has left, and no value of the codebook is spent on them. If there are no more
    different weights than values, nothing changes.

    Args:
        weight: float32, any shape.
        bits: of an index, 1 to 8.

    Raises:
        ConfigError: another number of bits.

    Source: Han, Mao and Dally, Deep Compression, ICLR 2016, arXiv:1510.00149, section 3; the initial values lie at equal
    distances between the smallest and the largest weight ("linear"), as there and in the adaptation report, which keeps the few
    large weights better than values that lie as densely as the weights. Deviations: values are not trained further, and where
    zeros lie is written as one bit per weight, not as distances.

    Example:
        >>> share_weight(np.array([0.25, 0.75, 4.0], dtype=np.float32), bits=1).weight().tolist()
        [0.5, 0.5, 4.0]
    """
    if not 1 <= bits <= MOST_BITS:
        raise ConfigError(f"an index has 1 to {MOST_BITS} bits, got {bits}")
    is_zero = weight == 0
    num_zeros = int(np.count_nonzero(is_zero))
    takes_a_value = 0 < bits * num_zeros < weight.size
    kept = weight[~is_zero].astype(np.float64)
    values, indices = one_dimensional_kmeans(kept, 2**bits - takes_a_value)
    if takes_a_value:
        place = int(np.searchsorted(values, 0.0))
        of_all = np.full(weight.shape, place)
        of_all[~is_zero] = indices + (indices >= place)
        values, indices = np.insert(values, place, 0.0), of_all.ravel()
    return Codebook(
        values=values.astype(np.float32),
        indices=indices.astype(np.uint8),
        is_zero=is_zero if num_zeros and not takes_a_value else None,
        shape=weight.shape,
        bits=bits,
    )


def one_dimensional_kmeans(values: NDArray[np.float64], clusters: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Cluster numbers by Lloyd's iterations from centers at equal distances.

    A center without members stays where it is, and is left out at the end.

    Args:
        values: float64 [n].
        clusters: number of centers, at least 1.

    Returns:
        Centers, ascending, float64 [k] with k <= clusters, and the index of each value's center, int64 [n].
    """
    different = np.unique(values)
    if len(different) <= clusters:
        return different, np.searchsorted(different, values)
    ranked = np.sort(values)
    sums = np.concatenate([[0.0], np.cumsum(ranked)])
    centers = np.linspace(ranked[0], ranked[-1], clusters)
    borders = _borders(ranked, centers)
    for _ in range(_MOST_ITERATIONS):
        counts = np.diff(borders)
        has_members = counts > 0
        centers[has_members] = np.diff(sums[borders])[has_members] / counts[has_members]
        moved = _borders(ranked, centers)
        if np.array_equal(moved, borders):
            break
        borders = moved
    used = np.diff(borders) > 0
    found = centers[used]
    return found, np.searchsorted((found[1:] + found[:-1]) / 2, values, side="right")


def _borders(ranked: NDArray[np.float64], centers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return where the intervals of centers begin among sorted values, and the end of the last, int64 [k + 1]."""
    # A value in the middle of two centers belongs to the upper one.
    inner = np.searchsorted(ranked, (centers[1:] + centers[:-1]) / 2, side="left")
    return np.concatenate([[0], inner, [len(ranked)]])
