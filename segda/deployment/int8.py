"""int8 for ONNX Runtime: scales that calibration images tell, written into the file (static QDQ).

Weights are signed with a scale for each output channel, activations unsigned with one scale and a zero point each (U8S8): on x86
signed activations leave half of the convolutions in single precision, since a convolution with its ReLU is not recognized then.
Ranges are the smallest and largest value seen (MinMax); percentiles and entropy were measured to give the same. Biases take back
what rounded weights shift, and what normalizes the image computes in single precision: a byte that is rounded to another byte on
its way to the first convolution has lost what that one was to see, and nothing was saved.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from segda.deployment.bias_correction import correct_biases
from segda.deployment.onnx_file import open_session, save_sealed
from segda.deployment.program import INPUT, Accepts, first_line, quiet
from segda.device_errors import is_out_of_memory
from segda.errors import ExportError

if TYPE_CHECKING:
    import onnx

_FEWEST = 0.5  # share of convolutions that must compute in int8
_LEARNED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class Convolutions(NamedTuple):
    """In what the convolutions of a network compute once its runtime has optimized it."""

    int8: int
    single: int

    def notes(self) -> dict[str, str | int]:
        """Return it as notes of a runtime."""
        return {"convolutions in int8": self.int8, "convolutions in single precision": self.single}


def quantize(source: Path, destination: Path, *, images: Sequence[Tensor], accepts: Accepts) -> Convolutions:
    """Write an ONNX file again in int8.

    Args:
        source: file in single precision; its metadata are kept.
        destination: file to write.
        images: calibration images of one size, uint8 [3, H, W] each; at least one.
        accepts: which images the file takes.

    Returns:
        How many of its convolutions compute in int8, and how many do not.

    Raises:
        ExportError: the file cannot be quantized, or most of its convolutions would not compute in int8 in the end.
    """
    import onnx
    import onnxruntime
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    reader = onnxruntime.quantization.CalibrationDataReader

    class Images(reader):  # type: ignore[misc, valid-type]
        """Gives one batch after the other."""

        def __init__(self) -> None:
            self._batches = accepts.batches(images)

        def get_next(self) -> dict[str, object] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    try:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            corrected = Path(folder) / "corrected.onnx"
            correct_biases(source, corrected, accepts.batches(images))
            quantize_static(
                corrected,
                destination,
                Images(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=before_convolutions(onnx.load(str(source))),
            )
        save_sealed(onnx.load(str(destination)), destination)
        found = count_convolutions(destination)
    except Exception as error:  # its errors have no class in common
        if is_out_of_memory(error):
            raise
        raise ExportError(f"the network cannot be quantized: {first_line(error)}; use precision fp32") from error
    return require_int8(found)


def before_convolutions(model: "onnx.ModelProto") -> list[str]:
    """Return the names of those nodes of an ONNX model that no convolution and no matrix product comes before."""
    weights = {tensor.name for tensor in model.graph.initializer}
    known = weights | {tensor.name for tensor in model.graph.input} | {""}
    found = []
    for node in model.graph.node:  # in an order in which they can be computed
        if node.op_type not in _LEARNED and known.issuperset(node.input):
            known.update(node.output)
            found.append(node.name)
    return found


def require_int8(found: Convolutions) -> Convolutions:
    """Refuse what is called int8 and hardly computes in it.

    Args:
        found: by a runtime.

    Returns:
        The same.

    Raises:
        ExportError: most convolutions would not compute in int8.
    """
    if found.int8 < _FEWEST * sum(found):
        raise ExportError(
            f"only {found.int8} of {sum(found)} convolutions would compute in int8, which gains nothing; use precision fp32"
        )
    return found


def count_convolutions(path: Path) -> Convolutions:
    """Count what the convolutions of a file become when ONNX Runtime optimizes it for this machine's processor.

    Args:
        path: the file.

    Raises:
        ValueError: it is no model.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        open_session(path, device=torch.device("cpu"), optimized=optimized)
        kinds = [node.op_type for node in onnx.load(str(optimized)).graph.node]
    return Convolutions(int8=kinds.count("QLinearConv"), single=kinds.count("Conv") + kinds.count("FusedConv"))
