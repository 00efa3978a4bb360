import os
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.windows import Window
from torch import nn

from segda.datasets.reading import read_image
from segda.errors import ConfigError, CorruptSampleError
from segda.file_prediction import predict_folder
from segda.prediction import predict_image
from segda.raster import predict_raster, tile_axis
from segda.types import SegmentationOutput

PALETTE = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255))
CRS = "EPSG:32618"
TRANSFORM = Affine(10, 0, 200_000, 0, -10, 2_700_000)


class PixelwiseSegmenter(nn.Module):
    """A 1x1 convolution: the class of a pixel depends on that pixel alone, whatever window it is seen in."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
        self.seen = []

    def forward(self, image):
        self.seen.append(tuple(image.shape))
        return SegmentationOutput(torch.einsum("kc,bchw->bkhw", self.weight, image), (), image)


class NeighborhoodSegmenter(nn.Module):
    """Class 0 where the mean over `reach` pixels to each side is above that of random pixels, else 1."""

    def __init__(self, *, reach):
        super().__init__()
        self.reach = reach

    def forward(self, image):
        brightness = image.double().mean(dim=1, keepdim=True) - 0.234
        side = 2 * self.reach + 1
        mean = nn.functional.avg_pool2d(brightness, side, stride=1, padding=self.reach, count_include_pad=False)
        return SegmentationOutput(torch.cat([mean, -mean], dim=1), (), image)


def _random_image(height, width):
    return np.random.default_rng(0).integers(1, 256, (height, width, 3), dtype=np.uint8)


def _write(path, bands, **options):
    profile = {"driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    with rasterio.open(path, "w", **profile, dtype=bands.dtype, crs=CRS, transform=TRANSFORM, **options) as writer:
        writer.write(bands)
        if len(bands) == 4:
            writer.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    return path


def _write_image(path, image, **options):
    return _write(path, np.ascontiguousarray(image.transpose(2, 0, 1)), **options)


def _predict(segmenter, source, **options):
    destination = source.with_name("prediction.tif")
    predict_raster(segmenter, source, destination, palette=PALETTE, **options)
    with rasterio.open(destination) as reader:
        return reader.read(1)


@given(
    length=st.integers(1, 3000),
    stride=st.integers(1, 20).map(lambda blocks: 16 * blocks),
    overlap=st.integers(0, 300),
)
def test_windows_write_every_pixel_exactly_once(length, stride, overlap):
    window = stride + overlap
    if window < 32:
        return
    tiles = tile_axis(length, window=window, overlap=overlap)
    written = np.zeros(length, np.int64)
    for tile in tiles:
        assert 0 <= tile.start <= tile.keep_start < tile.keep_stop <= tile.stop <= length
        assert tile.stop - tile.start == min(window, length)
        # Inside the raster, the network has seen half of the overlap around all that is kept.
        assert tile.start == 0 or tile.keep_start - tile.start >= overlap // 2
        assert tile.stop == length or tile.stop - tile.keep_stop >= overlap // 2
        written[tile.keep_start : tile.keep_stop] += 1
    assert (written == 1).all()


@pytest.mark.parametrize(
    ("window", "overlap", "message"),
    [(16, 0, "at least 32"), (64, 64, "smaller than the window"), (64, -1, "at least 0"), (100, 30, "multiple of 16")],
)
def test_windows_that_do_not_fit_are_refused(window, overlap, message):
    with pytest.raises(ConfigError, match=message):
        tile_axis(100, window=window, overlap=overlap)


def test_the_advice_for_a_window_that_does_not_fit_is_right():
    with pytest.raises(ConfigError, match="take 110 for the window"):
        tile_axis(500, window=100, overlap=30)
    assert tile_axis(500, window=110, overlap=30)


@pytest.mark.parametrize("size", [(150, 203), (64, 64), (20, 300), (1, 1)])
@pytest.mark.parametrize(("window", "overlap"), [(64, 32), (64, 0), (80, 48)])
def test_the_windowed_prediction_equals_that_of_the_whole_image(tmp_path, size, window, overlap):
    image = _random_image(*size)
    source = _write_image(tmp_path / "a.tif", image)
    windowed = _predict(PixelwiseSegmenter().eval(), source, window=window, overlap=overlap, batch_size=3)
    assert np.array_equal(windowed, predict_image(PixelwiseSegmenter().eval(), image))


def test_half_of_the_overlap_is_the_context_that_a_network_gets(tmp_path):
    image = _random_image(150, 203)
    source = _write_image(tmp_path / "a.tif", image)
    segmenter = NeighborhoodSegmenter(reach=8)
    whole = predict_image(segmenter, image)
    assert np.array_equal(_predict(segmenter, source, window=64, overlap=16), whole)
    assert not np.array_equal(_predict(segmenter, source, window=64, overlap=0), whole)


def test_the_prediction_lies_where_its_source_lies_with_colors_and_names(tmp_path):
    source = _write_image(tmp_path / "a.tif", _random_image(100, 90))
    destination = tmp_path / "out" / "classes.tif"
    predict_raster(
        PixelwiseSegmenter(), source, destination, palette=PALETTE, classes=tuple("abcde"), window=64, overlap=0
    )
    with rasterio.open(destination) as reader:
        assert (reader.crs, reader.transform, reader.shape) == (CRS, TRANSFORM, (100, 90))
        assert (reader.count, reader.dtypes, reader.nodata) == (1, ("uint8",), 255)
        assert (reader.profile["tiled"], reader.profile["compress"]) == (True, "deflate")
        assert reader.profile["blockxsize"] == reader.profile["blockysize"] == 64
        assert [reader.colormap(1)[index] for index in range(5)] == [(*color, 255) for color in PALETTE]
        assert reader.tags(1)["CLASS_3"] == "d"


def test_nodata_of_the_source_stays_nodata_and_costs_no_network(tmp_path):
    image = _random_image(64, 192)
    image[:, :70] = 0
    segmenter = PixelwiseSegmenter().eval()
    prediction = _predict(
        segmenter, _write_image(tmp_path / "a.tif", image, nodata=0), window=64, overlap=0, batch_size=1
    )
    assert (prediction[:, :70] == 255).all()
    assert (prediction[:, 70:] < 5).all()
    assert len(segmenter.seen) == 2  # the first of three windows is empty


def test_transparent_pixels_become_nodata(tmp_path):
    alpha = np.full((50, 60), 255, np.uint8)
    alpha[10:20] = 0
    bands = np.concatenate([_random_image(50, 60).transpose(2, 0, 1), alpha[None]])
    prediction = _predict(PixelwiseSegmenter(), _write(tmp_path / "a.tif", bands))
    assert np.array_equal(prediction == 255, alpha == 0)


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (np.ones((1, 40, 40), np.uint8), r"1 band"),
        (np.ones((2, 40, 40), np.uint8), r"2 band"),
        (np.ones((3, 40, 40), np.uint16), "uint16"),
    ],
)
def test_other_bands_are_refused_and_nothing_is_written(tmp_path, bands, message):
    source = _write(tmp_path / "a.tif", bands)
    with pytest.raises(CorruptSampleError, match=message):
        _predict(PixelwiseSegmenter(), source)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_bands_are_taken_by_their_tags_as_in_training(tmp_path):
    image = _random_image(70, 90)
    bands = image.transpose(2, 0, 1)
    source = _write(tmp_path / "a.tif", np.stack([bands[0] // 2, *bands[::-1]]), photometric="MINISBLACK")
    with rasterio.open(source, "r+") as writer:
        writer.colorinterp = (ColorInterp.nir, ColorInterp.blue, ColorInterp.green, ColorInterp.red)
    assert np.array_equal(read_image(source), image)
    expected = predict_image(PixelwiseSegmenter().eval(), image)
    assert np.array_equal(_predict(PixelwiseSegmenter().eval(), source, window=64, overlap=0), expected)


def test_a_raster_with_a_color_table_is_predicted_in_its_colors(tmp_path):
    values = np.random.default_rng(0).integers(0, 4, (40, 50), dtype=np.uint8)
    source = _write(tmp_path / "a.tif", values[None], photometric="PALETTE")
    with rasterio.open(source, "r+") as writer:
        writer.write_colormap(1, {value: (*color, 255) for value, color in enumerate(PALETTE)})
    expected = predict_image(PixelwiseSegmenter().eval(), np.array(PALETTE, np.uint8)[values])
    assert np.array_equal(_predict(PixelwiseSegmenter().eval(), source), expected)


def test_a_truncated_raster_leaves_nothing_behind(tmp_path):
    source = _write_image(tmp_path / "a.tif", _random_image(300, 300))
    source.write_bytes(source.read_bytes()[:200_000])
    with pytest.raises(CorruptSampleError, match=r"a\.tif"):
        _predict(PixelwiseSegmenter(), source, window=64, overlap=0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_an_interrupted_prediction_leaves_the_old_one(tmp_path):
    source = _write_image(tmp_path / "a.tif", _random_image(200, 200))
    destination = tmp_path / "prediction.tif"
    destination.write_bytes(b"old")

    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_raster(
            PixelwiseSegmenter(), source, destination, palette=PALETTE, window=64, overlap=0, progress=interrupt
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "prediction.tif"]
    assert destination.read_bytes() == b"old"


def test_a_raster_is_never_replaced_by_its_own_prediction(tmp_path):
    source = _write_image(tmp_path / "a.tif", _random_image(40, 40))
    with pytest.raises(ConfigError, match="its own input"):
        predict_raster(PixelwiseSegmenter(), source, source, palette=PALETTE)


def test_a_tiff_without_coordinates_is_predicted_without_a_warning(tmp_path):
    image = _random_image(40, 50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            tmp_path / "a.tif", "w", driver="GTiff", count=3, height=40, width=50, dtype="uint8"
        ) as writer:
            writer.write(image.transpose(2, 0, 1))
    predict_raster(PixelwiseSegmenter(), tmp_path / "a.tif", tmp_path / "b.tif", palette=PALETTE)
    assert (tmp_path / "b.tif").exists()


def test_ground_control_points_are_kept(tmp_path):
    points = [GroundControlPoint(row, column, 10 * column, -10 * row) for row in (0, 40) for column in (0, 50)]
    source = tmp_path / "a.tif"
    with rasterio.open(
        source, "w", driver="GTiff", count=3, height=40, width=50, dtype="uint8", gcps=points, crs=CRS
    ) as writer:
        writer.write(_random_image(40, 50).transpose(2, 0, 1))
    predict_raster(PixelwiseSegmenter(), source, tmp_path / "b.tif", palette=PALETTE)
    with rasterio.open(tmp_path / "b.tif") as reader:
        kept, crs = reader.gcps
    assert crs == CRS
    assert [(point.row, point.col, point.x, point.y) for point in kept] == [
        (point.row, point.col, point.x, point.y) for point in points
    ]


def _write_large(path, *, height, width):
    profile = {"driver": "GTiff", "count": 3, "height": height, "width": width, "dtype": "uint8", "crs": CRS}
    strip = np.random.default_rng(0).integers(1, 256, (3, 100, width), dtype=np.uint8)
    with rasterio.open(path, "w", **profile, transform=TRANSFORM, tiled=True, blockxsize=256, blockysize=256) as writer:
        for row in range(0, height, 100):
            writer.write(strip, window=Window(0, row, width, 100))
    return path


def test_memory_does_not_grow_with_the_raster(tmp_path):
    peaks = {}
    for height in (1000, 2000):
        source = _write_large(tmp_path / f"{height}.tif", height=height, width=1500)
        segmenter = PixelwiseSegmenter().eval()
        tracemalloc.start()
        predict_raster(segmenter, source, tmp_path / "out.tif", palette=PALETTE, window=256, overlap=64, batch_size=2)
        peaks[height] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert set(segmenter.seen) <= {(2, 3, 256, 256), (1, 3, 256, 256)}
    assert peaks[2000] < 1.1 * peaks[1000]
    assert peaks[2000] < 2000 * 1500  # less than one band of the raster


def test_rasters_of_a_folder_are_predicted_as_rasters(tmp_path):
    (tmp_path / "in").mkdir()
    image = _random_image(90, 70)
    _write_image(tmp_path / "in" / "a.tif", image)
    result = predict_folder(
        PixelwiseSegmenter(),
        tmp_path / "in",
        tmp_path / "out",
        palette=PALETTE,
        window=64,
        overlap=0,
        with_overlay=True,
    )
    assert [path.name for path in result.written] == ["a.tif"]
    with rasterio.open(tmp_path / "out" / "a.tif") as reader:
        assert reader.crs == CRS
        assert np.array_equal(reader.read(1), predict_image(PixelwiseSegmenter().eval(), image))


def test_a_pipe_is_refused_and_a_colon_in_a_name_is_no_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.tif")
    with pytest.raises(CorruptSampleError, match=r"pipe\.tif is not a file but a pipe"):
        predict_raster(nn.Identity(), Path("pipe.tif"), Path("out.tif"), palette=PALETTE)
    named = Path("http:a.tif")
    kind = {"driver": "GTiff", "height": 4, "width": 4, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / named, "w", **kind, transform=TRANSFORM) as raster:
        raster.write(np.full((3, 4, 4), 7, np.uint8))
    assert read_image(named)[0, 0].tolist() == [7, 7, 7]
