"""Arrays of bytes in .npy files, larger than memory: written piece by piece, then compared with a checksum."""

import os
import zlib
from pathlib import Path
from typing import Self

import numpy as np

from segda.types import Pixels

_CHUNK = 1 << 20


class ArrayFile:
    """A .npy file of uint8 in the making, whose items are written by several threads.

    Plain writes instead of a memory map: a full disk is then an OSError and not a bus error that kills the process.

    Attributes:
        path: where it is.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], *, is_there: bool = False) -> None:
        """Make the file, or go on with it.

        Args:
            path: where nothing is yet.
            shape: of the whole array; the first axis counts items.
            is_there: whether the file is there, of the same shape, with some items in it, which stay.
        """
        self.path = path
        self._shape = shape
        self._file = path.open("r+b" if is_there else "xb")

    def __enter__(self) -> Self:
        header = {"descr": "|u1", "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._file.flush()
        self._start = self._file.tell()
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self.flush()

    def write(self, index: int, item: Pixels) -> None:
        """Write one item, uint8 of the array's shape without its first axis."""
        assert item.shape == self._shape[1:]
        assert item.dtype == np.uint8
        remaining = np.ascontiguousarray(item).data.cast("B")
        offset = self._start + index * item.size
        while remaining:
            written = os.pwrite(self._file.fileno(), remaining, offset)
            remaining = remaining[written:]
            offset += written

    def flush(self) -> None:
        """Return when a loss of power cannot take away any more what was written."""
        os.fsync(self._file.fileno())


def checksum(path: Path) -> int:
    """Return the CRC-32 of a file; 2 GB take a second.

    Plain reads here as well: a disk that fails is an OSError.
    """
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found = zlib.crc32(chunk, found)
    return found
