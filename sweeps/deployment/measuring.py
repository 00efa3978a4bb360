"""Latency of a file on this device, by the protocol of all latencies here."""

from pathlib import Path

from segda.deployment.artefact import load_artefact
from segda.deployment.compiled import compiled
from segda.deployment.runtime import Runtime
from segda.deployment.torch_file import on_device, read_program
from segda.device import resolve_device
from segda.efficiency.idleness import disturbance
from segda.efficiency.latency import Latency, measure_runtime_latency
from sweeps.deployment.recipes import RuntimeName
from sweeps.ledger.records import Device
from sweeps.planning.patience import Patience


def open_runtime(path: Path, runtime: RuntimeName, *, device: str) -> Runtime:
    """Open a file in what is going to run it.

    Args:
        path: `.onnx` for ONNX Runtime, else `.pt2`; for `torch_compile` of one size.
        runtime: what runs it.
        device: `cpu` or `cuda`.

    Raises:
        WeightsError: the file cannot be used.
        DeviceError: it is not run there.
        ExportError: it cannot be compiled here.
    """
    opened = load_artefact(path, device=device).runtime
    if runtime != "torch_compile":
        return opened
    program, _ = read_program(path)
    place = opened.device
    run = compiled(on_device(program, place).module(), opened.accepts, device=place)
    return Runtime("torch_compile", opened.precision, opened.accepts, place, run)


def measure(
    path: Path, runtime: RuntimeName, *, size: tuple[int, int], device: Device, patience: Patience, what: str
) -> Latency:
    """Time one image from bytes to class map, while nothing else of this process computes.

    Args:
        path: the artefact.
        runtime: what runs it.
        size: height and width in pixels.
        device: where; PyTorch has as many threads as it says.
        patience: how long to wait for nobody else to compute there.
        what: is measured, for people.
    """
    place = resolve_device(device.kind)

    def once() -> Latency:
        opened = open_runtime(path, runtime, device=device.kind)
        return measure_runtime_latency(opened, input_shape=(1, 3, *size), min_seconds=patience.min_seconds)

    return patience.undisturbed(once, doubts=lambda found: found.doubts, look=lambda: disturbance(place), what=what)
