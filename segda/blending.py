"""Overlapping windows, blended: which windows cover an image, how much each counts where, and the running mean over them.

A network sees a large image window by window, and near the border of a window it sees less than there is. Cutting windows in the
middle of their overlap takes each pixel from one window and leaves a step along the cut wherever the two disagree; a network that
pools over its whole input disagrees everywhere. Here the logits of all windows over a pixel are averaged, with weights that rise
from the border of a window as a raised cosine. The outer quarter of the overlap counts nothing: there the network's view is cut
off. So a network whose view reaches no further than that to each side gives the classes of the whole image in one pass (if sides
are multiples of its coarsest step; else its up-sampling stretches one pass by a fraction of a step), and those of all others
change gradually.

Logits and not probabilities: those of a network that is sure are 0 or 1, so between two windows that disagree their mean changes
sides where both weights are 1/2, which is the cut again. The mean of logits does so earlier or later, as the image has it: where
two sure windows disagreed, classes changed 1.29 times as often in the middle of overlaps as elsewhere with probabilities, 1.09
times with logits, and 3.12 times when cut (`tests/segda/test_raster.py` has such a network).

Weights of rows and columns are each made to sum to 1, so their products do, too, and no sum of weights has to be carried along.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from segda.errors import ConfigError

# Distances between windows are multiples of it. Feature maps down to 1/64 of the input then lie on the pixels on which they would
# lie in the whole image; else even a network of small view would see other pixels together.
_GRID = 64


@dataclass(frozen=True)
class Span:
    """One window along one axis, in pixels of the image.

    Attributes:
        start: its first pixel.
        stop: one past its last pixel.
    """

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Pixels of the window."""
        return self.stop - self.start


def spans(length: int, *, window: int, overlap: int) -> list[Span]:
    """Cover one axis of an image with windows.

    Windows start at multiples of `window - overlap`, which is rounded down to a multiple of 64 where it is larger; so neighbors
    share at least the overlap. The last one ends with the image and starts at such a multiple of 64, too, for which it may be up
    to 63 pixels longer. No window reaches beyond the image: the network never sees padding while it could see pixels.

    Args:
        length: pixels of the axis, at least 1.
        window: pixels that the network sees at once, at least 1.
        overlap: pixels that neighbors share at least; from 0, smaller than the window.

    Returns:
        Windows in ascending order; a single one if the axis fits into it.

    Raises:
        ConfigError: the overlap is out of range.

    Example:
        >>> spans(300, window=160, overlap=32)
        [Span(start=0, stop=160), Span(start=128, stop=300)]
    """
    if not 0 <= overlap < window:
        raise ConfigError(f"overlap must be at least 0 and smaller than the window of {window} pixels, got {overlap}")
    distance = window - overlap
    grid = _GRID if distance >= _GRID else 1
    distance -= distance % grid
    last = max(length - window, 0) // grid * grid
    return [Span(start, start + window) for start in range(0, last, distance)] + [Span(last, length)]


def weights(windows: Sequence[Span], *, overlap: int) -> list[Tensor]:
    """Return how much each window counts at each of its pixels along an axis.

    With d pixels to the border of the window and a margin m of a quarter of the overlap, the weight is 0 for d < m, then
    sin^2(pi/2 * (d - m + 1/2) / (overlap - 2 m)), and 1 from d = overlap - m on; at the borders of the image, where no other
    window is, it is 1 throughout. These are divided by their sum over all windows. Where two windows share just the overlap, it
    is 1 already.

    Args:
        windows: of `spans`.
        overlap: as for these.

    Returns:
        For each window float32 [length], which sum to 1 at each pixel of the image.
    """
    total = torch.zeros(windows[-1].stop, dtype=torch.float64)
    raw = []
    for window in windows:
        to_start = torch.arange(window.length, dtype=torch.float64)
        weight = torch.ones_like(to_start)
        if window.start > 0:
            weight *= _ramp(to_start, overlap=overlap)
        if window.stop < windows[-1].stop:
            weight *= _ramp(to_start.flip(0), overlap=overlap)
        total[window.start : window.stop] += weight
        raw.append(weight)
    return [(weight / total[window.start : window.stop]).float() for window, weight in zip(windows, raw, strict=True)]


def _ramp(distance: Tensor, *, overlap: int) -> Tensor:
    """Return the raised cosine for distances in whole pixels to the border of a window."""
    margin = overlap // 4
    rise = max(overlap - 2 * margin, 1)
    share = ((distance - margin + 0.5) / rise).clamp(0, 1)
    # No window but this one may reach a pixel at the middle of the ramp: its weight must not be 0, and is not.
    return (share * (math.pi / 2)).sin().square()


class Blender:
    """The running weighted mean of logits over a grid of windows, which come row by row, from left to right.

    It holds the right part of the latest window, which the next one in the row will add to, and the rows that the next row of
    windows will add to: `[C, shared rows, W]` in float32, however high the image and however large the windows. The order of
    additions is fixed, and so are all bits of the result.
    """

    def __init__(
        self,
        rows: Sequence[Span],
        columns: Sequence[Span],
        *,
        overlap: int,
        device: torch.device,
    ) -> None:
        """Prepare an empty sum.

        Args:
            rows: windows along the height, of `spans`.
            columns: windows along the width.
            overlap: as for these.
            device: where logits come and sums are kept.
        """
        self._rows = rows
        self._columns = columns
        self._row_weights = [weight.to(device)[:, None] for weight in weights(rows, overlap=overlap)]
        self._column_weights = [weight.to(device) for weight in weights(columns, overlap=overlap)]
        self._shared = max((above.stop - below.start for above, below in pairwise(rows)), default=0)
        self._carry: Tensor | None = None  # [C, shared rows, W]; there is none until a window has told C
        self._open: Tensor | None = None  # [C, h, w] from the left border of the window that comes next

    def final_rows(self, row: int) -> Span:
        """Return the rows of the image that are final with a row of windows: from its upper border to that of the next one."""
        return _until_next(self._rows, row)

    def final_columns(self, column: int) -> Span:
        """Return the columns of the image that are final with a window."""
        return _until_next(self._columns, column)

    def first_row_needed(self, row: int) -> int:
        """Return the first row of windows that reaches into a row's: a sum that was lost has to begin there."""
        return next(number for number, span in enumerate(self._rows) if span.stop > self._rows[row].start)

    def add(self, row: int, column: int, logits: Tensor | None) -> Tensor | None:
        """Add a window.

        Args:
            row: number of its row. The first one that comes may be any: from row r on, means are right if it was at most
                `first_row_needed(r)`.
            column: number of its column; after the last one comes the first of the next row.
            logits: float32 [C, h, w] of its pixels, which are changed; None for zeros, where nobody asks for the mean.

        Returns:
            The mean at the pixels that are final now, `final_rows(row)` x `final_columns(column)`, float32 [C, rows, columns].
            None as long as there were none but zeros.
        """
        rows, columns = self.final_rows(row), self.final_columns(column)
        if self._carry is None:
            if logits is None:
                return None
            self._carry = logits.new_zeros(len(logits), self._shared, self._columns[-1].stop)
        if logits is None:
            logits = self._carry.new_zeros(len(self._carry), self._rows[row].length, self._columns[column].length)
        else:
            logits.mul_(self._row_weights[row]).mul_(self._column_weights[column])
        if self._open is not None:
            logits[:, :, : self._open.shape[2]] += self._open
        self._open = logits[:, :, columns.length :] if column + 1 < len(self._columns) else None
        block = logits[:, :, : columns.length]
        carry = self._carry[:, :, columns.start : columns.stop]
        carried = self._rows[row - 1].stop - rows.start if row > 0 else 0
        block[:, :carried] += carry[:, :carried]
        rest = self._rows[row].length - rows.length
        carry[:, :rest] = block[:, rows.length :]
        return block[:, : rows.length]


def _until_next(windows: Sequence[Span], number: int) -> Span:
    following = windows[number + 1].start if number + 1 < len(windows) else windows[number].stop
    return Span(windows[number].start, following)
