"""torch.compile: a captured program, translated by Inductor for this machine and one size; nothing to take elsewhere."""

import torch
from torch import Tensor
from torch._inductor import config as inductor_config

from segda.deployment.program import Accepts, capture, first_line, quiet
from segda.deployment.runtime import Request, Run, Runtime
from segda.deployment.shipped import ShippedNetwork
from segda.device_errors import is_out_of_memory
from segda.errors import ConfigError, ExportError


def build_compiled(request: Request) -> Runtime:
    """Capture and compile a network; which takes some ten seconds."""
    assert request.precision != "int8"
    one_size(request.accepts, runtime="torch_compile")
    network = ShippedNetwork(request.segmenter, argmax=request.argmax, precision=request.precision)
    program = capture(network.to(request.device), request.accepts)
    run = compiled(program.module(), request.accepts, device=request.device)
    return Runtime("torch_compile", request.precision, request.accepts, request.device, run)


def one_size(accepts: Accepts, *, runtime: str) -> tuple[int, int, int]:
    """Return the batch, height and width that a runtime compiles for.

    Args:
        accepts: what was asked for.
        runtime: its name, for the message.

    Raises:
        ConfigError: one of them is open.
    """
    if accepts.batch is None or accepts.size is None:
        raise ConfigError(f"{runtime} compiles for one size; give height, width and number of images")
    return accepts.batch, *accepts.size


def compiled(module: torch.nn.Module, accepts: Accepts, *, device: torch.device) -> Run:
    """Compile a module whose weights do not change any more.

    Args:
        module: maps uint8 [B, 3, H, W] to train ids.
        accepts: the one size that it is for.
        device: where it computes.

    Raises:
        ExportError: it cannot be compiled here, e.g. because there is no compiler for C++.
    """
    batch, height, width = one_size(accepts, runtime="torch.compile")
    try:
        with quiet():
            fast = torch.compile(module, dynamic=False)

            def run(image: Tensor) -> Tensor:
                # In inference mode it would be compiled once more, and not frozen then.
                with torch.inference_mode(mode=False), torch.no_grad():
                    classes: Tensor = fast(image.to(device))
                return classes

            # Frozen weights are constants, and convolutions with what follows them become one kernel.
            with inductor_config.patch(freezing=True):
                run(torch.zeros(batch, 3, height, width, dtype=torch.uint8, device=device))
    except Exception as error:  # compilers raise nearly anything
        if is_out_of_memory(error):
            raise
        raise ExportError(
            f"torch.compile cannot translate the network: {first_line(error)}; use another runtime"
        ) from error
    return run
