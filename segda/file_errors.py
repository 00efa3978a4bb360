"""Tell what the system says about files, disks and mounts from what it says about connections and processes."""

import errno

_OF_FILES = frozenset(
    {
        *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP),
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EMFILE, errno.ENFILE),
        *(errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO),
    }
)


def is_file_error(error: BaseException) -> bool:
    """Return whether a file could not be read or written: missing, not allowed, on a disk that is full, read-only or broken.

    Args:
        error: what was raised.

    Example:
        >>> is_file_error(OSError(errno.ENOSPC, "No space left on device")), is_file_error(ConnectionResetError())
        (True, False)
    """
    return isinstance(error, OSError) and error.errno in _OF_FILES
