import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from segda.deployment import Accepts, ShippedNetwork
from segda.deployment.bias_correction import correct_biases, mean_output, rounded
from segda.deployment.int8 import before_convolutions, quantize
from segda.deployment.onnx_file import write_onnx
from segda.deployment.program import capture

from .tiny import images

SIZE = (40, 48)


@pytest.fixture
def file(tiny, tmp_path):
    path = tmp_path / "tiny.onnx"
    write_onnx(capture(ShippedNetwork(tiny), Accepts()), path, accepts=Accepts(), metadata={"network": "tiny"})
    return path


def constants(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def convolutions(path):
    return [node for node in onnx.load(path).graph.node if node.op_type == "Conv"]


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_the_mean_that_a_convolution_says_is_that_of_a_constant_image(groups) -> None:
    convolution = nn.Conv2d(6, 12, 3, groups=groups, bias=False)
    mean = torch.randn(6)
    said = convolution(mean[None, :, None, None].expand(1, 6, 3, 3))[0, :, 0, 0]
    found = mean_output(convolution.weight.detach().numpy(), mean.numpy())
    np.testing.assert_allclose(found, said.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_weights_are_rounded_as_onnx_runtime_does_it(file, tmp_path) -> None:
    """Of a file in int8, scales and bytes multiplied are the same numbers; channels without weights stay."""
    single = constants(file)
    first = convolutions(file)[0].input[1]
    model = onnx.load(file)
    weight = single[first].copy()
    weight[3] = 0
    next(tensor for tensor in model.graph.initializer if tensor.name == first).CopyFrom(
        numpy_helper.from_array(weight, first)
    )
    onnx.save(model, file)
    small = tmp_path / "small.onnx"
    quantize(file, small, images=list(images(2, *SIZE)), accepts=Accepts())
    found = constants(small)
    told = found[f"{first}_quantized"] * found[f"{first}_scale"][:, None, None, None]
    np.testing.assert_allclose(rounded(weight), told, atol=1e-6)


def test_rounded_weights_with_the_new_biases_say_the_same_on_average(tmp_path) -> None:
    """A network of one convolution of 1 x 1, where nothing is left out of account, whose bias is another one's, too."""
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(5, 3, 1, 1)).astype(np.float32)
    bias = generator.normal(size=5).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT, name="cast"),
        helper.make_node("Conv", ["float", "weight", "bias"], ["said"], name="conv"),
        helper.make_node("Add", ["said", "shared"], ["classes"], name="add"),
        helper.make_node("Reshape", ["bias", "shape"], ["shared"], name="reshape"),
    ]
    nodes = [nodes[0], nodes[1], nodes[3], nodes[2]]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["b", 3, "h", "w"])],
        [helper.make_tensor_value_info("classes", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(bias, "bias"),
            numpy_helper.from_array(np.array([1, 5, 1, 1]), "shape"),
        ],
    )
    path, corrected = tmp_path / "one.onnx", tmp_path / "corrected.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    shown = [images(2, *SIZE), images(1, 64, 32)[:, :, :40, :].repeat(1, 1, 1, 2)[..., :48]]
    correct_biases(path, corrected, shown)

    model = onnx.load(corrected)
    np.testing.assert_array_equal(constants(corrected)["bias"], bias)  # the other one's
    next(tensor for tensor in model.graph.initializer if tensor.name == "weight").CopyFrom(
        numpy_helper.from_array(rounded(weight), "weight")
    )

    def mean(model) -> np.ndarray:
        run = ReferenceEvaluator(model)
        means = [run.run(None, {"image": batch.numpy()})[0].mean((2, 3)) for batch in shown]
        return np.concatenate(means).mean(0)

    assert np.abs(mean(model) - mean(onnx.load(path))).max() < 1e-3
    for tensor in model.graph.initializer:  # as they were
        if tensor.name.startswith("corrected"):
            tensor.CopyFrom(numpy_helper.from_array(bias, tensor.name))
    assert np.abs(mean(model) - mean(onnx.load(path))).max() > 0.1


def test_what_the_file_says_of_itself_stays_and_nothing_is_left_that_nobody_reads(file, tmp_path) -> None:
    corrected = tmp_path / "corrected.onnx"
    correct_biases(file, corrected, [images(2, *SIZE)])
    model = onnx.load(corrected)
    assert "tiny" in {entry.value for entry in model.metadata_props}
    read = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read
    assert [output.name for output in model.graph.output] == ["classes"]
    assert len({node.input[2] for node in convolutions(corrected)}) == 4


def test_what_normalizes_the_image_stays_in_single_precision(file, tmp_path) -> None:
    small = tmp_path / "small.onnx"
    quantize(file, small, images=list(images(2, *SIZE)), accepts=Accepts())
    before = before_convolutions(onnx.load(file))
    kinds = {node.name: node.op_type for node in onnx.load(file).graph.node}
    assert {"Cast", "Mul", "Add"} <= {kinds[name] for name in before}
    assert not {"Conv", "Relu", "ArgMax"} & {kinds[name] for name in before}
    nodes = onnx.load(small).graph.node
    made_by = {output: node for node in nodes for output in node.output}
    for node in nodes:
        if node.name in before:
            assert all(made_by[name].op_type != "DequantizeLinear" for name in node.input if name in made_by)
