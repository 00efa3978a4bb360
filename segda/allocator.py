"""Keep the C library from handing large blocks back to the kernel after every tensor, and let it do so after a training."""

import ctypes
import sys
from collections.abc import Callable

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process reuse the memory of freed tensors.

    glibc maps every block above 32 MiB anew and unmaps it when it is freed, and trims its heap likewise; the kernel then clears
    each page again. A training step on the CPU frees and allocates the same activations over and over, which costs about 25,000
    page faults for BiSeNet-ResNet-18 at 4 x 176 x 240. The price is that the process keeps its peak memory, until
    `give_back_freed_memory`.

    Returns:
        Whether the C library took the settings; others than glibc do not have them.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST))


def give_back_freed_memory() -> None:
    """Hand freed memory back to the kernel; where the C library cannot, nothing happens.

    For the end of a training in a process that goes on to train others. Each of its threads has a heap of its own, which keeps the
    peak of what ran there: without this a worker that had trained fifty networks of a peak below 1 GB held 4 GB.
    """
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """Return a function of the C library; None where it is not glibc's."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
