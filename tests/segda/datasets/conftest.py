"""Miniature trees in the layouts in which the data sets are distributed, and the real CamVid where it is at hand."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

HEIGHT, WIDTH = 12, 16
REPOSITORY = Path(__file__).parents[3]

CAMVID_FRAMES = {
    "train": ("0001TP_006690", "0006R0_f00930", "0016E5_00390"),
    "val": ("0016E5_07959",),
    "test": ("0001TP_008550", "Seq05VD_f00000"),
}


def write_image(path: Path, *, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def write_label(path: Path, values: np.ndarray | list[int]) -> np.ndarray:
    """Write indices (a flat list is repeated over the label's pixels) or colors [H, W, 3]."""
    pixels = np.asarray(values, dtype=np.uint8)
    if pixels.ndim == 1:
        pixels = np.resize(pixels, (HEIGHT, WIDTH))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def write_colors(path: Path, colors: list[tuple[int, int, int]]) -> np.ndarray:
    return write_label(path, np.resize(np.asarray(colors, dtype=np.uint8), (HEIGHT, WIDTH, 3)))


def raw_png(row: bytes, *, bits: int, table: list[tuple[int, int, int]] | None = None) -> bytes:
    """Return a PNG of one row, gray or with a color table, that holds what libraries would not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", len(row) * 8 // bits, 1, bits, 0 if table is None else 3, 0, 0, 0)
    palette = b"" if table is None else chunk(b"PLTE", bytes(part for color in table for part in color))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + pixels + chunk(b"IEND", b"")


def build_segnet(root: Path) -> Path:
    for split, frames in CAMVID_FRAMES.items():
        for number, frame in enumerate(frames):
            write_image(root / split / f"{frame}.png", seed=number)
            write_label(root / f"{split}annot" / f"{frame}.png", list(range(12)))
    return root


def build_color_folders(root: Path) -> Path:
    from segda.datasets.camvid import COLORS

    for split, frames in CAMVID_FRAMES.items():
        for number, frame in enumerate(frames):
            write_image(root / split / f"{frame}.png", seed=number)
            write_colors(root / f"{split}_labels" / f"{frame}_L.png", list(COLORS.values()))
    return root


def build_original(root: Path) -> Path:
    from segda.datasets.camvid import COLORS

    for split, frames in CAMVID_FRAMES.items():
        for number, frame in enumerate(frames):
            write_image(root / "701_StillsRaw_full" / f"{frame}.png", seed=number)
            write_colors(root / "LabeledApproved_full" / f"{frame}_L.png", list(COLORS.values()))
        (root / f"{split}.txt").write_text("".join(f"{frame}.png\n" for frame in frames))
    return root


def build_cityscapes(root: Path) -> Path:
    for split, cities in {"train": ("aachen", "bochum"), "val": ("lindau",), "test": ("berlin",)}.items():
        for city in cities:
            for number in range(2):
                name = f"{city}_00000{number}_000019"
                write_image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", seed=number)
                folder = root / "gtFine" / split / city
                # Labels of the test split lie there as well, and say nothing.
                ids = list(range(34)) if split != "test" else [0]
                write_label(folder / f"{name}_gtFine_labelIds.png", ids)
                write_label(folder / f"{name}_gtFine_labelTrainIds.png", [0])
                write_label(folder / f"{name}_gtFine_instanceIds.png", [0])
                write_image(folder / f"{name}_gtFine_color.png")
                (folder / f"{name}_gtFine_polygons.json").write_text("{}")
    return root


def write_indexed(path: Path, ids: list[int], table: list[tuple[int, int, int]]) -> np.ndarray:
    """Write a PNG of ids with a color table."""
    pixels = np.resize(np.asarray(ids, dtype=np.uint8), (HEIGHT, WIDTH))
    image = Image.fromarray(pixels)
    image.putpalette([part for color in table for part in color])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return pixels


def build_gta5(root: Path) -> Path:
    from segda.datasets.cityscapes import IDS, PALETTE

    # As published: several ids are black, and the colors of others are those of the 19 classes.
    table = [PALETTE[IDS[number]] if IDS[number] != 255 else (0, 0, 0) for number in range(35)]
    for number in (1, 2, 90, 15188, 20803, 24966):
        write_image(root / "images" / f"{number:05d}.png", seed=number)
        write_indexed(root / "labels" / f"{number:05d}.png", list(range(35)), table)
    return root


def write_deep(path: Path, channels: np.ndarray) -> None:
    """Write a PNG of 16 bits per channel, uint16 [H, W, 3] in the order red, green, blue."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), channels[..., ::-1].astype(np.uint16))


def build_synthia(root: Path) -> Path:
    for number in (0, 1, 90, 9399):
        write_image(root / "RGB" / f"{number:07d}.png", seed=number)
        ids = np.resize(np.arange(23), (HEIGHT, WIDTH))
        objects = np.resize(np.arange(1000, 1040), (HEIGHT, WIDTH))
        write_deep(root / "GT" / "LABELS" / f"{number:07d}.png", np.stack([ids, objects, objects * 0], axis=2))
        write_image(root / "GT" / "COLOR" / f"{number:07d}.png")
    return root


def build_idda(root: Path) -> Path:
    for number in range(12):
        write_image(root / "rgb" / f"@{number}@.jpg", seed=number)
        red = np.resize(np.arange(27, dtype=np.uint8), (HEIGHT, WIDTH))
        write_label(root / "labels" / f"@{number}@.png", np.stack([red, red * 0 + 7, red * 0 + 9], axis=2))
    return root


def build_loveda(root: Path) -> Path:
    for split, numbers in {"Train": (2, 10, 9), "Val": (30, 4), "Test": (50,)}.items():
        for domain in ("Urban", "Rural"):
            for number in numbers:
                write_image(root / split / domain / "images_png" / f"{number}.png", seed=number)
                if split != "Test":
                    write_label(root / split / domain / "masks_png" / f"{number}.png", list(range(8)))
    return root


@pytest.fixture
def segnet(tmp_path: Path) -> Path:
    return build_segnet(tmp_path / "segnet")


@pytest.fixture
def color_folders(tmp_path: Path) -> Path:
    return build_color_folders(tmp_path / "colors")


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return build_original(tmp_path / "original")


@pytest.fixture
def loveda_root(tmp_path: Path) -> Path:
    return build_loveda(tmp_path / "loveda")


@pytest.fixture
def miniature(tmp_path: Path) -> Callable[[str], Path]:
    """Build a small tree of the named data set."""
    builders = {
        "camvid": build_segnet,
        "camvid12": build_color_folders,
        "cityscapes": build_cityscapes,
        "gta5": build_gta5,
        "idda": build_idda,
        "loveda": build_loveda,
        "scenes": build_loveda,
        "synthia": build_synthia,
    }

    def build(name: str) -> Path:
        assert name in builders, f"data set {name} has no miniature: add its layout to this file"
        return builders[name](tmp_path / name)

    return build


@pytest.fixture(scope="session")
def real_camvid() -> Path:
    root = Path(os.environ.get("SEGDA_CAMVID_ROOT", REPOSITORY / "../shared/data/camvid"))
    if not (root / "trainannot").is_dir():
        pytest.skip(f"needs CamVid in SegNet's layout; there is none in {root} (set SEGDA_CAMVID_ROOT)")
    return root


@pytest.fixture(scope="session")
def real_loveda_tiles() -> Path:
    root = REPOSITORY / "../shared/data/loveda_samples"
    if not root.is_dir():
        pytest.skip(f"needs LoveDA tiles; there are none in {root}")
    return root
