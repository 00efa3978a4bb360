"""Time of one forward pass."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from segda.deployment.runtime import Runtime
from segda.deployment.shipped import FloatPrecision, deploy
from segda.device import resolve_device
from segda.efficiency.example import example_image, example_input
from segda.efficiency.idleness import Watch
from segda.errors import ConfigError

_BLOCKS = 10  # of at least one run each, whatever the time bound says: fewer tell nothing
_WARMUP = {"cpu": 20, "cuda": 50}
_MAX_ABOVE_FASTEST = 0.1  # by which the median may lie above that of the fastest block, as a share of that
# A virtual processor shares its core with other machines: for 3 to 15 seconds at a time, a convolutional network was seen to take a
# fifth longer, and no counter of the system says so. Of 100 runs each, 95 % of pairs were within 23 %, of 15 seconds within 6 %.
STEADY_SECONDS = 15.0


@dataclass(frozen=True)
class Latency:
    """Distribution of the time of a forward pass.

    Attributes:
        median_ms: median in milliseconds.
        p90_ms: 90th percentile in milliseconds.
        p95_ms: 95th percentile in milliseconds.
        p99_ms: 99th percentile in milliseconds; of 100 runs that is about the second longest.
        iqr_ms: distance between the quartiles in milliseconds.
        spread: largest minus smallest median of ten blocks of runs, as a share of the median: how well it repeats. Measured once
            more, the median differs by less if both took `STEADY_SECONDS`, so that slow changes of the machine are in it, and
            nothing else disturbed either.
        runs: number of timed runs.
        warmup: number of untimed runs before them.
        threads: CPU threads that PyTorch, or the runtime in its place, used inside an operation.
        doubts: why these are not the times of the module alone, one line each; empty if nothing speaks against it.
        unchecked: what could not be looked at for that.
    """

    median_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    iqr_ms: float
    spread: float
    runs: int
    warmup: int
    threads: int
    doubts: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    @property
    def is_reliable(self) -> bool:
        """Whether the module was measured alone, and for most of the time as fast as it can be."""
        return not self.doubts

    @property
    def fps(self) -> float:
        """Forward passes per second: 1000 / median. Images per second at batch 1."""
        return 1000 / self.median_ms


def measure_latency(
    module: nn.Module,
    *,
    input_shape: tuple[int, int, int, int],
    device: str = "cpu",
    precision: FloatPrecision = "fp32",
    warmup: int | None = None,
    runs: int | None = None,
    min_seconds: float = 0.0,
    max_seconds: float = 60.0,
) -> Latency:
    """Time the forward pass of a deployed copy of the module.

    Inside: the forward pass up to the full-size output. Outside: decoding, normalization, the copy to the device,
    argmax. The copy is in evaluation and inference mode, without training-only parts, with weights and input of the
    given precision in channels_last memory. On CUDA each run is bracketed by events and waited for, and cuDNN picks
    its kernels by trial.

    Whatever else runs on the device changes the result, so what others did there meanwhile is looked up, and the median must not
    lie more than 10 % above that of the fastest of ten blocks of runs; the result says what speaks against it.

    Args:
        module: left as it is.
        input_shape: (B, C, H, W); B = 1 is the usual protocol.
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`.
        precision: type of weights and input.
        warmup: untimed runs, at least 1; unset: 20 on CPU, 50 on CUDA.
        runs: timed runs, at least 1; unset: 100.
        min_seconds: there are more timed runs until so much time is over. `STEADY_SECONDS` for a figure that others may rely on.
        max_seconds: warm-up and timed runs each stop early after this time, though not before 1 and 10 runs.

    Returns:
        The distribution and how many runs it stands on.

    Raises:
        DeviceError: no such device.
        ValueError: fewer than one run.
    """
    (latency,) = measure_side_by_side(
        [module],
        input_shape=input_shape,
        device=device,
        precision=precision,
        warmup=warmup,
        runs=runs,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
    )
    return latency


def measure_side_by_side(
    modules: Sequence[nn.Module],
    *,
    input_shape: tuple[int, int, int, int],
    device: str = "cpu",
    precision: FloatPrecision = "fp32",
    warmup: int | None = None,
    runs: int | None = None,
    min_seconds: float = 0.0,
    max_seconds: float = 60.0,
) -> list[Latency]:
    """Time several modules in turn, block by block of runs: what changes meanwhile changes for all, and ratios hold.

    After the warm-up of each come ten rounds; in a round each is run a tenth of its times without another in between, once the
    caches are its own again.

    Args:
        modules: see `measure_latency`, as for all other arguments.
        input_shape: of each.
        device: of all.
        precision: of all.
        warmup: of each.
        runs: of each.
        min_seconds: for all together.
        max_seconds: for all together.

    Returns:
        A distribution of each.

    Raises:
        DeviceError: no such device.
        ValueError: fewer than one run.
    """
    place = resolve_device(device)
    image = example_input(input_shape, device=place, precision=precision)
    return _measured(
        [(deploy(module, device=place, precision=precision), image) for module in modules],
        warmup=warmup,
        runs=runs,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
    )


def measure_runtime_latency(
    runtime: Runtime,
    *,
    input_shape: tuple[int, int, int, int],
    warmup: int | None = None,
    runs: int | None = None,
    min_seconds: float = 0.0,
    max_seconds: float = 60.0,
) -> Latency:
    """Time a runtime from the bytes of an image in memory to its class map, by the protocol of `measure_latency`.

    Inside: normalization, the forward pass, enlargement, argmax, and what the runtime copies. Outside: decoding, the copy to the
    device and that of the class map from it; ONNX Runtime on a GPU makes both, inside. On a processor it computes with as many
    threads as PyTorch had when it was built.

    Args:
        runtime: of `build_runtime`, or that of an artefact.
        input_shape: (B, 3, H, W), which it must take.
        warmup: as in `measure_latency`.
        runs: as in `measure_latency`.
        min_seconds: as in `measure_latency`.
        max_seconds: as in `measure_latency`.

    Returns:
        The distribution and how many runs it stands on.

    Raises:
        ConfigError: the runtime takes other images, or PyTorch has another number of threads now.
        ValueError: fewer than one run.
    """
    (latency,) = measure_runtimes_side_by_side(
        [(runtime, input_shape)], warmup=warmup, runs=runs, min_seconds=min_seconds, max_seconds=max_seconds
    )
    return latency


def measure_runtimes_side_by_side(
    runtimes: Sequence[tuple[Runtime, tuple[int, int, int, int]]],
    *,
    warmup: int | None = None,
    runs: int | None = None,
    min_seconds: float = 0.0,
    max_seconds: float = 60.0,
) -> list[Latency]:
    """Time several runtimes as `measure_runtime_latency` times one, in turn as `measure_side_by_side` does.

    Args:
        runtimes: each with the shape (B, 3, H, W) of what it is shown; they may compute on different devices.
        warmup: of each.
        runs: of each.
        min_seconds: for all together.
        max_seconds: for all together.

    Returns:
        A distribution of each.

    Raises:
        ConfigError: a runtime takes other images, or PyTorch has another number of threads now.
        ValueError: fewer than one run.
    """
    now = torch.get_num_threads()
    for runtime, _ in runtimes:
        if runtime.threads != now:
            raise ConfigError(
                f"{runtime.name} was built when PyTorch had {runtime.threads} threads, and now it has {now}; build it again"
            )
    subjects = [(runtime, example_image(shape, device=runtime.device)) for runtime, shape in runtimes]
    return _measured(subjects, warmup=warmup, runs=runs, min_seconds=min_seconds, max_seconds=max_seconds)


def _measured(
    subjects: Sequence[tuple[Callable[[Tensor], object], Tensor]],
    *,
    warmup: int | None,
    runs: int | None,
    min_seconds: float,
    max_seconds: float,
) -> list[Latency]:
    runs = 100 if runs is None else runs
    if (warmup is not None and warmup < 1) or runs < 1:
        raise ValueError(f"expected at least one warm-up run and one timed run, got {warmup} and {runs}")
    watches = {device: Watch(device) for device in {image.device for _, image in subjects}}
    timers = [_timer(run, image) for run, image in subjects]
    sizes = [len(block) for block in np.array_split(range(runs), min(runs, _BLOCKS))]
    seconds = max_seconds / len(subjects)
    blocks: list[list[list[float]]] = [[] for _ in subjects]
    with torch.inference_mode(), _cudnn_benchmark():
        warmups = [
            len(list(_bounded(timer, most=warmup or _WARMUP[image.device.type], max_seconds=seconds)))
            for timer, (_, image) in zip(timers, subjects, strict=True)
        ]
        for size in sizes:
            for own in blocks:
                own.append([])
            end = time.monotonic() + min_seconds / len(sizes)
            while True:
                for timer, own in zip(timers, blocks, strict=True):
                    if len(subjects) > 1:
                        timer()  # the caches are full of what others left there
                    own[-1].extend(_bounded(timer, most=size, max_seconds=seconds / len(sizes)))
                if time.monotonic() >= end:
                    break
    doubts = {device: watch.doubts() for device, watch in watches.items()}
    return [
        _distribution(own, warmup=made, doubts=doubts[image.device], unchecked=watches[image.device].unchecked)
        for own, made, (_, image) in zip(blocks, warmups, subjects, strict=True)
    ]


def _distribution(
    blocks: list[list[float]], *, warmup: int, doubts: tuple[str, ...], unchecked: tuple[str, ...]
) -> Latency:
    times_ms = [time_ms for block in blocks for time_ms in block]
    lower, median, upper, p90, p95, p99 = (float(value) for value in np.percentile(times_ms, [25, 50, 75, 90, 95, 99]))
    spread, disagreement = _spread(blocks, median)
    return Latency(
        median_ms=median,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        iqr_ms=upper - lower,
        spread=spread,
        runs=len(times_ms),
        warmup=warmup,
        threads=torch.get_num_threads(),
        doubts=(*doubts, *disagreement),
        unchecked=unchecked,
    )


def _spread(blocks: list[list[float]], median: float) -> tuple[float, list[str]]:
    """Return by what share the medians of blocks of runs differ, and what they say against the median of all."""
    if len(blocks) < _BLOCKS:
        return 0.0, [f"{len(blocks)} runs do not show whether it repeats, at least {_BLOCKS} do"]
    medians = [float(np.median(block)) for block in blocks]
    spread = (max(medians) - min(medians)) / median
    fastest = min(medians)
    if median <= (1 + _MAX_ABOVE_FASTEST) * fastest:
        return spread, []
    return spread, [f"the median is {median:.3g} ms, that of the fastest of {_BLOCKS} blocks of runs {fastest:.3g} ms"]


def _timer(run: Callable[[Tensor], object], image: Tensor) -> Callable[[], float]:
    """Return what runs once and tells how many milliseconds that took."""
    timed = _timed_on_cuda if image.device.type == "cuda" else _timed_on_cpu
    return lambda: timed(run, image)


def _timed_on_cpu(run: Callable[[Tensor], object], image: Tensor) -> float:
    start = time.perf_counter()
    run(image)
    return (time.perf_counter() - start) * 1000


def _timed_on_cuda(run: Callable[[Tensor], object], image: Tensor) -> float:
    with torch.cuda.device(image.device):
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        start.record()
        run(image)
        end.record()
        end.synchronize()
    return float(start.elapsed_time(end))


def _bounded(run: Callable[[], float], *, most: int, max_seconds: float) -> Iterator[float]:
    """Run at least once, and then until it was enough or took too long."""
    deadline = time.monotonic() + max_seconds
    for number in range(most):
        if number and time.monotonic() > deadline:
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
