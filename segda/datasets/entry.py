"""What lies in the folder of one cache entry: `images.npy`, perhaps `labels.npy`, and `entry.json`, which says what they must be.

Files that were whole when they were written need not stay so: a loss of power, a disk or a copy may leave zeros, half of a file or
another bit. So an entry is compared with its checksums once in each process that opens it.
"""

import zlib
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from segda.datasets.array_file import checksum
from segda.types import Pixels

IMAGES, LABELS = "images.npy", "labels.npy"
_RECORD = "entry.json"

# Folder, and which file of which time in it: a folder may be replaced.
_verified: set[tuple[Path, int, int]] = set()


class Entry(BaseModel):
    """What is known of the arrays of an entry.

    Attributes:
        names: of the samples, in the order of the arrays.
        fingerprint: of the files that were decoded.
        checksums: name of a file -> its CRC-32.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    names: tuple[str, ...]
    fingerprint: str
    checksums: dict[str, int]


class _Record(BaseModel):
    """An entry and the CRC-32 of what is said of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    entry: Entry
    checksum: int


def write_entry(folder: Path, *, names: tuple[str, ...], fingerprint: str) -> None:
    """Write what an entry's arrays, which are there already, must be from now on."""
    checksums = {name: checksum(folder / name) for name in (IMAGES, LABELS) if (folder / name).exists()}
    entry = Entry(names=names, fingerprint=fingerprint, checksums=checksums)
    (folder / _RECORD).write_text(_Record(entry=entry, checksum=_checksum(entry)).model_dump_json(), encoding="utf-8")


def open_entry(folder: Path) -> tuple[Entry, dict[str, Pixels]]:
    """Map the arrays of an entry, by the names of their files; a process that got it from its parent need not verify it.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: a file is not what was written.
    """
    entry = _read(folder)
    return entry, {name: np.lib.format.open_memmap(folder / name, mode="r") for name in entry.checksums}


def verify_entry(folder: Path, *, names: tuple[str, ...], size: tuple[int, int], with_labels: bool) -> None:
    """Compare an entry with what is wanted and, once in each process, with its checksums.

    Args:
        folder: of the entry.
        names: of the samples.
        size: height and width of the arrays.
        with_labels: whether there must be labels.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: a file is not what was written; the message says which.
    """
    status = (folder / _RECORD).stat()
    identity = (folder, status.st_ino, status.st_mtime_ns)
    if identity not in _verified:
        for path in folder.iterdir():
            if path.exists() and not path.is_file():  # a pipe would be waited for
                raise ValueError(f"{path.name} is no file")
        for name, expected in _read(folder).checksums.items():
            if checksum(folder / name) != expected:
                raise ValueError(f"{name} has changed")
    entry, arrays = open_entry(folder)
    shapes: dict[str, tuple[int, ...]] = {IMAGES: (len(names), *size, 3)}
    if with_labels:
        shapes[LABELS] = (len(names), *size)
    if entry.names != names or {name: array.shape for name, array in arrays.items()} != shapes:
        raise ValueError("it holds other images than its name says")
    _verified.add(identity)


def _read(folder: Path) -> Entry:
    try:
        record = _Record.model_validate_json((folder / _RECORD).read_bytes())
    except ValidationError:
        raise ValueError(f"{_RECORD} does not say what it must") from None
    if record.checksum != _checksum(record.entry):
        raise ValueError(f"{_RECORD} has changed")
    return record.entry


def _checksum(entry: Entry) -> int:
    return zlib.crc32(entry.model_dump_json().encode())
