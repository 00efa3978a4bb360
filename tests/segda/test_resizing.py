"""Images and labels are resized to the same places, whatever the factor and the direction."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from segda.resizing import Span, majority, resize_image, resize_label
from segda.transforms import build_recipe
from segda.transforms.operations import ScaleCrop

SIZES = [(4, 5), (5, 4), (7, 9), (12, 16), (1, 1), (3, 8), (24, 32), (31, 17), (8, 40)]
FLIPS = {"left-right": np.s_[:, ::-1], "up-down": np.s_[::-1], "both": np.s_[::-1, ::-1]}


def blobs(height: int = 12, width: int = 16, *, seed: int = 0, classes: int = 5) -> np.ndarray:
    """Return a label with few, touching classes, so that ties are frequent, and some void."""
    ids = np.random.default_rng(seed).integers(0, classes, (height, width)).astype(np.uint8)
    return np.where(ids == classes - 1, np.uint8(255), ids)


def areas_by_repetition(label: np.ndarray, size: tuple[int, int]) -> dict[int, np.ndarray]:
    """Return the area of each id in each output pixel: repeat pixels until all edges fall together, then count."""
    height, width = size
    fine = label.repeat(height, axis=0).repeat(width, axis=1)
    boxes = fine.reshape(height, label.shape[0], width, label.shape[1])
    return {int(value): (boxes == value).sum(axis=(1, 3)) for value in np.unique(label)}


@pytest.mark.parametrize("size", SIZES)
def test_each_pixel_gets_the_class_that_covers_most_of_it(size):
    for seed in range(5):
        label = blobs(seed=seed)
        areas = areas_by_repetition(label, size)
        # Of equal areas: not void, then the class that is rarest in the label, then the lower id.
        ranked = sorted(areas, key=lambda value: (value == 255, int((label == value).sum()), value))
        expected = np.array(ranked)[np.stack([areas[value] for value in ranked]).argmax(axis=0)]
        np.testing.assert_array_equal(resize_label(label, size), expected)


@pytest.mark.parametrize("flip", FLIPS.values(), ids=FLIPS)
@pytest.mark.parametrize("size", SIZES)
def test_flipping_and_resizing_commute(size, flip):
    label = blobs()
    np.testing.assert_array_equal(resize_label(label[flip], size), resize_label(label, size)[flip])
    image = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    flipped = resize_image(np.ascontiguousarray(image[flip]), size).astype(int)
    assert np.abs(flipped - resize_image(image, size)[flip]).max() <= 1


@pytest.mark.parametrize(
    "factor", [Fraction(1, 3), Fraction(1, 2), Fraction(2, 3), Fraction(3, 4), 1, Fraction(7, 4), 3]
)
def test_edges_stay_where_the_image_has_them(factor):
    """A circle of white on black, painted into image and label, still coincides after resizing."""
    rows, columns = np.mgrid[:120, :160]
    inside = ((rows - 50.3) ** 2 + (columns - 90.6) ** 2 < 37**2).astype(np.uint8)
    size = int(120 * factor), int(160 * factor)
    label = resize_label(inside, size)
    image = resize_image(np.repeat(inside[..., None] * np.uint8(255), 3, axis=2), size)[..., 0] > 127
    for axis, length in enumerate(size):
        centers = [(np.nonzero(mask)[axis] + 0.5).mean() / length for mask in (label, image)]
        assert abs(centers[0] - centers[1]) * length < 0.1  # output pixels; corner sampling is off by 1/3 at 1/3


def test_a_label_of_that_size_is_left_alone():
    label = blobs()
    assert resize_label(label, (12, 16)) is label


def test_large_factors_are_counted_in_parts(monkeypatch):
    label = blobs(60, 80)
    whole = resize_label(label, (7, 9))
    monkeypatch.setattr("segda.resizing._CHUNK", 100)
    np.testing.assert_array_equal(resize_label(label, (7, 9)), whole)


def test_what_covers_nothing_of_the_input_is_void():
    label = np.zeros((4, 4), dtype=np.uint8)
    found = majority(label, Span(4, Fraction(2), offset=-1), Span(3, Fraction(2)))
    assert found.tolist() == [[255] * 3, [0, 0, 255], [0, 0, 255], [255] * 3]


@pytest.mark.parametrize("scale", [0.5, 1.25, 1.5, 1.75, 2.0])
def test_scaling_in_a_recipe_commutes_with_flips(scale):
    """The whole image at a scale, padded alike on both sides."""
    label = blobs(48, 64)
    height, width = (int(side * scale) for side in label.shape)
    place = {"scale": scale, "top": 0, "left": 0, "border": cv2.BORDER_REPLICATE}
    crop = ScaleCrop(scales=(scale,), height=height, width=width)
    for flip in FLIPS.values():
        np.testing.assert_array_equal(
            crop.apply_to_mask(label[flip], **place), crop.apply_to_mask(label, **place)[flip]
        )
    np.testing.assert_array_equal(crop.apply_to_mask(label, **place), resize_label(label, (height, width)))


def test_weights_beside_a_label_are_scaled_like_the_image():
    label = blobs(32, 40)
    weight = np.full_like(label, 200)
    scaled = [
        build_recipe("scale_crop", height=32, width=40)(
            np.repeat(weight[..., None], 3, axis=2), np.stack([label, weight], axis=-1), seed=seed
        )
        for seed in range(20)
    ]
    plain = [
        build_recipe("scale_crop", height=32, width=40)(np.repeat(weight[..., None], 3, axis=2), label, seed=seed)[1]
        for seed in range(20)
    ]
    for (_, both), alone in zip(scaled, plain, strict=True):
        np.testing.assert_array_equal(both[..., 0], alone)
        inside = both[..., 1] == 200
        assert inside.any()
        assert (both[..., 1][~inside] == 0).all()
        assert (alone[~inside] == 255).all()
