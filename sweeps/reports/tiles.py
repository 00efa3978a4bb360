"""Small pictures as data URIs: photos, maps of classes, and maps of shares, no wider than a page shows them."""

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from segda.pictures import Palette, color_table, legend
from segda.types import Pixels

_WIDTH = 320  # pixels; larger pictures are made as small
_LEGEND_WIDTH = 340  # fits a phone
_QUALITY = 80


def photo_uri(image: Pixels) -> str:
    """Return an image, RGB, uint8 [H, W, 3], as a JPEG."""
    return _uri(_fitted(Image.fromarray(image), Image.Resampling.BOX), "JPEG", quality=_QUALITY)


def map_uri(label: Pixels, palette: Palette) -> str:
    """Return train ids, uint8 [H, W], in class colors as a PNG; void is black."""
    picture = Image.fromarray(np.ascontiguousarray(label))
    picture.putpalette(color_table(palette).tobytes())
    return _uri(_fitted(picture, Image.Resampling.NEAREST), "PNG", optimize=True)


def share_uri(share: npt.NDArray[np.float32]) -> str:
    """Return shares in [0, 1], float32 [H, W], as a gray JPEG: 0 is black, 1 is white."""
    gray = np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)
    return _uri(_fitted(Image.fromarray(gray), Image.Resampling.BOX), "JPEG", quality=_QUALITY)


def legend_uri(palette: Palette, classes: Sequence[str]) -> str:
    """Return the classes beside their colors as a PNG."""
    return _uri(Image.fromarray(legend(palette, classes, width=_LEGEND_WIDTH)), "PNG", optimize=True)


def _fitted(picture: Image.Image, resample: Image.Resampling) -> Image.Image:
    if picture.width <= _WIDTH:
        return picture
    return picture.resize((_WIDTH, max(1, round(picture.height * _WIDTH / picture.width))), resample)


def _uri(picture: Image.Image, kind: str, **options: int) -> str:
    content = io.BytesIO()
    picture.save(content, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
