import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from segda.errors import ConfigError, CorruptSampleError, DatasetNotFoundError, OutOfMemoryError
from segda.file_prediction import overlay_path, predict_file, predict_folder
from segda.files import replacing
from segda.pictures import colorize, overlay
from segda.prediction import predict_batch, predict_image
from segda.types import IMAGE_MEAN, IMAGE_STD, SegmentationOutput

PALETTE = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


class BrightestChannel(nn.Module):
    """Class 0, 1 or 2 where red, green or blue is largest; remembers the sizes that it saw."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, image):
        self.seen.append(tuple(image.shape))
        mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
        return SegmentationOutput(image * std[:, None, None] + mean[:, None, None], (), image)


class OutOfMemory(nn.Module):
    def forward(self, image):
        return torch.empty(2**50)  # more than there is


def _random_image(height, width, *, seed=0):
    image = np.random.default_rng(seed).permuted(np.arange(256, dtype=np.uint8))
    return np.random.default_rng(seed).choice(image, size=(height, width, 3))


def _answer(image):
    return image.argmax(axis=2)


def _save(image, path):
    Image.fromarray(image).save(path)
    return path


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (40, 5), (33, 47)])
def test_an_image_of_any_size_gets_one_class_per_pixel(size):
    image = _random_image(*size)
    prediction = predict_image(BrightestChannel(), image)
    assert prediction.dtype == np.uint8
    # Two equal channels are decided by rounding in the normalization.
    ordered = np.sort(image, axis=2)
    clear = ordered[..., 2] > ordered[..., 1]
    assert np.array_equal(prediction[clear], _answer(image)[clear])


def test_the_network_never_sees_less_than_32_pixels():
    segmenter = BrightestChannel()
    predict_image(segmenter, _random_image(5, 40))
    assert segmenter.seen == [(1, 3, 32, 40)]


def test_a_given_size_is_what_the_network_sees_and_the_prediction_keeps_the_size_of_the_image():
    segmenter = BrightestChannel()
    image = np.zeros((60, 80, 3), np.uint8)
    image[:, :40, 0] = 200
    image[:, 40:, 2] = 200
    prediction = predict_image(segmenter, image, size=(32, 48))
    assert segmenter.seen == [(1, 3, 32, 48)]
    assert prediction.shape == (60, 80)
    assert (prediction[:, :38] == 0).all()
    assert (prediction[:, 42:] == 2).all()


def test_a_batch_is_predicted_as_its_images_are():
    images = np.stack([_random_image(32, 40, seed=seed) for seed in range(3)])
    together = predict_batch(BrightestChannel(), images)
    assert np.array_equal(together, np.stack([predict_image(BrightestChannel(), image) for image in images]))


def test_out_of_memory_says_what_did_not_fit():
    with pytest.raises(OutOfMemoryError, match="64x48"):
        predict_image(OutOfMemory(), _random_image(64, 48))


def test_a_predicted_file_is_an_index_png_with_the_palette(tmp_path):
    image = _random_image(40, 50)
    predict_file(BrightestChannel(), _save(image, tmp_path / "a.png"), tmp_path / "out.png", palette=PALETTE)
    with Image.open(tmp_path / "out.png") as written:
        assert written.mode == "P"
        assert np.array_equal(np.asarray(written), predict_image(BrightestChannel(), image))
        assert np.array_equal(np.asarray(written.convert("RGB")), colorize(np.asarray(written), PALETTE))


def test_an_overlay_is_written_beside_the_prediction(tmp_path):
    image = _random_image(40, 50)
    source = _save(image, tmp_path / "a.png")
    predict_file(BrightestChannel(), source, tmp_path / "out.png", palette=PALETTE, with_overlay=True)
    with Image.open(tmp_path / "out_overlay.png") as written:
        expected = overlay(image, predict_image(BrightestChannel(), image), PALETTE)
        assert np.array_equal(np.asarray(written), expected)


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for seed, name in enumerate(("a.png", "b.png", "c.bmp.txt")):
        if name.endswith(".png"):
            _save(_random_image(33, 35, seed=seed), source / name)
        else:
            (source / name).write_text("not an image")
    return source


def test_a_folder_is_predicted_image_by_image_and_other_files_are_left_alone(folder, tmp_path):
    calls = []
    result = predict_folder(
        BrightestChannel(), folder, tmp_path / "out", palette=PALETTE, progress=lambda *done: calls.append(done)
    )
    assert [path.name for path in result.written] == ["a.png", "b.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    assert calls == [(1, 2, None), (2, 2, None)]


def test_a_second_run_skips_what_is_there(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"mine")
    result = predict_folder(BrightestChannel(), folder, out, palette=PALETTE)
    assert ([path.name for path in result.written], [path.name for path in result.skipped]) == (["b.png"], ["a.png"])
    assert (out / "a.png").read_bytes() == b"mine"


def test_overwriting_replaces_what_is_there(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"mine")
    result = predict_folder(BrightestChannel(), folder, out, palette=PALETTE, overwrite=True)
    assert len(result.written) == 2
    assert (out / "a.png").read_bytes() != b"mine"


def test_a_missing_overlay_is_made_up_for(folder, tmp_path):
    out = tmp_path / "out"
    predict_folder(BrightestChannel(), folder, out, palette=PALETTE)
    result = predict_folder(BrightestChannel(), folder, out, palette=PALETTE, with_overlay=True)
    assert len(result.written) == 2
    assert overlay_path(out / "a.png").exists()


def test_a_damaged_image_leaves_the_predictions_before_it_and_nothing_of_its_own(folder, tmp_path):
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptSampleError, match=r"b\.png"):
        predict_folder(BrightestChannel(), folder, tmp_path / "out", palette=PALETTE)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetNotFoundError, match="no image"):
        predict_folder(BrightestChannel(), tmp_path / "empty", tmp_path / "out", palette=PALETTE)


def test_what_is_left_alone_is_told_with_the_reason(folder, tmp_path):
    (folder / "c.png").symlink_to("/nowhere")
    (folder / "d.png").mkdir()
    for name in ("notes.txt", "e.webp", ".hidden.png"):
        (folder / name).touch()
    result = predict_folder(BrightestChannel(), folder, tmp_path / "out", palette=PALETTE)
    assert [path.name for path in result.written] == ["a.png", "b.png"]
    assert {why: [path.name for path in paths] for why, paths in result.left.items()} == {
        "is hidden": [".hidden.png"],
        "is a link to what is missing": ["c.png"],
        "is a folder": ["d.png"],
        "is of a kind that is not read": ["c.bmp.txt", "e.webp", "notes.txt"],
    }


def test_a_folder_of_which_everything_was_left_alone_is_refused_with_the_reasons(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "c.png").symlink_to("/nowhere")
    for number in range(5):
        (source / f"{number}.txt").touch()
    words = (
        r"left alone: 0\.txt, 1\.txt and 3 more: is of a kind that is not read; c\.png: is a link to what is missing"
    )
    with pytest.raises(DatasetNotFoundError, match=words):
        predict_folder(BrightestChannel(), source, tmp_path / "out", palette=PALETTE)
    assert not (tmp_path / "out").exists()


def test_predictions_into_the_folder_of_the_images_are_refused(folder):
    before = (folder / "a.png").read_bytes()
    with pytest.raises(ConfigError, match="replace the images"):
        predict_folder(BrightestChannel(), folder, folder, palette=PALETTE, overwrite=True)
    assert (folder / "a.png").read_bytes() == before


def test_an_overlay_with_the_name_of_a_prediction_is_refused(folder, tmp_path):
    _save(_random_image(33, 35), folder / "a_overlay.png")
    with pytest.raises(ConfigError, match="a_overlay"):
        predict_folder(BrightestChannel(), folder, tmp_path / "out", palette=PALETTE, with_overlay=True)


def test_a_file_that_is_not_finished_never_takes_its_place(tmp_path):
    destination = tmp_path / "new" / "file.txt"

    def write_half():
        with replacing(destination) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(destination.parent.iterdir()) == []


def test_a_finished_file_replaces_the_old_one(tmp_path):
    destination = tmp_path / "file.txt"
    destination.write_text("old")
    with replacing(destination) as partial:
        partial.write_text("new")
        assert destination.read_text() == "old"
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]
