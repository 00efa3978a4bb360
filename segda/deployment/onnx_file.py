"""ONNX files: written from a program, and opened by ONNX Runtime."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from segda.deployment.program import AXES, INPUT, OUTPUT, Accepts, first_line, quiet
from segda.device_errors import is_out_of_memory
from segda.errors import DeviceError, ExportError

if TYPE_CHECKING:
    import onnx
    import onnxruntime
    from torch.export import ExportedProgram

OPSETS = range(18, 25)
USUAL_OPSET = 20
_SEAL = "weights_sha256"
_DESCRIPTION = (
    f"Semantic segmentation. Input {INPUT}: RGB 0..255, uint8 [batch, 3, height, width]. Output {OUTPUT}: index into the classes "
    "of the metadata, uint8 [batch, height, width]. Normalization, enlargement and argmax are inside."
)


def write_onnx(
    program: "ExportedProgram",
    path: Path,
    *,
    accepts: Accepts,
    metadata: Mapping[str, str],
    opset: int = USUAL_OPSET,
) -> None:
    """Write a program as an ONNX file, weights included.

    Args:
        program: what `capture` returned.
        path: the file to write.
        accepts: which images it takes, as in `capture`; open axes are called batch, height and width.
        metadata: texts that the file carries (`metadata_props`).
        opset: version of ONNX's operators, 18 to 24.

    Raises:
        ExportError: the exporter does not know how, or has taken another opset than was asked for, which it does below 18 with
            no more than a warning.
    """
    import onnx

    open_axes = ([0] if accepts.batch is None else []) + ([2, 3] if accepts.size is None else [])
    try:
        with quiet():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={INPUT: {axis: AXES[axis] for axis in open_axes}},
                external_data=False,
                verbose=False,
            )
        assert exported is not None
        model = exported.model_proto
    except Exception as error:  # of a network of somebody else the exporter raises nearly anything
        if is_out_of_memory(error):
            raise
        raise ExportError(
            f"the program cannot be written as ONNX: {first_line(error)}; write a .pt2 file instead"
        ) from error
    written = opset_of(model)
    if written != opset:
        raise ExportError(
            f"opset {opset} was asked for and the exporter wrote {written}; ask for one of {OPSETS.start} to {OPSETS.stop - 1}"
        )
    model.doc_string = _DESCRIPTION
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    save_sealed(model, path)


def opset_of(model: "onnx.ModelProto") -> int:
    """Return the version of ONNX's own operators that a model is written in."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def save_sealed(model: "onnx.ModelProto", path: Path) -> None:
    """Write a model with a digest of its weights. The format has none, and a bit that a disk turns around is another weight."""
    import onnx

    texts = {entry.key: entry.value for entry in model.metadata_props} | {_SEAL: _digest(model)}
    onnx.helper.set_model_props(model, texts)
    onnx.save(model, str(path))


def verify_seal(path: Path) -> None:
    """Compare the weights of a file with the digest that was written with them.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be read.
        ValueError: they are others, or it is no file of `save_sealed`.
    """
    import onnx

    content = path.read_bytes()
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf's own, which onnx does not export
        raise ValueError("it is no ONNX file") from error
    texts = {entry.key: entry.value for entry in model.metadata_props}
    if _SEAL not in texts:
        raise ValueError("it was not written by `segda export`")
    if texts[_SEAL] != _digest(model):
        raise ValueError("its weights are not those that were written")


def _digest(model: "onnx.ModelProto") -> str:
    digest = hashlib.sha256()
    for tensor in model.graph.initializer:
        digest.update(tensor.SerializeToString(deterministic=True))
    return digest.hexdigest()


def open_session(path: Path, *, device: torch.device, optimized: Path | None = None) -> "onnxruntime.InferenceSession":
    """Open a file with ONNX Runtime, with as many threads as PyTorch has in this process.

    Threads that have nothing to do sleep: left alone they spin, which takes processors from others and made two threads slower
    than one where no processor was free.

    Args:
        path: the file.
        device: where to compute.
        optimized: where to write the graph as it is computed; None: nowhere.

    Raises:
        DeviceError: this ONNX Runtime does not compute there.
        ValueError: the file is no model that it can run.
    """
    import onnxruntime

    provider: Any = "CPUExecutionProvider"
    if device.type == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise DeviceError(
                "the onnxruntime that is installed has no CUDA; install onnxruntime-gpu in its place, or use device: cpu"
            )
        provider = ("CUDAExecutionProvider", {"device_id": device.index or 0})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # its errors have no class in common that it exports
        if is_out_of_memory(error):
            raise
        raise ValueError(f"ONNX Runtime cannot run it ({first_line(error)})") from error


def run_session(session: "onnxruntime.InferenceSession", image: Tensor) -> Tensor:
    """Map uint8 [B, 3, H, W] on any device to train ids uint8 [B, H, W] on the CPU."""
    (classes,) = session.run([OUTPUT], {INPUT: image.contiguous().cpu().numpy()})
    return torch.from_numpy(classes)
