"""Shared weights: k-means in one dimension against the textbook's, and files that give back what was written."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segda.compression.codebooks import one_dimensional_kmeans, share_weight
from segda.compression.shared_file import packed, read_shared, unpacked, write_shared
from segda.errors import ConfigError, WeightsError


def lloyd(values, clusters):
    """k-means by all distances, from the same centers; a center without members stays."""
    centers = np.linspace(values.min(), values.max(), clusters)
    for _ in range(300):
        distances = np.abs(values[:, None] - centers)
        nearest = clusters - 1 - distances[:, ::-1].argmin(1)  # of two as near ones the upper
        means = [values[nearest == k].mean() if (nearest == k).any() else centers[k] for k in range(clusters)]
        if np.allclose(means, centers, rtol=0, atol=1e-15):
            break
        centers = np.array(means)
    return centers[nearest]


@pytest.mark.parametrize("clusters", [2, 8, 32])
@pytest.mark.parametrize("seed", range(3))
def test_sorted_values_give_what_all_distances_give(seed, clusters):
    values = np.random.default_rng(seed).normal(size=700) ** 3
    centers, index = one_dimensional_kmeans(values, clusters)
    assert np.all(np.diff(centers) > 0)
    np.testing.assert_allclose(centers[index], lloyd(values, clusters), rtol=1e-9, atol=1e-12)


def test_centers_are_the_means_of_their_members_and_each_value_is_at_the_nearest():
    values = np.random.default_rng(0).normal(size=5000)
    centers, index = one_dimensional_kmeans(values, 32)
    for number, center in enumerate(centers):
        assert values[index == number].mean() == pytest.approx(center)
    assert np.array_equal(np.abs(values[:, None] - centers).argmin(1), index)


def test_large_weights_are_kept_by_values_at_equal_distances():
    weight = np.random.default_rng(0).normal(0, 0.01, 5000).astype(np.float32)
    weight[0] = 1.0
    assert share_weight(weight, bits=5).weight()[0] == 1.0


def test_more_bits_are_closer():
    weight = np.random.default_rng(0).normal(size=(64, 32, 3, 3)).astype(np.float32)
    errors = [float(np.square(share_weight(weight, bits=bits).weight() - weight).mean()) for bits in range(1, 9)]
    assert errors == sorted(errors, reverse=True)
    assert errors[4] < 0.01


def test_zeros_stay_zeros_and_take_no_value():
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(16, 8, 3, 3)).astype(np.float32)
    weight[generator.random(weight.shape) < 0.6] = 0
    book = share_weight(weight, bits=3)
    assert np.array_equal(book.weight() == 0, weight == 0)
    assert len(book.values) <= 8
    assert not (book.values == 0).any()
    nonzero = int(np.count_nonzero(weight))
    assert book.num_bytes() == -(-3 * nonzero // 8) + 4 * len(book.values) + weight.size // 8
    assert len(np.unique(book.weight())) == len(book.values) + 1


@pytest.mark.parametrize("bits", range(1, 9))
def test_a_few_zeros_are_one_of_the_values_because_places_would_cost_more(bits):
    weight = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    weight[[5, 700, 1999]] = 0
    book = share_weight(weight, bits=bits)
    assert book.is_zero is None
    assert len(book.values) <= 2**bits
    assert np.array_equal(book.weight() == 0, weight == 0)
    assert np.all(np.diff(book.values) > 0)
    assert book.num_bytes() == -(-bits * 2000 // 8) + 4 * len(book.values)


def test_few_different_weights_do_not_change():
    weight = np.array([[0.5, -0.25], [0.5, 0.0]], dtype=np.float32)
    assert np.array_equal(share_weight(weight, bits=2).weight(), weight)
    zeros = np.zeros((3, 2), dtype=np.float32)
    assert np.array_equal(share_weight(zeros, bits=2).weight(), zeros)


@pytest.mark.parametrize("bits", [0, 9])
def test_other_numbers_of_bits_are_refused(bits):
    with pytest.raises(ConfigError, match="an index has 1 to 8 bits"):
        share_weight(np.ones(3, dtype=np.float32), bits=bits)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.lists(st.integers(0, 255), max_size=50))
def test_packed_indices_come_back(bits, numbers):
    indices = np.array([number % 2**bits for number in numbers], dtype=np.uint8)
    stored = packed(indices, bits=bits)
    assert stored.size == -(-bits * len(numbers) // 8)
    assert np.array_equal(unpacked(stored, bits=bits, count=len(numbers)), indices)


@pytest.fixture
def network():
    generator = np.random.default_rng(0)
    dense = generator.normal(size=(8, 4, 3, 3)).astype(np.float32)
    sparse = dense.copy()
    sparse[generator.random(sparse.shape) < 0.5] = 0
    return {
        "first.weight": share_weight(dense, bits=5),
        "second.weight": share_weight(sparse, bits=3),
        "second.bias": generator.normal(size=8).astype(np.float32),
        "norm.num_batches_tracked": np.array(7),
    }


def test_a_file_gives_back_every_bit(network, tmp_path):
    write_shared(tmp_path / "shared.npz", network, network={"classes": ["a", "b"]})
    tensors, about = read_shared(tmp_path / "shared.npz")
    assert about == {"classes": ["a", "b"]}
    assert list(tensors) == list(network)
    for name, item in network.items():
        expected = item if isinstance(item, np.ndarray) else item.weight()
        assert tensors[name].dtype == expected.dtype
        assert np.array_equal(tensors[name], expected)


def test_damaged_and_other_files_are_told(network, tmp_path):
    path = tmp_path / "shared.npz"
    with pytest.raises(WeightsError, match="cannot be read"):
        read_shared(path)
    write_shared(path, network, network={})
    content = path.read_bytes()
    for damaged in (b"", b"no archive", content[: len(content) // 2], content[:200] + b"\x00" * 64 + content[264:]):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match="no file of shared weights, or damaged"):
            read_shared(path)
    other = io.BytesIO()
    np.savez(other, weights=np.zeros(3))
    path.write_bytes(other.getvalue())
    with pytest.raises(WeightsError, match="no file of shared weights, or damaged"):
        read_shared(path)
