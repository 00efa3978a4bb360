"""Files of arrays that a training leaves, written whole and read without trust."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from segda.files import replacing

_Content = TypeVar("_Content")


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write arrays by name to a file, which is replaced.

    Args:
        path: the file.
        **arrays: what to write.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_arrays(path: Path, build: Callable[[Mapping[str, Any]], _Content]) -> _Content:
    """Read what `write_arrays` wrote.

    Args:
        path: the file.
        build: makes of its arrays what is returned.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            return build(content)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not what a training writes ({type(error).__name__}); train again") from error
