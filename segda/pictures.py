"""Pictures for people: label maps in class colors, rows of examples, predictions laid over images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from segda.files import replacing
from segda.types import IGNORE_INDEX

ByteArray = npt.NDArray[np.uint8]
Palette = Sequence[tuple[int, int, int]]

VOID_COLOR = (0, 0, 0)
_WHITE = 255
_GUTTER = 4  # pixels of white between pictures
_FONT_SIZE = 12  # pixels; the default font's labels stay legible next to 128 pixel images
_SWATCH = 12  # side of a color square of the legend in pixels


def color_table(palette: Palette) -> ByteArray:
    """Return one color for each of the 256 values that a label map can hold.

    Args:
        palette: RGB color of each train id.

    Returns:
        uint8 [256, 3]; every id outside the palette, void among them, is black.

    Raises:
        ValueError: if the palette has more than 255 colors or one is not within 0..255.
    """
    if len(palette) > IGNORE_INDEX:
        raise ValueError(f"a label map holds at most {IGNORE_INDEX} classes, got a palette of {len(palette)}")
    table = np.full((256, 3), VOID_COLOR, dtype=np.uint8)
    if len(palette) > 0:
        colors = np.asarray(palette, dtype=np.int64)
        if colors.ndim != 2 or colors.shape[1] != 3 or colors.min() < 0 or colors.max() > 255:
            raise ValueError(f"a palette is a list of (red, green, blue) within 0..255, got {list(palette)}")
        table[: len(colors)] = colors.astype(np.uint8)
    return table


def colorize(label: ByteArray, palette: Palette) -> ByteArray:
    """Paint a label map in class colors.

    Args:
        label: train ids, uint8 [H, W]; 255 is void.
        palette: RGB color of each train id.

    Returns:
        uint8 [H, W, 3]; void and ids outside the palette are black.

    Example:
        >>> colorize(np.array([[1, 255]], dtype=np.uint8), [(9, 9, 9), (128, 64, 128)]).tolist()
        [[[128, 64, 128], [0, 0, 0]]]
    """
    painted: ByteArray = color_table(palette)[label]
    return painted


def overlay(image: ByteArray, prediction: ByteArray, palette: Palette, alpha: float = 0.5) -> ByteArray:
    """Lay a prediction over its image; void pixels show the image unchanged.

    Args:
        image: RGB, uint8 [H, W, 3].
        prediction: train ids, uint8 [H, W].
        palette: RGB color of each train id.
        alpha: share of the class color, 0 (image only) to 1 (colors only).

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: if alpha lies outside [0, 1] or the sizes differ.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha is a share within [0, 1], got {alpha}")
    if image.shape[:2] != prediction.shape:
        raise ValueError(f"image {image.shape[:2]} and prediction {prediction.shape} differ in size")
    share = np.where(prediction < len(palette), np.float32(alpha), np.float32(0))[..., None]
    mixed = (1 - share) * image.astype(np.float32) + share * colorize(prediction, palette).astype(np.float32)
    rounded: ByteArray = np.rint(mixed).astype(np.uint8)
    return rounded


def example_grid(
    images: ByteArray,
    labels: ByteArray | None,
    predictions: ByteArray,
    *,
    palette: Palette,
    classes: Sequence[str],
) -> ByteArray:
    """Draw one row per example, image | label | prediction, above a legend of the classes.

    Args:
        images: RGB, uint8 [N, H, W, 3], N >= 1.
        labels: train ids, uint8 [N, H, W]; None draws image | prediction.
        predictions: train ids, uint8 [N, H, W].
        palette: RGB color of each train id.
        classes: name of each train id.

    Returns:
        uint8 [height, width, 3]: captions, N rows separated by white gutters, legend.

    Raises:
        ValueError: if there is nothing to draw or the sizes or the numbers of names and colors differ.
    """
    if len(images) == 0:
        raise ValueError("a grid of examples needs at least one image")
    if len(palette) != len(classes):
        raise ValueError(f"one color per class is needed, got {len(palette)} colors for {len(classes)} classes")
    for what, maps in (("labels", labels), ("predictions", predictions)):
        if maps is not None and maps.shape != images.shape[:3]:
            raise ValueError(f"images {images.shape[:3]} and {what} {maps.shape} differ in number or size")

    columns: list[tuple[str, ByteArray]] = [("image", images)]
    if labels is not None:
        columns.append(("label", colorize(labels, palette)))
    columns.append(("prediction", colorize(predictions, palette)))

    count, height, width = predictions.shape
    total_width = _GUTTER + len(columns) * (width + _GUTTER)
    captions = _captions([name for name, _ in columns], cell=width + _GUTTER, width=total_width)
    body = np.full((count * (height + _GUTTER), total_width, 3), _WHITE, dtype=np.uint8)
    for column, (_, pictures) in enumerate(columns):
        left = _GUTTER + column * (width + _GUTTER)
        for row, picture in enumerate(pictures):
            top = row * (height + _GUTTER)
            body[top : top + height, left : left + width] = picture
    return np.concatenate([captions, body, legend(palette, classes, width=total_width)])


def legend(palette: Palette, classes: Sequence[str], *, width: int) -> ByteArray:
    """Draw a strip of color squares with class names, void last, wrapped to a width.

    Args:
        palette: RGB color of each train id.
        classes: name of each train id.
        width: width of the strip in pixels; a single longer name is cut off.

    Returns:
        uint8 [height, width, 3] on white.
    """
    font = _font()
    line = _SWATCH + _GUTTER
    places: list[tuple[int, int, tuple[int, int, int], str]] = []
    left, top = _GUTTER, _GUTTER
    for color, name in [*zip(palette, classes, strict=True), (VOID_COLOR, "void")]:
        advance = _SWATCH + _GUTTER + int(np.ceil(font.getlength(name))) + 2 * _GUTTER
        if left > _GUTTER and left + advance > width:
            left, top = _GUTTER, top + line
        places.append((left, top, color, name))
        left += advance
    canvas = Image.new("RGB", (width, top + line), "white")
    draw = ImageDraw.Draw(canvas)
    for left, top, color, name in places:
        draw.rectangle((left, top, left + _SWATCH - 1, top + _SWATCH - 1), fill=tuple(color), outline="gray")
        draw.text((left + _SWATCH + _GUTTER, top - 2), name, fill="black", font=font)
    return np.asarray(canvas, dtype=np.uint8)


def _captions(names: Sequence[str], *, cell: int, width: int) -> ByteArray:
    """Draw the columns' names, uint8 [height, width, 3]."""
    height = _FONT_SIZE + 2 * _GUTTER
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    for column, name in enumerate(names):
        draw.text((_GUTTER + column * cell, _GUTTER - 2), name, fill="black", font=_font())
    return np.asarray(canvas, dtype=np.uint8)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_FONT_SIZE)


def write_png(path: Path, picture: Image.Image) -> None:
    """Write a picture as PNG, completely or not at all; see `segda.files.replacing`."""
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")
