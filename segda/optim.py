"""Optimizers by name and the learning rate of each step."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer

OptimizerName = Literal["sgd", "adam", "adamw", "rmsprop"]


def build_optimizer(
    parameters: Iterable[nn.Parameter],
    *,
    name: OptimizerName,
    lr: float,
    momentum: float = 0.9,
    beta2: float = 0.999,
    weight_decay: float = 0.0,
) -> Optimizer:
    """Build an optimizer; weight decay acts on weights with more than one dimension only.

    Biases and normalization parameters are one-dimensional; shrinking them regularizes nothing.

    Args:
        parameters: what to optimize.
        name: sgd, adam, adamw or rmsprop.
        lr: base learning rate, > 0.
        momentum: of sgd and rmsprop; beta1 of adam and adamw. In [0, 1).
        beta2: of adam and adamw. In [0, 1).
        weight_decay: L2 penalty (decoupled for adamw), >= 0.

    Returns:
        The optimizer, with a base rate `initial_lr` in every group for `set_learning_rate`.

    Raises:
        ValueError: if the name is unknown.
    """
    weights: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for parameter in parameters:
        (weights if parameter.ndim > 1 else vectors).append(parameter)
    groups = [
        {"params": weights, "weight_decay": weight_decay, "initial_lr": lr},
        {"params": vectors, "weight_decay": 0.0, "initial_lr": lr},
    ]
    groups = [group for group in groups if group["params"]]
    # On a GPU one kernel updates everything. On a CPU the fused kernels copy weights that lie in channels_last memory first, and
    # are no faster than the plain ones.
    fused = any(weight.is_cuda for weight in weights)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=fused)
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, betas=(momentum, beta2), fused=fused)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(momentum, beta2), fused=fused)
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=lr, momentum=momentum)
    raise ValueError(f"expected optimizer sgd, adam, adamw or rmsprop, got {name!r}")


def poly_factor(step: int, *, horizon: int, power: float = 0.9, warmup_steps: int = 0) -> float:
    """Return the factor on the base learning rate at a step.

    (step + 1) / warmup_steps * (1 - step / horizon) ** power during warm-up, without the first term after it.

    Args:
        step: number of updates made so far, from 0.
        horizon: step at which the factor reaches 0, > 0.
        power: exponent; 0.9 in DeepLab and AdaptSegNet.
        warmup_steps: length of the linear rise.

    Returns:
        Factor in [0, 1].

    Source:
        Chen et al., DeepLab, arXiv:1606.00915, section 4; per step, unlike the per-epoch schedule of the seed report's code.

    Example:
        >>> poly_factor(0, horizon=10), poly_factor(5, horizon=10, power=1.0), poly_factor(0, horizon=10, warmup_steps=4)
        (1.0, 0.5, 0.25)
    """
    factor: float = max(0.0, 1.0 - step / horizon) ** power
    if step < warmup_steps:
        factor *= (step + 1) / warmup_steps
    return factor


def set_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Set every group's learning rate to its base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
