"""Numbers with a color table: decoration, the label itself, or refused."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from segda.datasets import DATASETS
from segda.datasets.camvid import COLORS
from segda.datasets.labels import Color, LabelCode
from segda.datasets.loveda import PALETTE
from segda.errors import CorruptSampleError
from segda.pictures import color_table

from .conftest import raw_png

camvid, camvid12, loveda = (DATASETS[name] for name in ("camvid", "camvid12", "loveda"))

ROAD, CAR, SKY, VOID, POLE = (COLORS[name] for name in ("Road", "Car", "Sky", "Void", "Column_Pole"))
SEGNET = [*camvid.palette, VOID]
BLACK = (0, 0, 0)
GRAYS = [(value, value, value) for value in range(256)]
VOC = [
    BLACK, (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128),
    (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128),
]  # fmt: skip
TAB10 = [(31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40)]


def write(path: Path, values: list[int], colors: list[Color]) -> Path:
    """Write a row of values with a color table, as PNG or, filled up with black as GDAL does, as TIFF."""
    row = np.array([values], np.uint8)
    if path.suffix == ".png":
        image = Image.fromarray(row)
        image.putpalette([part for color in colors for part in color])
        image.save(path)
        return path
    profile = {
        "driver": "GTiff",
        "width": len(values),
        "height": 1,
        "count": 1,
        "dtype": "uint8",
        "photometric": "PALETTE",
    }
    with rasterio.open(path, "w", transform=rasterio.Affine(1, 0, 5, 0, -1, 5), **profile) as raster:
        raster.write(row, 1)
        raster.write_colormap(1, {value: (*color, 255) for value, color in enumerate(colors)})
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(
    ("dataset", "values", "colors", "expected"),
    [
        # Colors that a program counted: in order of appearance, by frequency, filled up, with numbers that are no class's.
        (camvid, [0, 1, 2, 3], [ROAD, CAR, SKY, VOID], [3, 8, 0, 255]),
        (camvid12, [0, 1, 2, 3], [ROAD, CAR, SKY, VOID], [6, 2, 9, 11]),
        (camvid, [0, 2, 3], [SKY, CAR, ROAD, POLE, *[BLACK] * 12], [0, 3, 2]),
        (camvid, [0, 20], [ROAD, *TAB10, *GRAYS[:14], BLACK, CAR], [3, 8]),
        (loveda, [0, 1], [PALETTE[2], PALETTE[4]], [2, 4]),
        # What this library predicts is read as what it is, void included.
        (loveda, [0, 4, 6, 255], [*PALETTE, *[BLACK] * 249], [0, 4, 6, 255]),
        (camvid12, [0, 11], list(camvid12.palette), [0, 11]),
        # The data set's own colors over its own numbers.
        (camvid, [0, 4, 10, 11], SEGNET, [0, 4, 10, 255]),
        (loveda, [0, 1, 7], [BLACK, *PALETTE], [255, 0, 6]),
        # Colors that say nothing.
        (camvid, [0, 3, 11], GRAYS, [0, 3, 255]),
        (camvid, [0], GRAYS, [0]),
        (camvid, [0, 1, 3, 11], VOC, [0, 1, 3, 255]),
        (camvid, [0, 1, 2, 3], TAB10, [0, 1, 2, 3]),
        (loveda, [0, 1, 3], [BLACK, *TAB10], [255, 0, 2]),
        (loveda, [1, 3], [(200, 10, 10)] * 8, [0, 2]),
        # A gray file that an optimizer of PNGs gave a table.
        (camvid, [0, 1, 2], [GRAYS[3], GRAYS[11], GRAYS[8]], [3, 255, 8]),
        (loveda, [0, 1], [GRAYS[7], GRAYS[0]], [6, 255]),
    ],
)
def test_a_color_table_is_followed_where_it_is_the_label(
    tmp_path: Path, suffix: str, dataset, values: list[int], colors: list[Color], expected: list[int]
) -> None:
    assert dataset.decode_label(write(tmp_path / f"a{suffix}", values, colors)).tolist() == [expected]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(
    ("dataset", "values", "colors", "value"),
    [
        (camvid, [0, 1], [ROAD, CAR, *TAB10], 0),  # class colors first, others unused
        (camvid, [0, 1, 2], [ROAD, CAR, (1, 2, 3)], 0),  # a color that a program mixed
        (camvid, [0, 1], [BLACK, *TAB10], 0),  # black first, under numbers of which 0 is the sky
        (camvid, [0, 1, 2], [ROAD, ROAD, CAR], 0),  # one color twice
        (loveda, [1, 3], [(200, 10, 10), PALETTE[0], *[BLACK] * 6], 3),  # only some numbers got a color
        (loveda, [1, 3], [BLACK, PALETTE[0], *[BLACK] * 6], 3),
    ],
)
def test_an_ambiguous_table_is_refused_in_one_line(
    tmp_path: Path, suffix: str, dataset, values: list[int], colors: list[Color], value: int
) -> None:
    with pytest.raises(
        CorruptSampleError, match=rf"a{suffix}: its values and its color .* value {value} has .*; save it as RGB"
    ) as caught:
        dataset.decode_label(write(tmp_path / f"a{suffix}", values, colors))
    assert "\n" not in str(caught.value)


def test_a_value_beyond_the_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(raw_png(bytes([0, 1, 2, 9]), bits=8, table=TAB10))
    with pytest.raises(CorruptSampleError, match=r"a.png: value 9 is beyond its table of 4 colors"):
        camvid.decode_label(path)


def test_unknown_numbers_under_foreign_colors_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", [0, 12], [(1, 2, number) for number in range(13)])
    with pytest.raises(CorruptSampleError, match=r"a.tif: unknown id 12; allowed are 0..11"):
        camvid.decode_label(path)


def test_a_prediction_of_this_library_is_read_back_as_written(tmp_path: Path) -> None:
    for dataset in (camvid, camvid12, loveda):
        ids = np.array([[*range(len(dataset.classes)), 255 if dataset is not camvid12 else 0]], np.uint8)
        image = Image.fromarray(ids)
        image.putpalette(color_table(dataset.palette).tobytes())
        image.save(tmp_path / "a.png")
        np.testing.assert_array_equal(dataset.decode_label(tmp_path / "a.png"), ids)


def test_what_a_data_set_cannot_use_is_told_with_a_way_out(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "rgb.png")
    Image.new("L", (2, 2)).save(tmp_path / "gray.png")
    with pytest.raises(CorruptSampleError, match=r"rgb.png: expected one band of class indices, got colors; ask us"):
        LabelCode(ids={0: 0}, advice="ask us").read(tmp_path / "rgb.png")
    with pytest.raises(CorruptSampleError, match=r"gray.png: expected colors, got class indices; ask us"):
        LabelCode(colors={(0, 0, 0): 0}, advice="ask us").read(tmp_path / "gray.png")


def test_the_table_of_pascal_voc_is_known_to_its_end(tmp_path: Path) -> None:
    """As published, its number 255 is (224, 224, 192)."""
    code = LabelCode(ids={0: 0, 255: 255}, colors={(224, 224, 192): 0, BLACK: 1})
    colors = list(VOC)
    for number in range(len(VOC), 256):
        bits = [[number >> (3 * bit + part) & 1 for bit in range(3)] for part in range(3)]
        colors.append(tuple(128 * one + 64 * two + 32 * three for one, two, three in bits))
    assert colors[255] == (224, 224, 192)
    assert code.read(write(tmp_path / "a.png", [0, 255], colors)).tolist() == [[0, 255]]
