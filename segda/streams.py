"""Standard streams of a program whose work must not end because nobody can read what it says."""

import errno
import io
import os
import sys
from typing import IO, Any, TextIO

_MAY_PASS = (errno.ENOSPC, errno.EDQUOT)  # later lines may find room again


def make_best_effort() -> None:
    """Let output be lost where it cannot be written, for the rest of this process; the first thing that a program does.

    A full disk, a pipe whose reader has left, a terminal that is gone and a stream that was closed from the beginning end nothing.
    What an encoding does not have becomes `?`. The exit code says how the work went, not the output.
    """
    # Or the next file that is opened, such as a database, would be what libraries and children write their messages into.
    while (lowest := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(lowest, True)
    os.close(lowest)
    sys.stdout = _best_effort(sys.stdout, 1)
    sys.stderr = _best_effort(sys.stderr, 2)


def is_read(stream: IO[str]) -> bool:
    """Return whether somebody may still read what is written, as far as writing has shown; for output without an end."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return not (isinstance(raw, _BestEffort) and raw.is_gone)


class _BestEffort(io.FileIO):
    """A file that takes everything.

    Attributes:
        is_gone: whether it could not be written for good; then it is the null device, for children too.
    """

    is_gone = False

    def write(self, data: Any, /) -> int:
        size = len(memoryview(data))
        try:
            written = super().write(data)
        except OSError as error:
            if error.errno not in _MAY_PASS:
                self.is_gone = True
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self.fileno())
                os.close(null)
            return size
        return size if written is None else written  # None: it does not block, and has no room now


def _best_effort(stream: TextIO | None, descriptor: int) -> TextIO:
    raw = _BestEffort(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(stream, "encoding", "utf-8"),
        errors="replace",
        newline="\n",
        line_buffering=getattr(stream, "line_buffering", True),
        write_through=getattr(stream, "write_through", False),
    )
