"""Choose the device and the precision that a run computes with."""

import contextlib
from typing import Literal

import torch

from segda.errors import DeviceError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES: dict[Literal["fp32", "bf16", "fp16"], torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
PRECISIONS = {dtype: name for name, dtype in DTYPES.items()}


def resolve_device(name: str) -> torch.device:
    """Return the device of a name.

    Args:
        name: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:<n>`.

    Returns:
        The device.

    Raises:
        DeviceError: if the name is not a device or the machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"device must be auto, cpu, cuda or cuda:<n>, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device must be auto, cpu, cuda or cuda:<n>, got {name!r}")
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise DeviceError(
            f"device {name} was asked for, this machine has {count} CUDA devices; use device: cpu or auto"
        )
    return device


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type that convolutions compute in.

    Args:
        precision: `auto` is bfloat16 where the device has instructions for it (Ampere and later GPUs, CPUs with AVX512-BF16 or
            AMX) and float32 elsewhere.
        device: where the run computes.

    Returns:
        float32, bfloat16 or float16.

    Raises:
        DeviceError: if fp16 is asked for on a CPU, whose float16 training kernels are incomplete.
    """
    if precision == "fp16" and device.type == "cpu":
        raise DeviceError("precision fp16 needs a CUDA device, got cpu; use bf16, fp32 or auto")
    if precision != "auto":
        return DTYPES[precision]
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[None]:
    """Return a context in which convolutions and products compute in `dtype`; float32 is left alone, and what is quantized."""
    if dtype == torch.float32 or not dtype.is_floating_point:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)
