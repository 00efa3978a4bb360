"""Tell what the system says about files, disks and mounts from what it says about connections and processes."""

import errno
import os
import re
from collections.abc import Iterator

_OF_DISKS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO})
_OF_FILES = _OF_DISKS | {
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP),
    *(errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENODEV, errno.ENXIO),
}
# The same without a number: out of another process as text, or from libraries that write by themselves.
_SAYS_DISK = re.compile(
    "|".join(
        [
            *(re.escape(os.strerror(number)) for number in sorted(_OF_DISKS)),
            "PytorchStreamWriter failed",  # torch.save
            "inline_container.*unexpected pos",  # torch.save, when it closes what it could not write
            "Not enough free space to write",  # numpy
            r"\d+ requested and \d+ written",  # numpy
            "database or disk is full",  # SQLite
            "disk I/O error",  # SQLite
        ]
    ),
    re.IGNORECASE | re.DOTALL,
)


def is_file_error(error: BaseException) -> bool:
    """Return whether a file could not be read or written: missing, not allowed, on a disk that is full, read-only or broken.

    Args:
        error: what was raised.

    Example:
        >>> is_file_error(OSError(errno.ENOSPC, "No space left on device")), is_file_error(ConnectionResetError())
        (True, False)
    """
    # Out of another process they may come as text, without their number.
    kinds = FileNotFoundError | PermissionError | FileExistsError | IsADirectoryError | NotADirectoryError
    return isinstance(error, kinds) or (isinstance(error, OSError) and error.errno in _OF_FILES)


def is_disk_failure(error: BaseException) -> bool:
    """Return whether a disk is behind an error: full, over its quota, read-only or broken, in whatever that was wrapped.

    Args:
        error: what was raised; what it followed from counts too.

    Example:
        >>> is_disk_failure(RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"))
        True
        >>> is_disk_failure(FileNotFoundError(errno.ENOENT, "No such file or directory"))
        False
    """
    return disk_failure_in(error) is not None


def disk_failure_in(error: BaseException) -> str | None:
    r"""Return the line of an error that tells of a disk that failed, or None; see `is_disk_failure`.

    Args:
        error: what was raised.

    Example:
        >>> disk_failure_in(RuntimeError("Traceback (most recent call last):\n  ...\nOSError: [Errno 28] No space left on device"))
        'OSError: [Errno 28] No space left on device'
    """
    for link in _chain(error):
        if isinstance(link, OSError) and link.errno in _OF_DISKS:
            return str(link)
        for line in str(link).splitlines():
            if says_disk_failure(line):
                return line.strip()
    return None


def says_disk_failure(text: str) -> bool:
    """Return whether a message tells of a disk that is full, over its quota, read-only or broken.

    Args:
        text: of an error that is known by its words only.

    Example:
        >>> says_disk_failure("OSError: [Errno 28] No space left on device: '/store/x'")
        True
    """
    return _SAYS_DISK.search(text) is not None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it followed from, also where that is hidden from people (`raise ... from None`)."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
