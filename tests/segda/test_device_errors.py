"""Memory and devices that fail, told apart by what PyTorch says."""

import errno

import pytest
import torch
import torch.distributed as dist

from segda.device_errors import is_device_failure, is_out_of_memory
from segda.errors import DeviceError, OutOfMemoryError


def test_memory_that_the_processor_s_allocator_does_not_get_is_out_of_memory():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50)
    assert is_out_of_memory(raised.value)


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("GPU"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        dist.DistBackendError("NCCL error: unhandled cuda error, Cuda failure 2 'out of memory'"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_memory_that_did_not_suffice_is_no_device_that_failed(error):
    assert is_out_of_memory(error)
    assert not is_device_failure(error)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("No CUDA GPUs are available"),
        RuntimeError("Found no NVIDIA driver on your system."),
        dist.DistBackendError("NCCL error: unhandled system error"),
    ],
)
def test_a_device_that_failed_is_told_from_a_lack_of_memory(error):
    assert is_device_failure(error)
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        torch.AcceleratorError("CUDA error: invalid configuration argument"),
        RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm`"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        DeviceError("device cuda:9 was asked for, this machine has 1 CUDA devices"),
        OSError(errno.EIO, "I/O error"),
    ],
)
def test_what_every_device_would_say_is_neither(error):
    assert not is_out_of_memory(error)
    assert not is_device_failure(error)
