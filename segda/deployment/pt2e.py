"""int8 by PyTorch itself (PT2E): quantized as a program, compiled by Inductor for processors. Fast there, and no file at all.

On a processor with AMX it was measured to be 1.5 times as fast as ONNX Runtime's int8. Quantized but not compiled it is slower than
single precision, and what is compiled belongs to this machine, so there is a callable and nothing to write.
"""

import copy
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
_KINDS: dict[Any, Any] = {
    torch.ops.aten.conv2d.default: nn.Conv2d,
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
    network = ShippedNetwork(_with_own_relus(request.segmenter), argmax=request.argmax)
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

    The quantizer knows convolutions by the class of their module, and passes over those of a subclass without a word.
    """
    assert isinstance(program, GraphModule)
    for node in program.graph.nodes:
        if node.target in _KINDS:
            node.meta["source_fn_stack"] = [(node.name, _KINDS[node.target])]


def _with_own_relus(segmenter: nn.Module) -> nn.Module:
    """Copy a network with a ReLU of its own, and out of place, wherever it computes one.

    The quantizer looks for a convolution with what it is added to and its ReLU, and knows none that is changed in place.
    """
    network = copy.deepcopy(segmenter)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return network
