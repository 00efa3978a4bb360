"""The runtimes: one file each; a new one is a file and a line here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segda.deployment.program import Accepts
from segda.deployment.runtime import Precision, Request, Runtime
from segda.deployment.shipped import Argmax, ShippedNetwork
from segda.device import resolve_device
from segda.errors import ConfigError, UnknownNameError
from segda.names import nearest


@dataclass(frozen=True)
class RuntimeKind:
    """A way to run networks.

    Attributes:
        build: makes one run.
        precisions: what it computes in.
        devices: kinds of devices that it computes on.
    """

    build: Callable[[Request], Runtime]
    precisions: tuple[Precision, ...]
    devices: tuple[str, ...] = ("cpu", "cuda")


def _eager(request: Request) -> Runtime:
    """PyTorch as it is, one operation after the other."""
    assert request.precision != "int8"
    network = ShippedNetwork(request.segmenter, argmax=request.argmax, precision=request.precision).to(request.device)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(image: Tensor) -> Tensor:
        with torch.inference_mode():
            classes: Tensor = network(image.to(request.device))
        return classes

    return Runtime("eager", request.precision, request.accepts, request.device, run)


def _compiled(request: Request) -> Runtime:
    from segda.deployment.compiled import build_compiled

    return build_compiled(request)


def _onnx(request: Request) -> Runtime:
    from segda.deployment.onnx_runtime import build_onnx_runtime

    return build_onnx_runtime(request)


def _pt2e(request: Request) -> Runtime:
    from segda.deployment.pt2e import build_pt2e

    return build_pt2e(request)


RUNTIMES: Mapping[str, RuntimeKind] = {
    "eager": RuntimeKind(_eager, ("fp32", "bf16", "fp16")),
    "torch_compile": RuntimeKind(_compiled, ("fp32", "bf16", "fp16")),
    # Its convolutions know no bfloat16.
    "onnxruntime": RuntimeKind(_onnx, ("fp32", "fp16", "int8")),
    "pt2e": RuntimeKind(_pt2e, ("int8",), devices=("cpu",)),
}


def build_runtime(
    segmenter: nn.Module,
    *,
    runtime: str,
    precision: Precision = "fp32",
    batch: int | None = 1,
    size: tuple[int, int] | None = None,
    argmax: Argmax | None = "full",
    device: str = "cpu",
    calibration: Sequence[Tensor] = (),
) -> Runtime:
    """Make a network ready to run, from the bytes of images to class maps.

    Args:
        segmenter: returns `SegmentationOutput`; left as it is.
        runtime: a name in `RUNTIMES`.
        precision: arithmetic of convolutions.
        batch: images at once; None: any number, which `torch_compile` and `pt2e` do not take.
        size: their height and width in pixels; None: any, likewise.
        argmax: where classes are decided, see `ShippedNetwork`; None: nowhere, it is run up to the scores of its head.
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`.
        calibration: images that tell the ranges of int8, RGB uint8 [3, H, W] each, of one size: `size` where that is given.

    Returns:
        A callable: uint8 [B, 3, H, W] to train ids uint8 [B, H, W], or to scores float32 [B, C, h, w].

    Raises:
        UnknownNameError: there is no such runtime.
        ConfigError: it does not compute in that precision or for that size, or images to calibrate with are missing.
        DeviceError: there is no such device, or the runtime does not compute there.
        ExportError: it cannot take the network.
    """
    if runtime not in RUNTIMES:
        raise UnknownNameError(f"unknown runtime {runtime!r}{nearest(runtime, RUNTIMES)}; known: {', '.join(RUNTIMES)}")
    kind, place = RUNTIMES[runtime], resolve_device(device)
    for what, wanted, known in (("precision", precision, kind.precisions), ("device", place.type, kind.devices)):
        if wanted not in known:
            raise ConfigError(f"runtime {runtime} knows {what} {' or '.join(known)}, got {wanted}")
    if precision == "int8" and not calibration:
        raise ConfigError("int8 needs images to calibrate with, got none; give some of the source or of the target")
    return kind.build(Request(segmenter, precision, Accepts(batch, size), argmax, place, calibration))
