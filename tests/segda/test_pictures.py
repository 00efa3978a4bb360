import numpy as np
import pytest

from segda.pictures import color_table, colorize, example_grid, legend, overlay

PALETTE = ((200, 10, 10), (10, 200, 10), (10, 10, 200))
CLASSES = ("Road", "Tree", "Sky")
WHITE = (255, 255, 255)


def _random_label(*shape):
    return np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), size=shape)


def test_every_pixel_gets_the_color_of_its_class_and_void_is_black():
    label = _random_label(5, 7)
    painted = colorize(label, PALETTE)
    assert painted.shape == (5, 7, 3)
    assert painted.dtype == np.uint8
    for row in range(5):
        for column in range(7):
            expected = PALETTE[label[row, column]] if label[row, column] < 3 else (0, 0, 0)
            assert tuple(painted[row, column]) == expected


def test_ids_outside_the_palette_are_black():
    assert colorize(np.array([[3, 254]], np.uint8), PALETTE).max() == 0


@pytest.mark.parametrize("palette", [[(0, 0, 256)], [(-1, 0, 0)], [(1, 2)], [(0, 0, 0)] * 256])
def test_an_impossible_palette_is_refused(palette):
    with pytest.raises(ValueError, match="palette"):
        color_table(palette)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_an_overlay_mixes_image_and_class_color_by_alpha_and_leaves_void_alone(alpha):
    image = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    label = _random_label(6, 8)
    mixed = overlay(image, label, PALETTE, alpha)
    expected = (1 - alpha) * image.astype(np.float64) + alpha * colorize(label, PALETTE)
    scored = label < 3
    assert np.abs(mixed[scored] - expected[scored]).max() <= 0.51
    assert np.array_equal(mixed[~scored], image[~scored])


def test_an_overlay_refuses_a_prediction_of_another_size():
    with pytest.raises(ValueError, match="differ in size"):
        overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8), PALETTE)


def test_an_overlay_refuses_a_share_outside_zero_to_one():
    with pytest.raises(ValueError, match="alpha"):
        overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), PALETTE, 1.5)


def _tiles(picture, *, height, width, count, columns, top):
    """Cut a grid back into its pictures by position."""
    gutter = 4
    return [
        [
            picture[top + row * (height + gutter) :, gutter + column * (width + gutter) :][:height, :width]
            for column in range(columns)
        ]
        for row in range(count)
    ]


def test_a_grid_shows_image_label_and_prediction_of_each_example_in_its_row():
    generator = np.random.default_rng(2)
    images = generator.integers(1, 255, (2, 40, 90, 3), dtype=np.uint8)
    labels, predictions = _random_label(2, 40, 90), _random_label(2, 40, 90)[::-1]
    picture = example_grid(images, labels, predictions, palette=PALETTE, classes=CLASSES)
    top = next(row for row in range(len(picture)) if np.array_equal(picture[row, 4:94], images[0, 0]))
    tiles = _tiles(picture, height=40, width=90, count=2, columns=3, top=top)
    for row in range(2):
        assert np.array_equal(tiles[row][0], images[row])
        assert np.array_equal(tiles[row][1], colorize(labels[row], PALETTE))
        assert np.array_equal(tiles[row][2], colorize(predictions[row], PALETTE))
    assert (picture[top : top + 84, 94:98] == 255).all()  # gutter between image and label


def test_a_grid_without_labels_has_two_columns():
    images = np.full((1, 40, 60, 3), 7, np.uint8)
    predictions = np.ones((1, 40, 60), np.uint8)
    with_labels = example_grid(images, predictions, predictions, palette=PALETTE, classes=CLASSES)
    without = example_grid(images, None, predictions, palette=PALETTE, classes=CLASSES)
    assert with_labels.shape[1] - without.shape[1] == 64


@pytest.mark.parametrize("width", [60, 120, 400])
def test_a_legend_shows_every_class_color_at_any_width(width):
    strip = legend(PALETTE, CLASSES, width=width)
    colors = {tuple(color) for color in strip.reshape(-1, 3).tolist()}
    assert strip.shape[1] == width
    assert colors >= {*PALETTE, (0, 0, 0), WHITE}


def test_a_grid_refuses_sizes_that_differ():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    good, bad = np.zeros((2, 8, 8), np.uint8), np.zeros((1, 8, 8), np.uint8)
    with pytest.raises(ValueError, match="predictions"):
        example_grid(images, good, bad, palette=PALETTE, classes=CLASSES)
    with pytest.raises(ValueError, match="labels"):
        example_grid(images, bad, good, palette=PALETTE, classes=CLASSES)


def test_a_grid_refuses_to_draw_nothing():
    empty = np.zeros((0, 8, 8), np.uint8)
    with pytest.raises(ValueError, match="at least one"):
        example_grid(np.zeros((0, 8, 8, 3), np.uint8), None, empty, palette=PALETTE, classes=CLASSES)


def test_a_grid_refuses_names_without_colors():
    images = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="3 colors for 2 classes"):
        example_grid(images, None, images[..., 0], palette=PALETTE, classes=CLASSES[:2])
