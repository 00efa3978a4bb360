from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from segda.datasets import DATASETS
from segda.datasets.base import Sample
from segda.datasets.reading import read_image, read_stored_label
from segda.errors import CorruptSampleError

from .conftest import raw_png

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
        (np.zeros((1, 4, 4), np.uint8), "expected bands red, green and blue, got 1"),
    ],
)
def test_other_tiffs_are_refused(tmp_path: Path, bands: np.ndarray, message: str) -> None:
    with pytest.raises(CorruptSampleError, match=f"a.tif.*{message}"):
        read_image(write_tiff(tmp_path / "a.tif", bands))


def test_16_bit_png_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "a.png")
    for read in (read_image, read_stored_label):
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


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_of_few_bits_is_refused(tmp_path: Path, bits: int) -> None:
    """Pillow stretches it to 0..255, so that class 1 would be another one."""
    (tmp_path / "a.png").write_bytes(raw_png(b"\xff", bits=bits))
    for read in (read_image, read_stored_label):
        with pytest.raises(CorruptSampleError, match=f"a.png: expected 8 bits per channel, got {bits}"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_palette_of_few_bits_keeps_values_and_colors(tmp_path: Path, bits: int) -> None:
    (tmp_path / "a.png").write_bytes(raw_png(b"\xff", bits=bits, table=[(9, number, 7) for number in range(2**bits)]))
    values, table = read_stored_label(tmp_path / "a.png")
    largest = 2**bits - 1
    assert values.tolist() == [[largest] * (8 // bits)]
    assert table is not None
    assert table.tolist() == [[9, number, 7] for number in range(largest + 1)]
    assert read_image(tmp_path / "a.png")[0, 0].tolist() == [9, largest, 7]


def test_an_image_with_a_palette_is_read_in_its_colors(tmp_path: Path) -> None:
    indexed = Image.fromarray(np.array([[0, 1, 0]], np.uint8))
    indexed.putpalette([200, 0, 0, 10, 20, 30])
    indexed.save(tmp_path / "a.png", transparency=1)
    write_tiff(tmp_path / "a.tif", np.array([[[0, 1, 0]]], np.uint8), photometric="PALETTE")
    with rasterio.open(tmp_path / "a.tif", "r+") as raster:
        raster.write_colormap(1, {0: (200, 0, 0, 255), 1: (10, 20, 30, 255)})
    for name in ("a.png", "a.tif"):
        assert read_image(tmp_path / name).tolist() == [[[200, 0, 0], [10, 20, 30], [200, 0, 0]]]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_labels_stored_with_loss_are_refused(tmp_path: Path, name: str) -> None:
    if name == "a.tif":
        write_tiff(
            tmp_path / name, np.ones((1, 16, 16), np.uint8), compress="jpeg", blockxsize=16, blockysize=16, tiled=True
        )
    else:
        Image.new("L", (8, 8), 1).save(tmp_path / name, format="JPEG")
    with pytest.raises(CorruptSampleError, match=f"{name}: JPEG and LERC"):
        read_stored_label(tmp_path / name)


def test_sizes_that_differ_are_both_told(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    Image.new("L", (8, 5)).save(tmp_path / "b.png")
    with pytest.raises(CorruptSampleError, match=r"a.png is 8x6 pixels but its label .*b.png is 8x5"):
        DATASETS["loveda"].read(Sample("a", tmp_path / "a.png", tmp_path / "b.png"), with_label=True)


def test_a_label_whose_compression_may_change_classes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "label.tif"
    kind = {"driver": "GTiff", "height": 8, "width": 8, "count": 1, "dtype": "uint8", "compress": "lerc"}
    for error, is_lossy in ((0, False), (2, True)):
        with rasterio.open(
            path, "w", **kind, max_z_error=error, transform=rasterio.Affine(1, 0, 5, 0, -1, 5)
        ) as raster:
            raster.write(np.arange(64, dtype=np.uint8).reshape(1, 8, 8))
        if is_lossy:
            with pytest.raises(CorruptSampleError, match="without loss"):
                read_stored_label(path)
        else:
            assert read_stored_label(path)[0][0].tolist() == list(range(8))
