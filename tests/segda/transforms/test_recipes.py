import hashlib
import itertools
import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from segda.errors import ConfigError
from segda.transforms import RECIPES, build_recipe
from segda.types import IGNORE_INDEX, IMAGE_MEAN

every_recipe = pytest.mark.parametrize("name", RECIPES)
GEOMETRIC = ("none", "aug1", "nadir")
PHOTOMETRIC = ("aug4", "color")


def _scene(height=24, width=32, *, seed=0):
    """Return a read-only random image and label, as a memory map would give them."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    label = rng.choice(np.array([0, 1, 2, 3, IGNORE_INDEX], dtype=np.uint8), (height, width))
    image.flags.writeable = label.flags.writeable = False
    return image, label


def _digest(name, seed, *, height=24, width=32):
    image, label = build_recipe(name, height=20, width=30)(*_scene(height, width), seed=seed)
    return hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()


@pytest.mark.parametrize("size", [(24, 32), (24, 24), (16, 20)])
@every_recipe
def test_the_output_has_the_asked_size_and_known_labels(name, size):
    augmentation = build_recipe(name, height=size[0], width=size[1])
    for seed in range(5):
        image, label = augmentation(*_scene(), seed=seed)
        assert (image.shape, image.dtype, label.shape, label.dtype) == ((*size, 3), np.uint8, size, np.uint8)
        assert image.flags.c_contiguous
        assert label.flags.c_contiguous
        assert set(np.unique(label)) <= {0, 1, 2, 3, IGNORE_INDEX}


@every_recipe
def test_the_output_shares_no_memory_with_the_input(name):
    image, label = _scene()
    for height, width, seed in itertools.product((24, 16), (32, 24), range(4)):
        new_image, new_label = build_recipe(name, height=height, width=width)(image, label, seed=seed)
        assert new_image.flags.writeable
        assert not np.shares_memory(new_image, image)
        assert not np.shares_memory(new_label, label)


@every_recipe
def test_the_result_depends_on_the_seed_and_not_on_what_came_before(name):
    image, label = _scene()
    used, fresh = build_recipe(name, height=20, width=20), build_recipe(name, height=20, width=20)
    for seed in range(30):
        used(image, label, seed=seed)
    for one, other in zip(used(image, label, seed=7), fresh(image, label, seed=7), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len({used(image, label, seed=seed)[0].tobytes() for seed in range(30)}) > 1


@every_recipe
def test_an_image_without_label_is_augmented_alike(name):
    image, label = _scene()
    augmentation = build_recipe(name, height=20, width=20)
    for seed in range(5):
        alone, nothing = augmentation(image, None, seed=seed)
        assert nothing is None
        np.testing.assert_array_equal(alone, augmentation(image, label, seed=seed)[0])


def test_another_process_draws_the_same_without_warnings_or_network():
    cases = [(name, seed) for name in RECIPES for seed in (0, 5)]
    program = f"""
import os, sys, urllib.request
urllib.request.OpenerDirector.open = lambda *_, **__: os._exit(3)
import segda.transforms
assert "albumentations" not in sys.modules, "naming recipes must not import the image library"
sys.path.insert(0, {str(Path(__file__).parent)!r})
import json
from test_recipes import _digest
json.dump([_digest(*case) for case in {cases!r}], sys.stdout)
"""
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    environment |= {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [_digest(*case) for case in cases]


def test_threads_may_share_an_augmentation():
    image, label = _scene()
    augmentation = build_recipe("aug5", height=20, width=20)
    expected = [augmentation(image, label, seed=seed)[0] for seed in range(200)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns in the middle of a call
    try:
        with ThreadPoolExecutor(4) as threads:
            results = list(threads.map(lambda seed: augmentation(image, label, seed=seed)[0], range(200)))
    finally:
        sys.setswitchinterval(interval)
    np.testing.assert_array_equal(results, expected)


def test_an_augmentation_that_was_used_can_be_pickled():
    image, label = _scene()
    augmentation = build_recipe("aug5", height=20, width=20)
    expected, _ = augmentation(image, label, seed=3)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(augmentation))(image, label, seed=3)[0], expected)


@pytest.mark.parametrize("size", [(24, 32), (24, 24), (16, 20)])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometry_moves_label_and_image_alike(name, size):
    _, label = _scene()
    painted = np.repeat(label[:, :, None], 3, axis=2)
    augmentation = build_recipe(name, height=size[0], width=size[1])
    for seed in range(20):
        new_image, new_label = augmentation(painted, label, seed=seed)
        np.testing.assert_array_equal(new_image[:, :, 1], new_label)


@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_colors_never_touch_the_label(name):
    image, label = _scene()
    augmentation = build_recipe(name, height=24, width=32)
    for seed in range(20):
        np.testing.assert_array_equal(augmentation(image, label, seed=seed)[1], label)


def test_scaling_moves_label_and_image_alike_and_fills_with_mean_color_and_void():
    label = np.kron(np.arange(1, 13, dtype=np.uint8).reshape(3, 4), np.ones((16, 16), np.uint8))
    painted = np.repeat(20 * label[:, :, None], 3, axis=2)
    augmentation = build_recipe("scale_crop", height=48, width=64)
    shares_of_void = []
    for seed in range(40):
        new_image, new_label = augmentation(painted, label, seed=seed)
        # Away from borders between blocks, where bilinear and nearest sampling agree.
        around = np.lib.stride_tricks.sliding_window_view(np.pad(new_label, 2, constant_values=254), (5, 5))
        inside = around.min(axis=(2, 3)) == around.max(axis=(2, 3))
        void = inside & (new_label == IGNORE_INDEX)
        np.testing.assert_array_equal(new_image[inside & ~void, 0], 20 * new_label[inside & ~void])
        assert (new_image[void] == np.round(IMAGE_MEAN)).all()
        shares_of_void.append(float((new_label == IGNORE_INDEX).mean()))
    assert set(shares_of_void) == {0.0, 0.75}


def test_flips_are_drawn_independently_of_each_other():
    image, label = _scene()
    augmentation = build_recipe("nadir", height=24, width=32)
    outcomes = [augmentation(image, label, seed=seed)[0].tobytes() for seed in range(200)]
    symmetries = [image, image[:, ::-1], image[::-1], image[::-1, ::-1]]
    counts = [outcomes.count(np.ascontiguousarray(symmetry).tobytes()) for symmetry in symmetries]
    assert sum(counts) == 200
    assert min(counts) > 25


def test_a_square_from_above_takes_all_eight_symmetries():
    image, label = _scene(24, 24)
    augmentation = build_recipe("nadir", height=24, width=24)
    outcomes = {augmentation(image, label, seed=seed)[0].tobytes() for seed in range(150)}
    turned = [np.rot90(start, turns) for start in (image, image[:, ::-1]) for turns in range(4)]
    assert outcomes == {np.ascontiguousarray(view).tobytes() for view in turned}


def test_half_of_the_images_are_flipped():
    image, label = _scene()
    augmentation = build_recipe("aug1", height=24, width=32)
    flipped = 0
    for seed in range(300):
        result, _ = augmentation(image, label, seed=seed)
        is_flipped = np.array_equal(result, image[:, ::-1])
        assert is_flipped or np.array_equal(result, image)
        flipped += is_flipped
    assert 110 < flipped < 190


def test_a_larger_image_is_cropped_at_every_place():
    height, width = 6, 7
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    image = np.stack([rows, columns, rows], axis=2)
    augmentation = build_recipe("none", height=4, width=5)
    corners = set()
    for seed in range(200):
        crop, _ = augmentation(image, rows, seed=seed)
        top, left = map(int, crop[0, 0, :2])
        np.testing.assert_array_equal(crop, image[top : top + 4, left : left + 5])
        corners.add((top, left))
    assert corners == set(itertools.product(range(3), range(3)))


def test_no_recipe_leaves_an_image_of_the_right_size_alone():
    image, label = _scene()
    new_image, new_label = build_recipe("none", height=24, width=32)(image, label, seed=9)
    np.testing.assert_array_equal(new_image, image)
    np.testing.assert_array_equal(new_label, label)


@every_recipe
def test_an_image_that_is_too_small_is_refused(name):
    with pytest.raises(ConfigError, match=r"to 30x32 \(height x width\) got a smaller image of 24x32"):
        build_recipe(name, height=30, width=32)(*_scene(), seed=0)


def test_a_label_of_another_size_is_refused():
    with pytest.raises(ConfigError, match="must have its image's size 24x32"):
        build_recipe("none", height=24, width=32)(_scene()[0], _scene(24, 24)[1], seed=0)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match=r"recipe 'aug33' \(did you mean 'aug3'\?\)"):
        build_recipe("aug33", height=24, width=32)


def test_an_empty_size_is_refused():
    with pytest.raises(ConfigError, match="at least one pixel, got 0x32"):
        build_recipe("none", height=0, width=32)


def test_the_rows_of_the_report_are_as_printed():
    flip, weak, strong = "horizontal flip p=0.5", "Gaussian blur sigma [0, 3] px", "Gaussian blur sigma [1, 2] px"
    pixel = [
        "linear contrast [0.75, 1.5]",
        "Gaussian noise of standard deviation [0, 0.05*255], per channel p=0.5",
        "brightness x [0.8, 1.2], per channel p=0.5",
    ]
    rows = {"none": [], "aug1": [flip], "aug2": [flip, weak], "aug3": [flip, strong]}
    rows |= {"aug4": [weak, *pixel], "aug5": [flip, strong, *pixel]}
    for name, texts in rows.items():
        assert [step.text for step in RECIPES[name].steps] == texts


@every_recipe
def test_a_description_is_one_line_with_every_step(name):
    recipe = RECIPES[name]
    assert recipe.description().startswith(recipe.purpose)
    assert "\n" not in recipe.description()
    assert all(step.text in recipe.description() for step in recipe.steps)
