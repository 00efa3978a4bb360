"""All costs of one network at one input size on one device."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from segda.deployment.runtime import Precision
from segda.deployment.runtimes import RUNTIMES, build_runtime
from segda.deployment.shipped import Argmax
from segda.device import resolve_device
from segda.efficiency.example import example_image
from segda.efficiency.latency import Latency, measure_latency, measure_runtime_latency
from segda.efficiency.macs import count_macs
from segda.efficiency.memory import measure_peak_memory
from segda.efficiency.parameters import count_parameters
from segda.environment import device_name
from segda.errors import ConfigError
from segda.models.logits_only import LogitsOnly

_CALIBRATION_IMAGES = 2


@dataclass(frozen=True)
class EfficiencyProfile:
    """What a network costs.

    Attributes:
        num_parameters: see `count_parameters`.
        macs: multiply-accumulates of one forward pass, see `count_macs`.
        latency: see `measure_latency`.
        peak_memory_bytes: see `measure_peak_memory`; None for a runtime, whose memory is its own.
        conditions: what the measured numbers hold for: device, threads, precision, input shape, versions, runs. Numbers
            measured under different conditions cannot be compared.
    """

    num_parameters: int
    macs: int
    latency: Latency
    peak_memory_bytes: int | None
    conditions: Mapping[str, str | int]

    def metrics(self) -> dict[str, float]:
        """Return the costs by name: num_parameters, macs, latency_ms (median), its percentiles, fps, peak_memory_bytes.

        The last one is missing where it was not measured. `latency_iqr_ms`, `latency_spread` and `latency_reliable` (1 or 0) say
        how far the times can be believed.
        """
        return {
            "num_parameters": float(self.num_parameters),
            "macs": float(self.macs),
            "latency_ms": self.latency.median_ms,
            "latency_p90_ms": self.latency.p90_ms,
            "latency_p95_ms": self.latency.p95_ms,
            "latency_iqr_ms": self.latency.iqr_ms,
            "latency_spread": self.latency.spread,
            "latency_reliable": float(self.latency.is_reliable),
            "fps": self.latency.fps,
        } | ({} if self.peak_memory_bytes is None else {"peak_memory_bytes": float(self.peak_memory_bytes)})


def profile_segmenter(
    segmenter: nn.Module,
    *,
    input_shape: tuple[int, int, int, int],
    device: str = "cpu",
    precision: Precision = "fp32",
    runtime: str | None = None,
    argmax: Argmax = "full",
    warmup: int | None = None,
    runs: int | None = None,
    min_seconds: float = 0.0,
    max_seconds: float = 60.0,
) -> EfficiencyProfile:
    """Measure what a network costs in use, i.e. without its training-only parts.

    Args:
        segmenter: returns `SegmentationOutput`; left as it is.
        input_shape: (B, 3, H, W).
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`; of latency and memory.
        precision: type of weights and input; of latency and memory. int8 needs a runtime that knows it.
        runtime: a name in `segda.deployment.RUNTIMES`, which is timed from bytes to class map; None: PyTorch, from a normalized
            image to logits. Random pixels tell the ranges of int8, on which latency does not depend.
        argmax: where a runtime decides classes.
        warmup: untimed runs; unset: 20 on CPU, 50 on CUDA.
        runs: timed runs; unset: 100.
        min_seconds: there are more timed runs until so much time is over; see `measure_latency`.
        max_seconds: bound on the time of warm-up and of timed runs, each.

    Returns:
        Costs and the conditions that they hold for.

    Raises:
        ConfigError: there is no such runtime, or it does not compute in that precision.
        DeviceError: no such device.
        ExportError: the runtime cannot take the network.
        ValueError: fewer than one run.
    """
    place = resolve_device(device)
    view = LogitsOnly(segmenter)
    how: dict[str, str | int]
    if runtime is not None:
        batch, _, height, width = input_shape
        built = build_runtime(
            segmenter,
            runtime=runtime,
            precision=precision,
            batch=batch,
            size=(height, width),
            argmax=argmax,
            device=device,
            calibration=list(example_image((_CALIBRATION_IMAGES, 3, height, width), device=torch.device("cpu"))),
        )
        latency = measure_runtime_latency(
            built,
            input_shape=input_shape,
            warmup=warmup,
            runs=runs,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
        )
        peak_memory_bytes = None
        measured = "from bytes to class map: with normalization, enlargement and argmax; without decoding"
        how = {"runtime": runtime, "argmax": argmax, **built.notes}
    elif precision == "int8":
        names = [name for name, kind in RUNTIMES.items() if precision in kind.precisions]
        raise ConfigError(f"precision int8 needs a runtime that knows it: {' or '.join(names)}")
    else:
        latency = measure_latency(
            view,
            input_shape=input_shape,
            device=device,
            precision=precision,
            warmup=warmup,
            runs=runs,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
        )
        peak_memory_bytes = measure_peak_memory(view, input_shape=input_shape, device=device, precision=precision)
        measured = "forward pass to full-size logits; without decoding, normalization, copies and argmax"
        how = {}
    return EfficiencyProfile(
        num_parameters=count_parameters(view),
        macs=count_macs(view, input_shape=input_shape),
        latency=latency,
        peak_memory_bytes=peak_memory_bytes,
        conditions={
            "device": device_name(place),
            "threads": latency.threads,
            "precision": precision,
            "input_shape": "x".join(str(side) for side in input_shape),
            "torch": str(torch.__version__),
            **how,
            "warmup": latency.warmup,
            "runs": latency.runs,
            "measured": measured,
        },
    )
