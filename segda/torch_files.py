"""Files that `torch.save` wrote, whose bytes are compared with their checksums before they are believed.

Such a file is a ZIP archive with a CRC-32 of every entry. PyTorch writes these and never looks at them: a bit that a disk or a copy
has turned around would be a slightly different weight. 100 MB take 40 ms.
"""

import errno
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

_CHUNK = 1 << 20
_FOLDER = 0x10  # an attribute of an entry


def read_torch_file(path: Path) -> Any:
    """Read tensors and plain data onto the CPU.

    Args:
        path: file of PyTorch 1.6 or later, or an older one, which has no checksums.

    Raises:
        OSError: the file is missing, cannot be opened, or its disk fails.
        ValueError: its bytes are not those that were written, or it holds something else; the message says which.
    """
    # Opened once: what takes its place meanwhile has not been verified.
    with _opened(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kinds of files that are refused in a moment
        if zipfile.is_zipfile(file):
            _verify(file)
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)


def verify_torch_file(path: Path) -> None:
    """Compare the bytes of a file with their checksums, and keep nothing of it in memory.

    Args:
        path: file of PyTorch 1.6 or later.

    Raises:
        OSError: the file is missing, cannot be opened, or its disk fails.
        ValueError: its bytes are not those that were written; the message says more.
    """
    with _opened(path) as file:
        _verify(file)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if path.exists() and not path.is_file():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))  # a pipe would be waited for
    with path.open("rb") as file:
        try:
            yield file
        except MemoryError:
            raise
        # What is no such file makes its reader raise nearly anything.
        except Exception as error:
            # A disk that fails says nothing about the content; a position that does not exist comes from it.
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            raise ValueError(_reason(error)) from None


def _verify(file: IO[bytes]) -> None:
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.external_attr & _FOLDER:
                # No checksum covers this bit, for which PyTorch reads nothing and returns whatever was in memory.
                raise ValueError(f"its entry {entry.filename} is marked as a folder")
            with archive.open(entry) as content:
                while content.read(_CHUNK):
                    pass


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error):
        return "it holds other things than tensors and plain data"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
