"""Number of parameters."""

from torch import nn

from segda.models.logits_only import training_only_names


def count_parameters(module: nn.Module) -> int:
    """Count the numbers that are shipped: parameters that evaluation uses, without buffers.

    A tensor that several modules share counts once. Running statistics of batch normalizations are buffers and not
    counted, as in the literature. Submodules that the network lists in `training_only` are left out; the trunks here
    have no ImageNet classifier to begin with.

    Args:
        module: any module, on any device, the meta device included.

    Returns:
        Number of scalars.
    """
    unused = set(training_only_names(module))
    used = {
        parameter
        for name, parameter in module.named_parameters(remove_duplicate=False)
        if name.partition(".")[0] not in unused
    }
    return sum(parameter.numel() for parameter in used)
