"""Tell from an exception of PyTorch's whether memory did not suffice or a device failed.

Only the caching allocator of CUDA has an exception class of its own for that; everything else says it in its text.
"""

import errno

import torch
import torch.distributed as dist

_NO_MEMORY = (
    "out of memory",  # CUDA, also from a driver call outside of the allocator or within NCCL
    "can't allocate memory",  # DefaultCPUAllocator
    "not enough memory",  # the same on Windows
    "_alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED, ...
)
_FAILED = (
    "cuda error",
    "cudnn error",
    "cuda driver",
    "no cuda gpus are available",
    "cuda unknown error",
    "nvidia driver",
)
# What the computation asked for was wrong; another device says the same. An index out of range triggers a device-side assert.
_ASKED_WRONGLY = (
    "device-side assert",
    "invalid argument",
    "invalid configuration",
    "_invalid_value",
    "_not_supported",
    "_bad_param",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory of a device or of the machine did not suffice.

    Args:
        error: what a computation raised.

    Example:
        >>> is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
        True
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and _says(error, _NO_MEMORY)


def is_device_failure(error: BaseException) -> bool:
    """Return whether a device, its driver or the connection between devices failed, which another device may not.

    An illegal memory access counts too: a broken device and a faulty kernel cannot be told apart by it.

    Args:
        error: what a computation raised.

    Example:
        >>> is_device_failure(RuntimeError("CUDA error: uncorrectable ECC error encountered"))
        True
    """
    if not isinstance(error, RuntimeError) or is_out_of_memory(error) or _says(error, _ASKED_WRONGLY):
        return False
    return isinstance(error, torch.AcceleratorError | dist.DistError) or _says(error, _FAILED)


def _says(error: BaseException, phrases: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return any(phrase in text for phrase in phrases)
