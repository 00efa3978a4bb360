"""Time of one forward pass."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from segda.device import resolve_device
from segda.efficiency.deployment import Precision, deploy, example_input

# The time bound does not cut below this: percentiles of fewer runs say little.
_FEWEST_RUNS = 5


@dataclass(frozen=True)
class Latency:
    """Distribution of the time of a forward pass.

    Attributes:
        median_ms: median in milliseconds.
        p90_ms: 90th percentile in milliseconds.
        p95_ms: 95th percentile in milliseconds.
        iqr_ms: distance between the quartiles in milliseconds; wide means that the machine was busy.
        runs: number of timed runs.
        warmup: number of untimed runs before them.
        threads: CPU threads that PyTorch used inside an operation.
    """

    median_ms: float
    p90_ms: float
    p95_ms: float
    iqr_ms: float
    runs: int
    warmup: int
    threads: int

    @property
    def fps(self) -> float:
        """Forward passes per second: 1000 / median. Images per second at batch 1."""
        return 1000 / self.median_ms


def measure_latency(
    module: nn.Module,
    *,
    input_shape: tuple[int, int, int, int],
    device: str = "cpu",
    precision: Precision = "fp32",
    warmup: int | None = None,
    runs: int | None = None,
    max_seconds: float = 60.0,
) -> Latency:
    """Time the forward pass of a deployed copy of the module.

    Inside: the forward pass up to the full-size output. Outside: decoding, normalization, the copy to the device,
    argmax. The copy is in evaluation and inference mode, without training-only parts, with weights and input of the
    given precision in channels_last memory. On CUDA each run is bracketed by events and waited for, and cuDNN picks
    its kernels by trial.

    Whatever else runs on the device changes the result: measure alone.

    Args:
        module: left as it is.
        input_shape: (B, C, H, W); B = 1 is the usual protocol.
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`.
        precision: type of weights and input.
        warmup: untimed runs, at least 1; unset: 20 on CPU, 50 on CUDA.
        runs: timed runs, at least 1; unset: 100.
        max_seconds: warm-up and timed runs each stop early after this time, though not before 1 and 5 runs.

    Returns:
        The distribution and how many runs it stands on.

    Raises:
        DeviceError: no such device.
        ValueError: fewer than one run.
    """
    place = resolve_device(device)
    warmup = (50 if place.type == "cuda" else 20) if warmup is None else warmup
    runs = 100 if runs is None else runs
    if warmup < 1 or runs < 1:
        raise ValueError(f"expected at least one warm-up run and one timed run, got {warmup} and {runs}")
    shipped = deploy(module, device=place, precision=precision)
    image = example_input(input_shape, device=place, precision=precision)
    timed = _timed_on_cuda if place.type == "cuda" else _timed_on_cpu
    with torch.inference_mode(), _cudnn_benchmark():
        warmups_ms = list(_bounded(lambda: timed(shipped, image), fewest=1, most=warmup, max_seconds=max_seconds))
        timed_runs = _bounded(lambda: timed(shipped, image), fewest=_FEWEST_RUNS, most=runs, max_seconds=max_seconds)
        times_ms = list(timed_runs)
    lower, median, upper, p90, p95 = np.percentile(times_ms, [25, 50, 75, 90, 95])
    return Latency(
        median_ms=float(median),
        p90_ms=float(p90),
        p95_ms=float(p95),
        iqr_ms=float(upper - lower),
        runs=len(times_ms),
        warmup=len(warmups_ms),
        threads=torch.get_num_threads(),
    )


def _timed_on_cpu(module: nn.Module, image: Tensor) -> float:
    start = time.perf_counter()
    module(image)
    return (time.perf_counter() - start) * 1000


def _timed_on_cuda(module: nn.Module, image: Tensor) -> float:
    with torch.cuda.device(image.device):
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        start.record()
        module(image)
        end.record()
        end.synchronize()
    return float(start.elapsed_time(end))


def _bounded(run: Callable[[], float], *, fewest: int, most: int, max_seconds: float) -> Iterator[float]:
    deadline = time.monotonic() + max_seconds
    for number in range(most):
        if number >= fewest and time.monotonic() > deadline:
            return
        yield run()


@contextmanager
def _cudnn_benchmark() -> Iterator[None]:
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
