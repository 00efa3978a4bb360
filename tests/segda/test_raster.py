import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.windows import Window
from scipy.ndimage import gaussian_filter
from torch import nn

from segda.blending import spans
from segda.datasets.bands import image_bands
from segda.datasets.reading import read_image
from segda.datasets.stretch import Stretch, bands_as_told
from segda.errors import ConfigError, CorruptSampleError
from segda.file_prediction import predict_folder
from segda.models.fast_scnn import FastSCNN
from segda.prediction import predict_image
from segda.raster import confidence_path, predict_raster
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


class LocalSegmenter(nn.Module):
    """Strided convolutions, so that it matters where windows begin; a class depends on 12 pixels to each side at most."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = [
            torch.randn(shape, generator=generator) / 5 for shape in ((8, 3, 3, 3), (8, 8, 3, 3), (5, 8, 1, 1))
        ]

    def forward(self, image):
        features = nn.functional.conv2d(image, self.weights[0], stride=2, padding=1).relu()
        features = nn.functional.conv2d(features, self.weights[1], stride=2, padding=1).relu()
        logits = nn.functional.conv2d(features, self.weights[2])
        logits = nn.functional.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=False)
        return SegmentationOutput(logits, (), image)


class GlobalSegmenter(nn.Module):
    """Two classes by brightness against that of the window, as of a network with global pooling that is always sure."""

    def forward(self, image):
        brightness = image.mean(dim=1, keepdim=True)
        difference = 20 * (brightness - 0.7 * brightness.mean(dim=(2, 3), keepdim=True))
        return SegmentationOutput(torch.cat([difference, -difference], dim=1), (), image)


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


@pytest.mark.parametrize(
    ("window", "overlap", "message"),
    [(16, 0, "at least 32"), (64, 64, "smaller than the window"), (64, -1, "at least 0")],
)
def test_windows_that_do_not_fit_are_refused(tmp_path, window, overlap, message):
    source = _write_image(tmp_path / "a.tif", _random_image(40, 40))
    with pytest.raises(ConfigError, match=message):
        _predict(PixelwiseSegmenter(), source, window=window, overlap=overlap)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize("size", [(150, 203), (64, 64), (20, 300), (1, 1)])
@pytest.mark.parametrize(("window", "overlap"), [(64, 32), (64, 0), (80, 48), (50, 27)])
def test_the_windowed_prediction_equals_that_of_the_whole_image(tmp_path, size, window, overlap):
    image = _random_image(*size)
    source = _write_image(tmp_path / "a.tif", image)
    windowed = _predict(PixelwiseSegmenter().eval(), source, window=window, overlap=overlap, batch_size=3)
    assert np.array_equal(windowed, predict_image(PixelwiseSegmenter().eval(), image))


@pytest.mark.parametrize("size", [(300, 420), (128, 64)])
def test_a_network_that_sees_a_quarter_of_the_overlap_gives_the_classes_of_one_pass(tmp_path, size):
    image = _random_image(*size)
    source = _write_image(tmp_path / "a.tif", image)
    segmenter = LocalSegmenter()
    whole = predict_image(segmenter, image)
    assert np.array_equal(_predict(segmenter, source, window=128, overlap=64), whole)
    # The comparison would notice: without a share that is not counted, windows see too little at their borders.
    if size[1] > 128:
        assert not np.array_equal(_predict(segmenter, source, window=128, overlap=0), whole)


def _changes(classes, places):
    """Return the share of neighboring pixels of different classes across these borders between rows and between columns."""
    return np.mean([(turned[:, places - 1] != turned[:, places]).mean() for turned in (classes, classes.T)])


def test_a_network_that_pools_over_its_window_leaves_no_borders(tmp_path):
    """Classes change no more often where windows meet than elsewhere; cut in the middle of the overlap, they do."""
    size, window, overlap = 1024, 256, 128
    generator = np.random.default_rng(0)
    field = sum(
        noise / noise.std()
        for noise in (gaussian_filter(generator.normal(size=(size, size)), sigma) for sigma in (5, 120))
    )
    image = np.repeat((128 + 25 * field).clip(1, 255).astype(np.uint8)[..., None], 3, axis=2)
    segmenter = GlobalSegmenter()
    blended = _predict(segmenter, _write_image(tmp_path / "a.tif", image), window=window, overlap=overlap)
    windows = spans(size, window=window, overlap=overlap)
    cut = np.zeros_like(blended)
    for row in windows:
        for column in windows:
            top, left = (overlap // 2 if span.start else 0 for span in (row, column))
            seen = predict_image(
                segmenter, np.ascontiguousarray(image[row.start : row.stop, column.start : column.stop])
            )
            cut[row.start + top : row.stop, column.start + left : column.stop] = seen[top:, left:]
    middles = np.array([span.start + overlap // 2 for span in windows[1:]])
    ends = np.concatenate([middles - overlap // 4, middles + overlap // 4])  # of the ramps
    elsewhere = np.setdiff1d(np.arange(1, size), (middles[:, None] + np.arange(-64, 64)).ravel())
    assert _changes(cut, middles) > 2.5 * _changes(cut, elsewhere)
    assert _changes(blended, middles) < 1.25 * _changes(blended, elsewhere)
    assert _changes(blended, ends) < 1.25 * _changes(blended, elsewhere)


def test_the_prediction_lies_where_its_source_lies_with_colors_and_names(tmp_path):
    source = _write_image(tmp_path / "a.tif", _random_image(100, 90))
    destination = tmp_path / "out" / "classes.tif"
    predict_raster(
        PixelwiseSegmenter(), source, destination, palette=PALETTE, classes=tuple("abcde"), window=64, overlap=0
    )
    with rasterio.open(destination) as reader:
        assert (reader.crs, reader.transform, reader.shape) == (CRS, TRANSFORM, (100, 90))
        assert (reader.count, reader.dtypes, reader.nodata) == (1, ("uint8",), 255)
        assert [reader.colormap(1)[index] for index in range(5)] == [(*color, 255) for color in PALETTE]
        assert reader.tags(1)["CLASS_3"] == "d"


def test_a_large_prediction_is_cloud_optimized_and_says_what_made_it(tmp_path):
    image = _random_image(1100, 700)
    source, destination = _write_image(tmp_path / "a.tif", image), tmp_path / "b.tif"
    predict_raster(
        PixelwiseSegmenter().eval(),
        source,
        destination,
        palette=PALETTE,
        classes=tuple("abcd&"),
        made_by={"model": "some_net", "software": "segda 0"},
    )
    with rasterio.open(destination) as reader:
        assert reader.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert reader.block_shapes == [(512, 512)]
        assert reader.overviews(1) == [2, 4]
        tags = reader.tags()
        assert (tags["SEGDA_MODEL"], tags["SEGDA_SOFTWARE"], tags["SEGDA_STRETCH"]) == ("some_net", "segda 0", "none")
        assert (tags["SEGDA_BANDS"], tags["SEGDA_WINDOW"]) == ("1, 2, 3", "512")
        assert len(tags["SEGDA_WEIGHTS_SHA256"]) == 64
        assert reader.descriptions == ("class",)
        classes, half = reader.read(1), reader.read(1, out_shape=(550, 350))
    # Overviews are made of the classes that are there, the most frequent one of four pixels; where there is a single one.
    four = np.sort(classes.reshape(550, 2, 350, 2).transpose(0, 2, 1, 3).reshape(550, 350, 4))
    sure = (four[..., 1] == four[..., 2]) & ((four[..., 0] == four[..., 1]) | (four[..., 2] == four[..., 3]))
    assert np.array_equal(half[sure], four[..., 1][sure])
    assert "<Category>d</Category>\n      <Category>&amp;</Category>" in (tmp_path / "b.tif.aux.xml").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif", "b.tif.aux.xml"]


def test_confidence_is_the_probability_in_per_cent(tmp_path):
    image = _random_image(60, 70)
    image[5:9, 5:9] = 0
    source, destination = _write_image(tmp_path / "a.tif", image, nodata=0), tmp_path / "b.tif"
    segmenter = PixelwiseSegmenter().eval()
    predict_raster(segmenter, source, destination, palette=PALETTE, with_confidence=True, window=48, overlap=16)
    with rasterio.open(confidence_path(destination)) as reader:
        confidence = reader.read(1)
        assert (reader.nodata, reader.scales, reader.crs, reader.transform) == (255, (0.01,), CRS, TRANSFORM)
    normalized = (image / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    logits = normalized @ segmenter.weight.detach().double().numpy().T
    probs = np.exp(logits - logits.max(axis=2, keepdims=True))
    expected = 100 * (probs / probs.sum(axis=2, keepdims=True)).max(axis=2)
    valid = (image > 0).any(axis=2)
    assert np.abs(confidence[valid] - expected[valid]).max() < 0.51
    assert (confidence[~valid] == 255).all()


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


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_what_the_file_holds_without_data_changes_nothing_beside_it(tmp_path, kind):
    image = _random_image(192, 256).astype(kind)
    hole = np.zeros((192, 256), bool)
    hole[40:150, 60:160] = True
    predictions = []
    for number, filled in enumerate((7, 250) if kind is np.uint8 else (-9999, np.nan)):
        image[hole] = filled
        source = _write_image(tmp_path / f"{number}.tif", image, nodata=-9999 if filled == -9999 else None)
        if kind is np.uint8:
            with rasterio.open(source, "r+") as raster:
                raster.write_mask(~hole)
        bands_of = image_bands if kind is np.uint8 else bands_as_told(image_bands, stretch=Stretch(0, 255))
        predictions.append(_predict(LocalSegmenter(), source, window=128, overlap=64, bands_of=bands_of))
    assert np.array_equal(predictions[0] == 255, hole)
    assert np.array_equal(*predictions)
    image[hole] = (124, 116, 104)  # ImageNet's mean, which is what lies beyond the border of an image, too
    assert np.array_equal(predictions[0][~hole], predict_image(LocalSegmenter(), image.astype(np.uint8))[~hole])


def test_16_bits_are_predicted_as_they_are_stretched(tmp_path):
    image = _random_image(70, 90)
    source = _write_image(tmp_path / "a.tif", image.astype(np.uint16) * 10 + 100)
    bands_of = bands_as_told(image_bands, stretch=Stretch(100, 2650))
    found = _predict(PixelwiseSegmenter().eval(), source, window=64, overlap=0, bands_of=bands_of)
    assert np.array_equal(found, predict_image(PixelwiseSegmenter().eval(), image))
    with rasterio.open(tmp_path / "prediction.tif") as reader:
        assert reader.tags()["SEGDA_STRETCH"] == "[[100.0, 2650.0], [100.0, 2650.0], [100.0, 2650.0]]"


SAMPLES = Path(__file__).parents[2] / ".." / "shared"


@pytest.mark.parametrize("name", ["rgb.tif", "bgr.tif"])
def test_files_from_outside_are_predicted_in_their_colors(tmp_path, name):
    source = SAMPLES / "cases" / name
    if not source.is_file():
        pytest.skip(f"needs a GeoTIFF; there is none at {source}")
    predict_raster(PixelwiseSegmenter().eval(), source, tmp_path / "out.tif", palette=PALETTE)
    with rasterio.open(tmp_path / "out.tif") as reader, rasterio.open(SAMPLES / "cases" / "rgb.tif") as rgb:
        expected = predict_image(PixelwiseSegmenter().eval(), np.ascontiguousarray(rgb.read().transpose(1, 2, 0)))
        assert np.array_equal(reader.read(1), expected)


@pytest.mark.parametrize("name", ["RGB.byte.tif", "RGBA.byte.tif", "rgb3.tif", "world.rgb.tif"])
def test_rasters_from_outside_keep_coordinates_and_what_has_no_data(tmp_path, name):
    source = SAMPLES / "data" / "geotiff_samples" / "rasterio" / name
    if not source.is_file():
        pytest.skip(f"needs a GeoTIFF; there is none at {source}")
    predict_raster(PixelwiseSegmenter().eval(), source, tmp_path / "out.tif", palette=PALETTE, window=256, overlap=64)
    with rasterio.open(tmp_path / "out.tif") as reader, rasterio.open(source) as original:
        assert (reader.crs, reader.transform, reader.shape) == (original.crs, original.transform, original.shape)
        assert np.array_equal(reader.read(1) == 255, original.dataset_mask() == 0)


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
        (np.ones((3, 40, 40), np.uint16), "uint16.*--stretch"),
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


def test_a_truncated_raster_has_no_prediction(tmp_path):
    source = _write_image(tmp_path / "a.tif", _random_image(300, 300))
    source.write_bytes(source.read_bytes()[:200_000])
    with pytest.raises(CorruptSampleError, match=r"a\.tif"):
        _predict(PixelwiseSegmenter(), source, window=64, overlap=0)
    # What was finished before the damage is kept: the next attempt may be able to read further.
    assert {path.name for path in tmp_path.iterdir()} == {"a.tif", ".prediction.tif.work"}


class Interruption:
    """Ends a prediction when so many windows are done."""

    def __init__(self, after):
        self.after = after

    def __call__(self, done, total=None, text=None):
        if done == self.after:
            raise KeyboardInterrupt


def _small_network():
    torch.manual_seed(0)
    return FastSCNN(FastSCNN.Config(), num_classes=5).eval()


# The raster has five rows and four columns of windows.
SETTINGS = {"palette": PALETTE, "window": 128, "overlap": 64, "batch_size": 3, "with_confidence": True}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    source = _write_image(folder / "a.tif", _random_image(400, 330))
    predict_raster(_small_network(), source, folder / "out.tif", **SETTINGS)
    return folder


def _contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("out*")}


@pytest.mark.parametrize("after", [1, 7, 8, 9, 16, 20])
def test_an_interrupted_prediction_leaves_the_old_one_and_ends_with_the_same_bytes(tmp_path, uninterrupted, after):
    source, destination = uninterrupted / "a.tif", tmp_path / "out.tif"
    destination.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        predict_raster(_small_network(), source, destination, progress=Interruption(after), **SETTINGS)
    assert destination.read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"out.tif"} | ({".out.tif.work"} if after > 4 else set())
    told = []
    predict_raster(
        _small_network(), source, destination, progress=lambda done, total, text: told.append(done), **SETTINGS
    )
    # It goes on with the strip that was not finished, for which it needs the row of windows above once more.
    assert told[0] == max(0, (after - 1) // 4 - 1) * 4 + 1
    assert _contents(tmp_path) == _contents(uninterrupted)
    assert not (tmp_path / ".out.tif.work").exists()


def test_a_kill_while_the_output_is_written_costs_no_prediction(tmp_path, uninterrupted, monkeypatch):
    source, destination = uninterrupted / "a.tif", tmp_path / "out.tif"

    def killed(*_, **__):
        (tmp_path / ".out.tif.0-0123abcd.partial").write_bytes(b"half")  # as after SIGKILL
        (tmp_path / ".out.tif.0-0123abcd.partial.ovr.tmp").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("segda.raster.write_cog", killed)
        with pytest.raises(KeyboardInterrupt):
            predict_raster(_small_network(), source, destination, **SETTINGS)
    told = []
    predict_raster(
        _small_network(), source, destination, progress=lambda done, total, text: told.append(text), **SETTINGS
    )
    assert told == ["a.tif, writing"]
    assert _contents(tmp_path) == _contents(uninterrupted)
    assert {path.name for path in tmp_path.iterdir()} == set(_contents(tmp_path))


def test_a_killed_process_goes_on_with_the_same_bytes(tmp_path, uninterrupted):
    program = f"""
import os, pickle, signal, sys
from pathlib import Path
import torch
from segda.models.fast_scnn import FastSCNN
from segda.raster import predict_raster

def kill(done, total=None, text=None):
    if done == 14:
        os.kill(os.getpid(), signal.SIGKILL)

torch.manual_seed(0)
torch.set_num_threads({torch.get_num_threads()})
network = FastSCNN(FastSCNN.Config(), num_classes=5).eval()
predict_raster(network, Path(sys.argv[1]), Path(sys.argv[2]), progress=kill, **{SETTINGS!r})
"""
    source, destination = uninterrupted / "a.tif", tmp_path / "out.tif"
    words = [sys.executable, "-c", program, str(source), str(destination)]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".out.tif.work"]
    predict_raster(_small_network(), source, destination, **SETTINGS)
    assert _contents(tmp_path) == _contents(uninterrupted)


@pytest.mark.parametrize("change", ["weights", "overlap", "input", "stretch"])
def test_a_changed_input_network_or_setting_begins_anew_and_says_so(tmp_path, uninterrupted, caplog, change):
    source, destination = tmp_path / "a.tif", tmp_path / "out.tif"
    shutil.copy(uninterrupted / "a.tif", source)
    with pytest.raises(KeyboardInterrupt):
        predict_raster(_small_network(), source, destination, progress=Interruption(10), **SETTINGS)
    network, settings = _small_network(), dict(SETTINGS)
    if change == "weights":
        with torch.no_grad():
            next(network.parameters()).mul_(1.01)
    elif change == "overlap":
        settings["overlap"] = 63
    elif change == "stretch":
        settings["bands_of"] = bands_as_told(image_bands, stretch=Stretch(0, 200))
    else:
        os.utime(source, (1, 1))
    told = []
    predict_raster(network, source, destination, progress=lambda done, total, text: told.append(done), **settings)
    assert told[0] == 1
    name = {"weights": "SEGDA_WEIGHTS_SHA256", "overlap": "SEGDA_OVERLAP", "input": "input", "stretch": "SEGDA_STRETCH"}
    assert f"({name[change]}): it begins anew" in caplog.text


def test_two_processes_do_not_write_one_prediction(tmp_path):
    source, destination = _write_image(tmp_path / "a.tif", _random_image(64, 64)), tmp_path / "out.tif"

    def predict_again(done, total, text):
        with pytest.raises(ConfigError, match=r"another process is at work on .*\.out\.tif\.work"):
            predict_raster(PixelwiseSegmenter(), source, destination, palette=PALETTE)

    predict_raster(PixelwiseSegmenter(), source, destination, palette=PALETTE, progress=predict_again)
    assert destination.exists()


def test_a_raster_is_never_replaced_by_its_own_prediction(tmp_path):
    source = _write_image(tmp_path / "a.tif", _random_image(40, 40))
    with pytest.raises(ConfigError, match="its own input"):
        predict_raster(PixelwiseSegmenter(), source, source, palette=PALETTE)
    source = source.rename(tmp_path / "b_confidence.tif")
    with pytest.raises(ConfigError, match="its own input"):
        predict_raster(PixelwiseSegmenter(), source, tmp_path / "b.tif", palette=PALETTE, with_confidence=True)


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
        assert all(batch <= 2 and max(size) < 256 + 64 for batch, _, *size in segmenter.seen)
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
