"""Predictions of another program: found by name, read as what they are, and refused in one line where they are not."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segda.black_box import BlackBox
from segda.errors import ConfigError, CorruptSampleError, DatasetNotFoundError

NAMES = ("a", "b/c")
NUM_CLASSES = 4


def save_ids(folder: Path, ids: np.ndarray, names: tuple[str, ...] = NAMES) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ids.astype(np.uint8)).save(folder / f"{name}.png")
    return folder


def save_probs(folder: Path, array: np.ndarray, *, suffix: str = "npy", **arrays: np.ndarray) -> Path:
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if suffix == "npy":
            np.save(folder / f"{name}.npy", array)
        else:
            np.savez(folder / f"{name}.npz", **(arrays or {"anything": array}))
    return folder


def probs(height: int = 5, width: int = 7) -> np.ndarray:
    powers = np.exp(np.random.default_rng(0).normal(0, 2, (NUM_CLASSES, height, width)))
    return powers / powers.sum(0)


def opened(folder: Path, **options) -> BlackBox:
    return BlackBox(folder, names=NAMES, num_classes=NUM_CLASSES, **options)


def test_ids_are_read_with_confidences_of_eight_and_sixteen_bits(tmp_path):
    ids = np.array([[0, 1, 2], [3, 255, 0]])
    save_ids(tmp_path / "ids", ids)
    for bits, top in ((8, 255), (16, 65535)):
        stored = np.array([[0, top, top // 3], [1, 2, top - 1]], dtype=np.uint8 if bits == 8 else np.uint16)
        for name in NAMES:
            path = tmp_path / f"{bits}" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), stored)
        box = opened(tmp_path / "ids", confidences=tmp_path / f"{bits}")
        assert (box.has_probs, box.has_confidences) == (False, True)
        for number in range(2):
            said = box.read(number)
            assert said.probs is None
            assert np.array_equal(said.label, ids)
            assert np.allclose(said.confidence, stored / top, atol=1e-7)


def test_a_color_table_is_decoration(tmp_path):
    picture = Image.fromarray(np.array([[3, 1], [255, 0]], dtype=np.uint8))
    picture.putpalette([7, 7, 7] * 256)
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / f"{name}.png")
    assert opened(tmp_path).read(1).label.tolist() == [[3, 1], [255, 0]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_probabilities_are_read(tmp_path, dtype, suffix):
    box = opened(save_probs(tmp_path, probs().astype(dtype), suffix=suffix))
    assert (box.has_probs, box.has_confidences) == (True, False)
    said = box.read(0)
    assert said.label is None
    assert said.probs.dtype == np.float32
    assert np.allclose(said.probs, probs(), atol=1e-3)


def test_of_several_arrays_probs_counts(tmp_path):
    box = opened(save_probs(tmp_path / "a", probs(), suffix="npz", logits=probs() * 3, probs=probs()))
    assert np.allclose(box.read(0).probs, probs(), atol=1e-6)
    with pytest.raises(CorruptSampleError, match=r"holds the arrays x, y; call the one of probabilities probs"):
        opened(save_probs(tmp_path / "b", probs(), suffix="npz", x=probs(), y=probs())).read(0)


def test_missing_and_surplus_images_are_told_in_one_line(tmp_path):
    save_ids(tmp_path, np.zeros((2, 2)), ("a", "b", "x"))
    with pytest.raises(DatasetNotFoundError) as told:
        opened(tmp_path)
    text = str(told.value)
    assert "has no file of 1 of the 2 target training images: b/c; 2 files belong to no image: b, x" in text
    assert "\n" not in text
    save_ids(tmp_path, np.zeros((2, 2)))
    assert opened(tmp_path).surplus == ["b", "x"]


def test_places_and_kinds_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="there is no such folder"):
        opened(tmp_path / "nowhere")
    save_ids(tmp_path / "ids", np.zeros((2, 2)))
    save_probs(tmp_path / "probs", probs())
    with pytest.raises(ConfigError, match="tell confidences by themselves; leave"):
        opened(tmp_path / "probs", confidences=tmp_path / "ids")
    with pytest.raises(DatasetNotFoundError, match="has no file of 2 of the 2"):
        opened(tmp_path / "ids", confidences=tmp_path / "probs")
    save_probs(tmp_path / "twice", probs())
    save_probs(tmp_path / "twice", probs(), suffix="npz")
    with pytest.raises(ConfigError, match="are of one image; keep one of them"):
        opened(tmp_path / "twice")
    save_ids(tmp_path / "mixed", np.zeros((2, 2)), ("a",))
    (tmp_path / "mixed" / "b").mkdir()
    np.save(tmp_path / "mixed" / "b" / "c.npy", probs())
    with pytest.raises(ConfigError, match="holds both PNGs and arrays"):
        opened(tmp_path / "mixed")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.full((2, 2), 4), r"unknown id 4; allowed are the train ids 0\.\.3 and 255"),
        (np.zeros((2, 2, 3)), r"expected train ids in one band, got colors"),
    ],
)
def test_files_without_train_ids_are_refused(tmp_path, ids, message):
    with pytest.raises(CorruptSampleError, match=message):
        opened(save_ids(tmp_path, ids)).read(0)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (probs()[:3], r"expected probabilities \[4, height, width\] of a floating-point type, got \[3, 5, 7\]"),
        (probs().transpose(1, 2, 0), r"got \[5, 7, 4\] of float64"),
        ((probs() * 255).astype(np.uint8), r"got \[4, 5, 7\] of uint8"),
        (np.log(probs()), r"probabilities >= 0 that sum to 1 over the classes, got others; apply softmax"),
        (probs() * 1.1, r"sum to 1"),
        (np.where(probs() > 0.9, np.nan, probs()), r"save no NaN"),
        (np.array([{"a": 1}], dtype=object), r"an array without pickled objects"),
    ],
)
def test_arrays_that_are_no_probabilities_are_refused(tmp_path, array, message):
    with pytest.raises(CorruptSampleError, match=message):
        opened(save_probs(tmp_path, array)).read(0)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.png"])
def test_damaged_files_are_told_by_name(tmp_path, name):
    (tmp_path / "b").mkdir()
    (tmp_path / name).write_bytes(b"PK\x03\x04 nothing")
    (tmp_path / "b" / f"c{Path(name).suffix}").write_bytes(b"")
    for number in range(2):
        with pytest.raises(CorruptSampleError, match=r"(a|c)\.(npy|npz|png) (cannot be|is empty)"):
            opened(tmp_path).read(number)


def test_confidences_of_another_kind_are_refused(tmp_path):
    save_ids(tmp_path / "ids", np.zeros((2, 2)))
    save_ids(tmp_path / "colors", np.zeros((2, 2, 3)))
    with pytest.raises(CorruptSampleError, match="expected confidences as gray of 8 or 16 bits"):
        opened(tmp_path / "ids", confidences=tmp_path / "colors").read(0)


def test_the_digest_follows_the_contents_and_not_the_place(tmp_path):
    save_ids(tmp_path / "a", np.zeros((2, 2)))
    save_ids(tmp_path / "b", np.zeros((2, 2)))
    save_ids(tmp_path / "c", np.ones((2, 2)))
    first, same, other = (opened(tmp_path / name).digest() for name in "abc")
    assert first == same != other
    assert opened(tmp_path / "a", confidences=tmp_path / "c").digest() not in (first, other)
