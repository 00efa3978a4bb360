"""int8 by PyTorch itself (PT2E): quantized as a program, compiled by Inductor for processors. Fast there, and no file at all.

On a processor with AMX it was measured to be 1.5 times as fast as ONNX Runtime's int8. Quantized but not compiled it is slower than
single precision, and what is compiled belongs to this machine, so there is a callable and nothing to write.
"""

import copy

import torch
from torch import nn

from segda.deployment.compiled import compiled, one_size
from segda.deployment.program import capture, first_line, quiet
from segda.deployment.runtime import Request, Runtime
from segda.deployment.shipped import ShippedNetwork
from segda.device_errors import is_out_of_memory
from segda.errors import ExportError


def build_pt2e(request: Request) -> Runtime:
    """Capture, calibrate, convert and compile a network; which takes up to a minute.

    Source: the flow of torchao's documentation for X86InductorQuantizer, with its default configuration.
    """
    one_size(request.accepts, runtime="pt2e")
    network = ShippedNetwork(_with_own_relus(request.segmenter), argmax=request.argmax)
    program = capture(network, request.accepts).module()
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
    run = compiled(converted, request.accepts, device=request.device)
    return Runtime("pt2e", "int8", request.accepts, request.device, run)


def _with_own_relus(segmenter: nn.Module) -> nn.Module:
    """Copy a network with a ReLU of its own, and out of place, wherever it computes one.

    The quantizer looks for a convolution with what it is added to and its ReLU, and knows none that is changed in place.
    """
    network = copy.deepcopy(segmenter)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return network
