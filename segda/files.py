"""Files that are there completely or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


@contextmanager
def replacing(destination: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder that takes the destination's place once the block has succeeded.

    Args:
        destination: file to write or replace; missing folders are made.

    Yields:
        The path to write to. Nothing is left of it when the block fails or is interrupted.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(f".{destination.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(destination)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8, completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write plain data as indented JSON, completely or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_png(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    """Write an RGB picture, uint8 [H, W, 3], as PNG, completely or not at all."""
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
