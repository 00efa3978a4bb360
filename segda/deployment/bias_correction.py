"""What rounded weights shift on average, taken back by biases.

A rounded weight is wrong in the same direction for every pixel, so it moves the mean of what its convolution says, and the layers
behind it see values that they were not trained on. Depthwise convolutions suffer most: nine weights do not even out. The mean of
the error is known ahead of time: the error of the weights times the mean of the input.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019, section 4.2; the means are
those of calibration images, not of batch normalization's statistics. That images are padded with zeros is left out of account.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segda.deployment.onnx_file import open_session
from segda.deployment.program import INPUT

if TYPE_CHECKING:
    import onnx

Array = NDArray[np.float32]
_LARGEST = 127  # of signed bytes that are symmetric


def correct_biases(source: Path, destination: Path, batches: Iterable[Tensor]) -> None:
    """Write an ONNX file again with biases for weights that will be rounded to int8.

    Args:
        source: file in single precision.
        destination: file to write, in single precision too.
        batches: calibration images as the file takes them, uint8 [B, 3, H, W] each; at least one.

    Raises:
        ValueError: ONNX Runtime cannot run the file.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(source))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in weights]
    means = _mean_inputs(model, [node.input[0] for node in convolutions], batches, scratch=destination)
    for number, node in enumerate(convolutions):
        weight = numpy_helper.to_array(weights[node.input[1]])
        error = weight - rounded(weight)
        shift = mean_output(error, means[node.input[0]])
        if len(node.input) > 2:
            shift = shift + numpy_helper.to_array(weights[node.input[2]])
        # A bias of its own, since others may use the same one.
        bias = numpy_helper.from_array(shift.astype(np.float32), f"corrected_bias_{number}")
        model.graph.initializer.append(bias)
        node.input[:] = [*node.input[:2], bias.name]
    _drop_unused(model)
    onnx.save(model, str(destination))


def rounded(weight: Array) -> Array:
    """Return weights [O, I, ...] as signed bytes with a scale for each output tell them.

    Example:
        >>> rounded(np.array([[1.0, 0.503], [0.0, 0.0]])).round(4).tolist()
        [[1.0, 0.5039], [0.0, 0.0]]
    """
    scale = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True) / _LARGEST
    scale = np.where(scale > 0, scale, 1)
    return np.asarray(np.round(weight / scale) * scale, dtype=weight.dtype)


def mean_output(weight: Array, mean: Array) -> Array:
    """Return what a convolution without a bias says on average where its input is on average so.

    Args:
        weight: [O, I / groups, kh, kw].
        mean: of each input, [I].

    Returns:
        Of each output, [O].

    Example:
        >>> mean_output(np.ones((2, 1, 3, 3)), np.array([1.0, 2.0])).tolist()  # depthwise
        [9.0, 18.0]
    """
    outputs, inputs = weight.shape[:2]
    groups = len(mean) // inputs
    by_group = weight.sum(axis=(2, 3)).reshape(groups, outputs // groups, inputs)
    return np.asarray(np.einsum("goi,gi->go", by_group, mean.reshape(groups, inputs)).reshape(outputs))


def _drop_unused(model: "onnx.ModelProto") -> None:
    """Take constants out that nothing reads any more."""
    read = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _mean_inputs(
    model: "onnx.ModelProto", names: Iterable[str], batches: Iterable[Tensor], *, scratch: Path
) -> dict[str, Array]:
    """Run a model on images and return the mean of some of its tensors [B, C, H, W], each [C], by name."""
    import onnx
    from onnx import helper

    told = onnx.ModelProto()
    told.CopyFrom(model)
    wanted = list(dict.fromkeys(names))
    told.graph.initializer.append(helper.make_tensor("mean_axes", onnx.TensorProto.INT64, [3], [0, 2, 3]))
    for name in wanted:
        told.graph.node.append(helper.make_node("ReduceMean", [name, "mean_axes"], [f"mean_of_{name}"], keepdims=0))
        told.graph.output.append(helper.make_tensor_value_info(f"mean_of_{name}", onnx.TensorProto.FLOAT, [None]))
    onnx.save(told, str(scratch))
    session = open_session(scratch, device=torch.device("cpu"))
    outputs = [f"mean_of_{name}" for name in wanted]
    sums, count = [np.zeros(1, dtype=np.float64)] * len(wanted), 0
    for batch in batches:
        found = session.run(outputs, {INPUT: batch.numpy()})
        sums = [
            total + len(batch) * np.asarray(mean, dtype=np.float64) for total, mean in zip(sums, found, strict=True)
        ]
        count += len(batch)
    return {name: (total / count).astype(np.float32) for name, total in zip(wanted, sums, strict=True)}
