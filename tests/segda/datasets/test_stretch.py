"""Bands and values of a raster where whoever predicts says what they are."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import Affine

from segda.datasets.bands import image_bands
from segda.datasets.stretch import Stretch, bands_as_told
from segda.errors import ConfigError, CorruptSampleError


def _write(path, bands, **options):
    profile = {"driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    with rasterio.open(
        path, "w", **profile, dtype=bands.dtype, transform=Affine(1, 0, 5, 0, -1, 5), **options
    ) as writer:
        writer.write(bands)
    return path


def _read(path, **told):
    with rasterio.open(path) as reader:
        return bands_as_told(image_bands, **told)(reader, path).read(reader)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((0, 3000), Stretch(0, 3000)),
        (("-1.5", "2e3"), Stretch(-1.5, 2000)),
        (("2%", " 98 % "), Stretch(2, 98, in_percent=True)),
    ],
)
def test_a_stretch_is_two_values_or_two_percentiles(ends, expected):
    assert Stretch.parse(*ends) == expected


@pytest.mark.parametrize(
    "ends", [("a", "b"), (3, 3), (5, 1), ("2%", "98"), ("nan", 1), (0, "inf"), ("-1%", "50%"), ("0%", "101%")]
)
def test_other_stretches_are_refused(ends):
    with pytest.raises(ConfigError, match=r"got"):
        Stretch.parse(*ends)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.float32])
def test_values_become_0_and_255_and_what_lies_beyond_is_cut_off(tmp_path, kind):
    values = np.array([0, 10, 60, 110, 120], kind)
    path = _write(tmp_path / "a.tif", np.broadcast_to(values, (3, 1, 5)))
    expected = [0, 0, 128, 255, 255]  # 255 * 50 / 100 = 127.5, rounded to even
    assert _read(path, stretch=Stretch(10, 110))[0, :, 0].tolist() == expected


def test_percentiles_are_of_each_band_and_of_pixels_that_hold_data(tmp_path):
    generator = np.random.default_rng(0)
    bands = generator.integers(1000, 3000, (3, 400, 300)).astype(np.uint16)
    bands[1] *= 2
    bands[:, :100] = 65535
    path = _write(tmp_path / "a.tif", bands, nodata=65535)
    with rasterio.open(path) as reader:
        found = bands_as_told(image_bands, stretch=Stretch(2, 98, in_percent=True))(reader, path)
    assert found.ranges == tuple(tuple(np.percentile(band[100:].astype(float), (2, 98))) for band in bands)


def test_percentiles_of_a_large_raster_are_read_from_its_overviews(tmp_path, monkeypatch):
    monkeypatch.setattr("segda.datasets.stretch._LOOKED_AT", 100 * 100)
    path = _write(tmp_path / "a.tif", np.random.default_rng(0).integers(0, 9, (3, 400, 400)).astype(np.uint16))
    with rasterio.open(path, "r+") as raster:
        raster.build_overviews([2, 4], Resampling.nearest)
    content = path.read_bytes()
    with rasterio.open(path) as reader:
        expected = reader.read(out_shape=(3, 100, 100))
        found = bands_as_told(image_bands, stretch=Stretch(10, 90, in_percent=True))(reader, path).ranges
    assert found == tuple(tuple(np.percentile(band.astype(float), (10, 90))) for band in expected)
    assert path.read_bytes() == content


def test_percentiles_that_coincide_and_rasters_without_data_are_refused(tmp_path):
    stretch = Stretch(2, 98, in_percent=True)
    path = _write(tmp_path / "flat.tif", np.full((3, 20, 20), 7, np.uint16))
    with pytest.raises(CorruptSampleError, match=r"flat\.tif: .*of band 1 are the same value, 7; give two values"):
        _read(path, stretch=stretch)
    path = _write(tmp_path / "empty.tif", np.zeros((3, 20, 20), np.uint16), nodata=0)
    with pytest.raises(CorruptSampleError, match=r"empty\.tif: .*there are none"):
        _read(path, stretch=stretch)


def test_bands_that_are_told_are_taken_whatever_the_file_says(tmp_path):
    bands = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((1, 5, 5), np.uint8)
    path = _write(tmp_path / "a.tif", bands)
    assert _read(path, numbers=(4, 3, 2))[0, 0].tolist() == [3, 2, 1]
    assert _read(path, numbers=(2,))[0, 0].tolist() == [1, 1, 1]
    with pytest.raises(CorruptSampleError, match="expected a band 5, got 4"):
        _read(path, numbers=(5, 1, 2))
    for numbers in ((1, 2), (0, 1, 2), ()):
        with pytest.raises(ConfigError, match="three numbers from 1, or one"):
            bands_as_told(image_bands, numbers=numbers)


def test_16_bits_without_a_stretch_are_refused_with_the_ways_out(tmp_path):
    path = _write(tmp_path / "deep.tif", np.ones((3, 5, 5), np.uint16))
    for told in ({}, {"numbers": (1, 2, 3)}):
        with pytest.raises(CorruptSampleError, match=r"deep\.tif: expected bands of uint8, got uint16; .*--stretch"):
            _read(path, **told)


def test_a_color_table_is_not_stretched(tmp_path):
    path = _write(tmp_path / "a.tif", np.zeros((1, 5, 5), np.uint8), photometric="PALETTE")
    with rasterio.open(path, "r+") as writer:
        writer.write_colormap(1, {0: (1, 2, 3, 255)})
    with pytest.raises(CorruptSampleError, match="color table"):
        _read(path, stretch=Stretch(0, 1))


def test_opacity_counts_with_told_bands_too(tmp_path):
    bands = np.full((4, 6, 6), 9, np.uint8)
    bands[0, :3] = 0
    path = _write(tmp_path / "a.tif", bands, photometric="MINISBLACK")
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = (ColorInterp.alpha, ColorInterp.undefined, ColorInterp.undefined, ColorInterp.undefined)
    with rasterio.open(path) as reader:
        bands_found = bands_as_told(image_bands, numbers=(2, 3, 4))(reader, path)
        assert np.array_equal(bands_found.valid(reader), bands[0] > 0)


def test_what_is_no_finite_number_holds_no_data(tmp_path):
    bands = np.ones((3, 4, 4), np.float32)
    bands[0, 0, 0], bands[2, 1, 1], bands[1, 2, 2] = np.nan, np.inf, -np.inf
    path = _write(tmp_path / "a.tif", bands)
    with rasterio.open(path) as reader:
        valid = bands_as_told(image_bands, stretch=Stretch(0, 1))(reader, path).valid(reader)
    assert np.argwhere(~valid).tolist() == [[0, 0], [1, 1], [2, 2]]
