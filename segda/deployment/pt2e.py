"""int8 by PyTorch itself (PT2E): quantized as a program, compiled by Inductor for processors. Fast there, and no file at all.

On a processor with AMX it was measured to be 1.5 times as fast as ONNX Runtime's int8. Quantized but not compiled it is slower than
single precision, and what is compiled belongs to this machine, so there is a callable and nothing to write.
"""

import operator
from typing import Any

import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.fx import GraphModule

from segda.deployment.compiled import compiled, one_size
from segda.deployment.int8 import Convolutions, require_int8
from segda.deployment.program import capture, first_line, quiet
from segda.deployment.runtime import Request, Runtime
from segda.deployment.shipped import ShippedNetwork
from segda.device_errors import is_out_of_memory
from segda.errors import ExportError

_LOWERED = "qconv_weight_prepack_matcher_count"  # where Inductor counts convolutions that it made int8 kernels of
_KINDS: dict[Any, Any] = {  # operation -> layer that the quantizer has a pattern of
    torch.ops.aten.conv2d.default: nn.Conv2d,
    torch.ops.aten.linear.default: nn.Linear,
    torch.ops.aten.relu.default: nn.ReLU,
    torch.ops.aten.relu_.default: nn.ReLU,
    torch.ops.aten.relu6.default: nn.ReLU6,
    torch.ops.aten.relu6_.default: nn.ReLU6,
    torch.ops.aten.hardtanh.default: nn.Hardtanh,
    torch.ops.aten.hardtanh_.default: nn.Hardtanh,
    torch.ops.aten.hardswish.default: nn.Hardswish,
    torch.ops.aten.hardswish_.default: nn.Hardswish,
    torch.ops.aten.add.Tensor: operator.add,
    torch.ops.aten.add_.Tensor: operator.add,
}


def build_pt2e(request: Request) -> Runtime:
    """Capture, calibrate, convert and compile a network; which takes up to a minute.

    Source: the flow of torchao's documentation for X86InductorQuantizer, with its default configuration.
    """
    one_size(request.accepts, runtime="pt2e")
    network = ShippedNetwork(request.segmenter, argmax=request.argmax)
    program = capture(network, request.accepts).module()
    _name_kinds(program)
    try:
        with quiet(), torch.no_grad():
            from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
            from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

            quantizer = x86.X86InductorQuantizer()
            quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
            prepared = prepare_pt2e(program, quantizer)
            for batch in request.accepts.batches(request.calibration):
                prepared(batch)
            converted = convert_pt2e(prepared)
    except Exception as error:  # patterns that it does not know raise nearly anything
        if is_out_of_memory(error):
            raise
        raise ExportError(
            f"{type(request.segmenter).__name__} cannot be quantized by PT2E: {first_line(error)}; use runtime onnxruntime"
        ) from error
    before = counters["inductor"][_LOWERED]
    run = compiled(converted, request.accepts, device=request.device)
    graphs = [part.graph for part in converted.modules() if isinstance(part, GraphModule)]
    total = sum(node.target is torch.ops.aten.conv2d.default for graph in graphs for node in graph.nodes)
    lowered = counters["inductor"][_LOWERED] - before
    found = require_int8(Convolutions(int8=lowered, single=total - lowered))
    return Runtime("pt2e", "int8", request.accepts, request.device, run, notes=found.notes())


def _name_kinds(program: nn.Module) -> None:
    """Say of every operation which kind of layer it is, whatever the module is called that it comes from.

    The quantizer goes by the class of the module: it passes over convolutions of a subclass without a word, takes a ReLU that is
    used twice for one that has two results, and whatever else a module of that class does for a convolution.
    """
    assert isinstance(program, GraphModule)
    for node in program.graph.nodes:
        if node.op == "call_function":
            node.meta["source_fn_stack"] = [(node.name, _KINDS.get(node.target, node.target))]
