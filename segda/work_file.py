"""What a long computation has finished, strip by strip, in one file that survives a kill at any moment.

The first line says, as JSON, what the strips are made of. Each strip follows with its length, a checksum and its bytes,
compressed, and is on the disk before the next one is begun. A kill leaves at most one incomplete strip at the end, which the next
run cuts off. A strip that is not what was written, and all after it, are made again.
"""

import fcntl
import json
import logging
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from segda.errors import ConfigError

log = logging.getLogger(__name__)

_HEAD = struct.Struct(">QI")  # of a strip: length of what follows, and its CRC-32
_FAST = 1  # level of zlib: class maps become small at any


class WorkFile:
    """An open work file; see `work_file`."""

    def __init__(self, file: BinaryIO, first: int) -> None:
        """Take up what is in a file.

        Args:
            file: open for reading and writing.
            first: where its first strip begins.
        """
        self._file = file
        self._starts = [first]
        size = os.fstat(file.fileno()).st_size
        while (end := self._end_of_strip(self._starts[-1], size)) is not None:
            self._starts.append(end)
        file.truncate(self._starts[-1])

    def __len__(self) -> int:
        """Return how many strips are finished."""
        return len(self._starts) - 1

    def append(self, strip: bytes) -> None:
        """Add a finished strip; when this returns, not even a loss of power takes it away.

        Raises:
            OSError: it cannot be written.
        """
        packed = zlib.compress(strip, _FAST)
        self._file.seek(self._starts[-1])
        self._file.write(_HEAD.pack(len(packed), zlib.crc32(packed)) + packed)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._starts.append(self._file.tell())

    def strips(self) -> Iterator[bytes]:
        """Yield all strips in their order, one at a time."""
        for start, end in zip(self._starts, self._starts[1:], strict=False):
            self._file.seek(start + _HEAD.size)
            yield zlib.decompress(self._file.read(end - start - _HEAD.size))

    def _end_of_strip(self, start: int, size: int) -> int | None:
        """Return where a strip ends; None if it is not there completely."""
        if start + _HEAD.size > size:
            return None
        self._file.seek(start)
        length, checksum = _HEAD.unpack(self._file.read(_HEAD.size))
        end = start + _HEAD.size + int(length)
        if end > size or zlib.crc32(self._file.read(length)) != checksum:
            return None
        return end


@contextmanager
def work_file(path: Path, made_of: Mapping[str, str]) -> Iterator[WorkFile]:
    """Open the work file of a computation, or begin one, and hold it alone.

    Args:
        path: where it lies; its folder is made.
        made_of: everything that the strips depend on, by name. Where the file says anything else, it is begun anew, and the names
            of what has changed are logged.

    Yields:
        The file. It is removed when the block has succeeded, or when it fails before any strip is finished.

    Raises:
        ConfigError: another process works on it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _open_alone(path) as file:
        first = _begin(file, path, made_of)
        work = WorkFile(file, first)
        try:
            yield work
        except BaseException:
            if len(work) == 0:
                path.unlink()
            raise
        path.unlink()


@contextmanager
def _open_alone(path: Path) -> Iterator[BinaryIO]:
    while True:
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigError(
                    f"another process is at work on {path}; wait for it, or choose another output"
                ) from error
            if _is_still(path, file):
                yield file
                return


def _is_still(path: Path, file: BinaryIO) -> bool:
    """Return whether a path leads to an open file: between opening and locking it, who had it may have removed it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _begin(file: BinaryIO, path: Path, made_of: Mapping[str, str]) -> int:
    """Write the first line anew unless it says the same; return where strips begin."""
    line = json.dumps(dict(made_of), sort_keys=True).encode() + b"\n"
    found = file.readline()
    if found != line:
        if found:
            log.warning("%s was begun with other things (%s): it begins anew", path, _differences(found, made_of))
        file.truncate(0)
        file.seek(0)
        file.write(line)
        file.flush()
    return len(line)


def _differences(found: bytes, made_of: Mapping[str, str]) -> str:
    try:
        before = json.loads(found)
        names = [name for name in sorted({*before, *made_of}) if before.get(name) != made_of.get(name)]
    except (ValueError, TypeError, AttributeError):
        return "it cannot be read"
    return ", ".join(names)
