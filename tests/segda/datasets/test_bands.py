"""Red, green and blue are taken where a TIFF says that they are, in training and prediction."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from segda.datasets.bands import image_bands
from segda.datasets.reading import read_image
from segda.errors import CorruptSampleError

# What each band holds, so that the result says which was taken.
LEVELS = {"red": 200, "green": 90, "blue": 30, "nir": 250, "alpha": 255, "undefined": 7, "gray": 7, "cyan": 7}
RGB = [200, 90, 30]


def write(
    path: Path, tags: list[str], *, descriptions: list[str | None] | None = None, levels: list[int] | None = None
) -> Path:
    bands = np.array(levels or [LEVELS[tag] for tag in tags], np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8)
    profile = {"driver": "GTiff", "height": 8, "width": 8, "dtype": "uint8", "photometric": "MINISBLACK"}
    with rasterio.open(path, "w", count=len(bands), transform=rasterio.Affine(1, 0, 5, 0, -1, 5), **profile) as raster:
        raster.colorinterp = [ColorInterp[tag] for tag in tags]
        raster.write(bands)
        if descriptions is not None:
            raster.descriptions = descriptions
    return path


@pytest.mark.parametrize(
    "tags",
    [
        ["red", "green", "blue"],
        ["blue", "green", "red"],
        ["nir", "red", "green", "blue"],
        ["undefined", "undefined", "blue", "green", "red", "undefined"],
        ["alpha", "blue", "green", "red"],
        ["red", "green", "blue", "nir"],
    ],
)
def test_tagged_bands_are_taken_wherever_they_are(tmp_path: Path, tags: list[str]) -> None:
    assert read_image(write(tmp_path / "a.tif", tags))[0, 0].tolist() == RGB


@pytest.mark.parametrize("count", [3, 4, 6])
def test_without_tags_the_first_three_bands_are_taken(tmp_path: Path, count: int) -> None:
    levels = [200, 90, 30, 1, 2, 3][:count]
    path = write(tmp_path / "a.tif", ["gray", *["undefined"] * (count - 1)], levels=levels)
    assert read_image(path)[0, 0].tolist() == RGB


@pytest.mark.parametrize(
    "words",
    [["blue", "green", "red"], ["Blue", " GREEN", "Red "], ["b", "G", "r"], ["B2 (blue)", "green_band", "Band 4: RED"]],
)
def test_descriptions_count_where_nothing_is_tagged(tmp_path: Path, words: list[str | None]) -> None:
    path = write(tmp_path / "a.tif", ["undefined"] * 3, descriptions=words, levels=[30, 90, 200])
    assert read_image(path)[0, 0].tolist() == RGB


def test_numbers_of_a_satellite_say_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ["undefined"] * 3, descriptions=["B04", "B03", "B02"], levels=RGB)
    assert read_image(path)[0, 0].tolist() == RGB


@pytest.mark.parametrize(
    ("tags", "descriptions", "message"),
    [
        (["nir", "red", "green"], None, r"must each be one band, its tags are nir, red, green;"),
        (["red", "undefined", "undefined"], None, r"its tags are red, undefined, undefined"),
        (["red", "green", "blue", "red"], None, r"its tags are red, green, blue, red"),
        (
            ["nir", "undefined", "undefined"],
            None,
            r"expected bands red, green and blue, got nir, undefined, undefined;",
        ),
        (["alpha", "undefined", "undefined", "undefined"], None, r"got alpha, undefined"),
        (["cyan", "undefined", "undefined"], None, r"got cyan"),
        (["undefined"] * 3, ["nir", "red", "green"], r"its descriptions are nir, red, green"),
        (["undefined"] * 3, ["NIR1", "Band 2", None], r"got nir, undefined, undefined"),
        (["undefined"] * 3, ["red edge", "green", "blue"], r"its descriptions are edge, green, blue"),
        (["red", "green", "blue"], ["nir", "red", "green"], r"its descriptions are nir, red, green"),
        (["red", "green", "blue"], ["blue", "green", "red"], r"are the bands 1, 2, 3, its descriptions say 3, 2, 1"),
        (["gray", "undefined"], None, r"got 2 band"),
    ],
)
def test_what_is_said_in_part_or_twice_is_refused_in_one_line(
    tmp_path: Path, tags: list[str], descriptions: list[str | None] | None, message: str
) -> None:
    path = write(tmp_path / "a.tif", tags, descriptions=descriptions)
    with pytest.raises(CorruptSampleError, match=rf"a\.tif.*{message}") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [0, 1, 3])
def test_opacity_is_found_in_any_band(tmp_path: Path, place: int) -> None:
    tags = ["red", "green", "blue"]
    tags.insert(place, "alpha")
    path = write(tmp_path / "a.tif", tags)
    with rasterio.open(path, "r+") as raster:
        alpha = np.full((8, 8), 255, np.uint8)
        alpha[2:4] = 0
        raster.write(alpha, place + 1)
    with rasterio.open(path) as raster:
        bands = image_bands(raster, path)
        np.testing.assert_array_equal(bands.valid(raster), alpha > 0)
        assert bands.read(raster)[0, 0].tolist() == RGB
