"""Peak memory of one forward pass."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segda.deployment.shipped import FloatPrecision, deploy
from segda.device import resolve_device
from segda.efficiency.example import example_input


def measure_peak_memory(
    module: nn.Module,
    *,
    input_shape: tuple[int, int, int, int],
    device: str = "cpu",
    precision: FloatPrecision = "fp32",
) -> int:
    """Measure the most bytes that tensors occupy at one time while a deployed copy of the module runs.

    Counted: parameters and buffers, the input, intermediate results and the output. Not counted: the framework
    itself, and on a CPU the scratch space inside of a single kernel. On CUDA the number comes from PyTorch's
    allocator (rounded up to its blocks, with the kernels' scratch space that it hands out), on a CPU from following
    every tensor that the forward pass creates until it is freed.

    Args:
        module: left as it is.
        input_shape: (B, C, H, W).
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`.
        precision: type of weights and input.

    Returns:
        Bytes.

    Raises:
        DeviceError: no such device.
    """
    place = resolve_device(device)
    shipped = deploy(module, device=place, precision=precision)
    image = example_input(input_shape, device=place, precision=precision)
    storages = {tensor.untyped_storage() for tensor in (*shipped.parameters(), *shipped.buffers(), image)}
    resident = sum(storage.nbytes() for storage in storages)
    with torch.no_grad():
        return resident + (_cuda_rise(shipped, image) if place.type == "cuda" else _cpu_rise(shipped, image))


def _cuda_rise(module: nn.Module, image: Tensor) -> int:
    module(image)  # cuDNN chooses its kernels, and libraries their workspaces, in the first run
    torch.cuda.synchronize(image.device)
    torch.cuda.reset_peak_memory_stats(image.device)
    before = torch.cuda.memory_allocated(image.device)
    module(image)
    torch.cuda.synchronize(image.device)
    peak: int = torch.cuda.max_memory_allocated(image.device)
    return peak - before


def _cpu_rise(module: nn.Module, image: Tensor) -> int:
    with _AllocationTracker(known=(*module.parameters(), *module.buffers(), image)) as tracker:
        module(image)
    return int(tracker.peak)


class _AllocationTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages of all results of operations while they live."""

    def __init__(self, *, known: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live = 0
        # A storage's Python object lives exactly as long as its memory, so its end is the memory's end.
        self._seen = weakref.WeakSet(tensor.untyped_storage() for tensor in known)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self._live -= size
