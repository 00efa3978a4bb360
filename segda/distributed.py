"""Arithmetic across the processes that train one network together.

Each of N processes (ranks) holds a copy of the weights and an equal part of every batch. Nothing here does anything, and nothing is
copied, while no group is joined.

Why the gradients of the ranks add up to the gradient of the whole batch. A loss is a formula f of sums S = s_0 + ... + s_(N-1),
of which rank r computes s_r (`segda.losses.additive`). All ranks know S, hence the weights w = df/dS, and rank r differentiates w
. s_r. What it computes depends on the other ranks only through `SynchronizedBatchNorm`, whose backward pass adds up what all
ranks ask for; so back-propagation leaves on rank r the gradient of w . S by its own copy of the weights, and the sum over ranks
is w . dS/dw, which is df/dw. DistributedDataParallel averages instead of adding up, so the ranks' number multiplies w.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

# Of a context, not of the process: other threads may train alone, or know other groups.
_group: ContextVar[dist.ProcessGroup | None] = ContextVar("segda_group", default=None)


@contextmanager
def joined(group: dist.ProcessGroup) -> Iterator[None]:
    """Let the sums of this module run over a group for as long as the block lasts, in this thread."""
    token = _group.set(group)
    try:
        yield
    finally:
        _group.reset(token)


def global_sum(tensor: Tensor) -> Tensor:
    """Return the sum of the ranks' tensors, without a gradient; the argument itself where no group is joined.

    Args:
        tensor: of any shape and a type that adds up, the same on every rank.

    Returns:
        A tensor of the same shape and type, the same on every rank.
    """
    group = _group.get()
    return tensor if group is None else _summed(tensor, group)


def global_mean(tensor: Tensor) -> Tensor:
    """Return the mean of the ranks' tensors, without a gradient; the argument itself where no group is joined.

    Args:
        tensor: floating point of any shape, the same shape on every rank.

    Returns:
        A tensor of the same shape and type, the same on every rank.
    """
    group = _group.get()
    return tensor if group is None else global_sum(tensor) / group.size()


def _summed(tensor: Tensor, group: dist.ProcessGroup) -> Tensor:
    copy = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(copy, group=group)
    return copy


class SynchronizedBatchNorm(nn.BatchNorm2d):
    """Batch normalization by the statistics of all ranks' images, on any device.

    PyTorch's SyncBatchNorm refuses tensors on the CPU. While training in a group, every rank gives equally many values per channel.
    Elsewhere it is its base class.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize float [B, C, H, W]; the running statistics become those of all ranks, and equal on all."""
        group = _group.get()
        if group is None or not self.training:
            return super().forward(input)
        normalized, mean, variance = _SynchronizedNorm.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.eps, group
        )
        if self.track_running_stats:
            count = group.size() * input.numel() // input.shape[1]
            self._follow(mean, variance * (count / (count - 1)))
        result: Tensor = normalized
        return result

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running averages as the base class does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class _SynchronizedNorm(torch.autograd.Function):
    """Normalizes by global mean and variance.

    With x' the normalized input, g the gradient at the output and n the number of values of a channel on all ranks, the gradient is
    weight / std * (g - sum(g) / n - x' * sum(g x') / n), both sums over all ranks. PyTorch's kernels for fixed statistics compute
    its first term and this rank's part of the sums, and apply the rest, which is a normalization of x as well.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, group: dist.ProcessGroup
    ) -> tuple[Tensor, Tensor, Tensor]:
        # The kernel's statistics are of the weight's type, also where x has lower precision. Its output is not needed.
        _, local_mean, local_scale = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)
        # In double precision the difference of squares loses nothing that single precision had.
        local_mean = local_mean.double()
        local_variance = local_scale.double() ** -2 - eps
        moments = _summed(torch.stack([local_mean, local_variance + local_mean.square()]), group) / group.size()
        mean = moments[0].to(weight.dtype)
        variance = (moments[1] - moments[0].square()).clamp(min=0).to(weight.dtype)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.group = eps, group
        ctx.mark_non_differentiable(mean, variance)
        return functional.batch_norm(x, mean, variance, weight, bias, eps=eps), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[0], True, True]
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, weight, mean, variance, None, None, False, ctx.eps, wanted
        )
        if ctx.needs_input_grad[0]:
            count = ctx.group.size() * x.numel() // x.shape[1]
            means = _summed(torch.stack([grad_weight, grad_bias]), ctx.group) / count
            slope, shift = means * (weight * (variance + ctx.eps).rsqrt())
            grad_x = grad_x - functional.batch_norm(x, mean, variance, slope, shift, eps=ctx.eps)
        return grad_x, grad_weight, grad_bias, None, None


def synchronize_batch_norm(module: nn.Module) -> None:
    """Make every BatchNorm2d inside a module use the statistics of all ranks; parameters, buffers and their names stay.

    On a GPU that is PyTorch's SyncBatchNorm, whose kernels are faster, elsewhere `SynchronizedBatchNorm`.

    Args:
        module: changed in place; not a BatchNorm2d itself.
    """
    for name, child in module.named_children():
        if type(child) is not nn.BatchNorm2d:
            synchronize_batch_norm(child)
        elif child.weight.is_cuda:
            setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))  # type: ignore[no-untyped-call]
        else:
            synchronized = SynchronizedBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
            synchronized.__dict__.update(child.__dict__)
            setattr(module, name, synchronized)
