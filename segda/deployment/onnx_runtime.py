"""ONNX Runtime as what runs a network on this machine; the file that it needs on the way is not kept."""

import tempfile
from pathlib import Path

import torch

from segda.deployment.int8 import quantize
from segda.deployment.onnx_file import open_session, run_session, write_onnx
from segda.deployment.program import capture
from segda.deployment.runtime import Request, Runtime
from segda.deployment.shipped import FloatPrecision, ShippedNetwork


def build_onnx_runtime(request: Request) -> Runtime:
    """Export a network and open it."""
    assert request.precision != "bf16"
    precision: FloatPrecision = "fp16" if request.precision == "fp16" else "fp32"
    network = ShippedNetwork(request.segmenter, argmax=request.argmax, precision=precision)
    program = capture(network.to(torch.device("cpu")), request.accepts)
    notes: dict[str, str | int] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        write_onnx(program, path, accepts=request.accepts, metadata={})
        if request.precision == "int8":
            small = Path(folder) / "int8.onnx"
            found = quantize(path, small, images=request.calibration, accepts=request.accepts)
            notes = found.notes()
            path = small
        notes["file_bytes"] = path.stat().st_size
        session = open_session(path, device=request.device)
    return Runtime(
        "onnxruntime",
        request.precision,
        request.accepts,
        request.device,
        lambda image: run_session(session, image),
        notes=notes,
    )
