from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from segda.datasets import DATASETS
from segda.datasets.base import Sample
from segda.datasets.reading import find_images, read_image, read_label
from segda.errors import CorruptSampleError

pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def write_tiff(path: Path, bands: np.ndarray, **profile: object) -> Path:
    count, height, width = bands.shape
    profile.setdefault("transform", Affine(1, 0, 500, 0, -1, 900))
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=bands.dtype, **profile
    ) as raster:
        raster.write(bands)
    return path


def test_png_is_read_as_written(tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels)


def test_alpha_of_a_png_is_dropped(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([pixels, np.zeros((6, 8), np.uint8)])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels)


@pytest.mark.parametrize("bands", [3, 4])
def test_first_three_bands_of_a_geotiff_are_rgb(tmp_path: Path, bands: int) -> None:
    stored = np.concatenate([pixels.transpose(2, 0, 1), pixels[None, :, :, 0]])[:bands]
    np.testing.assert_array_equal(read_image(write_tiff(tmp_path / "a.tif", stored)), pixels)


def test_tiff_without_coordinates_is_read_silently(tmp_path: Path) -> None:
    # Warnings are errors in this suite: the second reading would raise if the library's warning got through.
    with pytest.warns(NotGeoreferencedWarning):
        path = write_tiff(tmp_path / "a.tif", pixels.transpose(2, 0, 1), transform=None)
    np.testing.assert_array_equal(read_image(path), pixels)


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (np.zeros((3, 4, 4), np.uint16), "expected bands of uint8, got uint16"),
        (np.zeros((3, 4, 4), np.float32), "expected bands of uint8, got float32"),
        (np.zeros((1, 4, 4), np.uint8), "expected at least 3 bands .*, got 1"),
    ],
)
def test_other_tiffs_are_refused(tmp_path: Path, bands: np.ndarray, message: str) -> None:
    with pytest.raises(CorruptSampleError, match=f"a.tif.*{message}"):
        read_image(write_tiff(tmp_path / "a.tif", bands))


def test_16_bit_png_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "a.png")
    for read in (read_image, read_label):
        with pytest.raises(CorruptSampleError, match=r"a.png: expected 8 bits per channel, got 16"):
            read(tmp_path / "a.png")


def test_gray_image_is_refused(tmp_path: Path) -> None:
    Image.fromarray(pixels[..., 0]).save(tmp_path / "a.png")
    with pytest.raises(CorruptSampleError, match=r"a.png: expected 8-bit RGB, got mode L"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_truncated_image_is_named(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"a.{suffix}"
    large = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    if suffix == "tif":
        write_tiff(path, large.transpose(2, 0, 1))
    else:
        Image.fromarray(large).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(CorruptSampleError, match=str(path)):
        read_image(path)


def test_colors_of_a_paletted_label_are_not_applied(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[3, 1]], np.uint8), mode=None).convert("P")
    image.putdata([3, 1])
    image.putpalette([200, 10, 10] * 256)
    image.save(tmp_path / "a.png")
    assert read_label(tmp_path / "a.png").tolist() == [[3, 1]]


def test_sizes_that_differ_are_both_told(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    Image.new("L", (8, 5)).save(tmp_path / "b.png")
    with pytest.raises(CorruptSampleError, match=r"a.png is 8x6 pixels but its label .*b.png is 8x5"):
        DATASETS["loveda"].read(Sample("a", tmp_path / "a.png", tmp_path / "b.png"), with_label=True)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "a.jpg").touch()
    with pytest.raises(CorruptSampleError, match="same sample twice"):
        find_images(tmp_path)


def test_other_files_are_no_images(tmp_path: Path) -> None:
    for name in ("a.png", ".b.png", "Thumbs.db", "readme.txt"):
        (tmp_path / name).touch()
    (tmp_path / "c.png").mkdir()
    assert list(find_images(tmp_path)) == ["a"]
