"""Windows over an image and the weighted mean of what they say, against sums in NumPy."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segda.blending import Blender, spans, weights
from segda.errors import ConfigError

CPU = torch.device("cpu")
axes = st.tuples(st.integers(1, 700), st.integers(1, 200), st.floats(0, 0.95)).map(
    lambda drawn: (drawn[0], drawn[1], int(drawn[1] * drawn[2]))
)


@settings(deadline=None)
@given(axes)
def test_windows_cover_the_axis_and_share_at_least_the_overlap(axis):
    length, window, overlap = axis
    found = spans(length, window=window, overlap=overlap)
    assert (found[0].start, found[-1].stop) == (0, length)
    grid = 64 if window - overlap >= 64 else 1
    for span in found:
        assert min(length, window) <= span.length < window + grid
        assert span.start % grid == 0
    for before, after in pairwise(found):
        assert before.start < after.start
        assert before.stop < after.stop
        assert before.stop - after.start >= overlap


@pytest.mark.parametrize("overlap", [64, 65, -1])
def test_an_overlap_that_does_not_fit_is_refused(overlap):
    with pytest.raises(ConfigError, match="smaller than the window of 64"):
        spans(100, window=64, overlap=overlap)


@settings(deadline=None)
@given(axes)
def test_weights_sum_to_one_and_are_zero_where_the_view_is_cut_off(axis):
    length, window, overlap = axis
    found = spans(length, window=window, overlap=overlap)
    total = np.zeros(length)
    for span, weight in zip(found, weights(found, overlap=overlap), strict=True):
        values = weight.double().numpy()
        assert len(values) == span.length
        assert (values >= 0).all()
        total[span.start : span.stop] += values
        margin = overlap // 4
        if span.start > 0:
            assert (values[:margin] == 0).all()
        if span.stop < length:
            assert (values[len(values) - margin :] == 0).all()
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_the_ramp_is_a_raised_cosine_over_the_middle_half_of_the_overlap():
    first, second = weights(spans(192, window=128, overlap=64), overlap=64)
    ramp = np.sin(np.pi / 2 * (np.arange(32) + 0.5) / 32) ** 2
    np.testing.assert_allclose(second[:64], np.concatenate([np.zeros(16), ramp, np.ones(16)]), atol=1e-6)
    np.testing.assert_allclose(first[64:], np.concatenate([np.ones(16), 1 - ramp, np.zeros(16)]), atol=1e-6)
    assert (first[:64] == 1).all()  # no window beyond the border of the image
    assert (second[64:] == 1).all()


def _blended(rows, columns, overlap, seen, *, first=0):
    """Return the means from row `first` of windows on, [C, H, W], NaN above."""
    blender = Blender(rows, columns, overlap=overlap, device=CPU)
    result = np.full((3, rows[-1].stop, columns[-1].stop), np.nan, np.float32)
    for row in range(first, len(rows)):
        for column in range(len(columns)):
            logits = seen[row][column]
            mean = blender.add(row, column, None if logits is None else torch.from_numpy(logits.copy()))
            high, wide = blender.final_rows(row), blender.final_columns(column)
            result[:, high.start : high.stop, wide.start : wide.stop] = 0 if mean is None else mean
    return result


def _grid(size, window, overlap, *, empty=0.0):
    rows, columns = (spans(length, window=window, overlap=overlap) for length in size)
    generator = np.random.default_rng(0)
    seen = [
        [
            None
            if generator.random() < empty
            else generator.normal(size=(3, row.length, column.length)).astype(np.float32)
            for column in columns
        ]
        for row in rows
    ]
    return rows, columns, seen


SHAPES = [
    ((200, 300), 128, 32),
    ((150, 90), 40, 30),  # every pixel lies in several windows
    ((130, 131), 48, 0),
    ((30, 500), 128, 64),
    ((20, 20), 64, 16),
    ((333, 100), 100, 95),
]


@pytest.mark.parametrize(("size", "window", "overlap"), SHAPES)
@pytest.mark.parametrize("empty", [0.0, 0.3])
def test_the_running_sum_is_the_weighted_mean_over_all_windows(size, window, overlap, empty):
    rows, columns, seen = _grid(size, window, overlap, empty=empty)
    expected = np.zeros((3, *size))
    for row, row_weight, line in zip(rows, weights(rows, overlap=overlap), seen, strict=True):
        for column, weight, logits in zip(columns, weights(columns, overlap=overlap), line, strict=True):
            if logits is not None:
                outer = row_weight.double().numpy()[:, None] * weight.double().numpy()
                expected[:, row.start : row.stop, column.start : column.stop] += logits.astype(np.float64) * outer
    np.testing.assert_allclose(_blended(rows, columns, overlap, seen), expected, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(SHAPES), st.data())
def test_a_sum_that_was_lost_gives_the_same_bits_again(shape, data):
    size, window, overlap = shape
    rows, columns, seen = _grid(size, window, overlap, empty=0.2)
    row = data.draw(st.integers(0, len(rows) - 1))
    first = Blender(rows, columns, overlap=overlap, device=CPU).first_row_needed(row)
    assert first == 0 or rows[first - 1].stop <= rows[row].start
    again = _blended(rows, columns, overlap, seen, first=first)
    whole = _blended(rows, columns, overlap, seen)
    assert np.array_equal(again[:, rows[row].start :], whole[:, rows[row].start :])
