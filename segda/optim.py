"""Optimizers by name, each with its own settings and defaults, and the learning rate of each step.

A new one is a class here and a line in `OPTIMIZERS`. Defaults of sgd, adam and rmsprop are those that the adaptation report's code
compared for its table IV: momentum 0.9 and decay 1e-4 for sgd, PyTorch's for the others (no momentum, no decay), and one learning
rate for all, which is far too large for adam and rmsprop in most other places. Those of adamw are PyTorch's.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.optim import Optimizer

from segda.catalog import Catalog, subclass_of
from segda.settings import Settings
from segda.tunable import Range


class OptimizerConfig(Settings):
    """Settings of the segmenter's optimizer; each optimizer extends them and gives `name` its own default."""

    name: str
    lr: Annotated[float, Range(1e-4, 1e-1, log=True)] = Field(2.5e-2, gt=0, description="learning rate after warm-up")
    head_lr_factor: Annotated[float, Range(1.0, 10.0, log=True)] = Field(
        1.0, gt=0, description="factor on the learning rate of all but the trunk, whose weights come from ImageNet"
    )
    weight_decay: Annotated[float, Range(1e-6, 1e-2, log=True)] = Field(
        0.0, ge=0, description="L2 penalty, on convolution weights only, not on biases and normalization"
    )
    grad_clip: float | None = Field(None, gt=0, description="largest L2 norm of the segmenter's gradient")


class UpdateRule(ABC):
    """How gradients become updates.

    Attributes:
        Config: its settings.
    """

    Config: ClassVar[type[OptimizerConfig]]

    @staticmethod
    @abstractmethod
    def optimizer(groups: list[dict[str, Any]], settings: Any, *, fused: bool) -> Optimizer:
        """Make the optimizer.

        Args:
            groups: parameters with their `lr` and `weight_decay`.
            settings: an instance of `Config`.
            fused: whether one kernel may update everything.
        """


class SGDConfig(OptimizerConfig):
    """Settings of `SGD`."""

    name: str = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: Annotated[float, Range(1e-6, 1e-2, log=True)] = Field(
        1e-4, ge=0, description="L2 penalty, on convolution weights only, not on biases and normalization"
    )


class SGD(UpdateRule):
    """Stochastic gradient descent with momentum."""

    Config: ClassVar[type[OptimizerConfig]] = SGDConfig

    @staticmethod
    def optimizer(groups: list[dict[str, Any]], settings: SGDConfig, *, fused: bool) -> Optimizer:
        """Make the optimizer, see `UpdateRule.optimizer`."""
        return torch.optim.SGD(groups, momentum=settings.momentum, fused=fused)


class AdamConfig(OptimizerConfig):
    """Settings of `Adam`."""

    name: str = "adam"
    beta1: float = Field(0.9, ge=0, lt=1, description="share of the old in the mean of gradients")
    beta2: float = Field(0.999, ge=0, lt=1, description="share of the old in the mean of squared gradients")


class Adam(UpdateRule):
    """Adam (Kingma and Ba, ICLR 2015); weight decay is part of the gradient."""

    Config: ClassVar[type[OptimizerConfig]] = AdamConfig

    @staticmethod
    def optimizer(groups: list[dict[str, Any]], settings: AdamConfig, *, fused: bool) -> Optimizer:
        """Make the optimizer, see `UpdateRule.optimizer`."""
        return torch.optim.Adam(groups, betas=(settings.beta1, settings.beta2), fused=fused)


class AdamWConfig(AdamConfig):
    """Settings of `AdamW`, with PyTorch's defaults."""

    name: str = "adamw"
    lr: Annotated[float, Range(1e-5, 1e-2, log=True)] = Field(1e-3, gt=0, description="learning rate after warm-up")
    weight_decay: Annotated[float, Range(1e-4, 1e-1, log=True)] = Field(
        1e-2, ge=0, description="decoupled, on convolution weights only, not on biases and normalization"
    )


class AdamW(UpdateRule):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019)."""

    Config: ClassVar[type[OptimizerConfig]] = AdamWConfig

    @staticmethod
    def optimizer(groups: list[dict[str, Any]], settings: AdamWConfig, *, fused: bool) -> Optimizer:
        """Make the optimizer, see `UpdateRule.optimizer`."""
        return torch.optim.AdamW(groups, betas=(settings.beta1, settings.beta2), fused=fused)


class RMSpropConfig(OptimizerConfig):
    """Settings of `RMSprop`."""

    name: str = "rmsprop"
    momentum: float = Field(0.0, ge=0, lt=1)
    alpha: float = Field(0.99, ge=0, lt=1, description="share of the old in the mean of squared gradients")


class RMSprop(UpdateRule):
    """RMSprop (Hinton's lecture 6 of 2012)."""

    Config: ClassVar[type[OptimizerConfig]] = RMSpropConfig

    @staticmethod
    def optimizer(groups: list[dict[str, Any]], settings: RMSpropConfig, *, fused: bool) -> Optimizer:
        """Make the optimizer, see `UpdateRule.optimizer`; there is no fused kernel."""
        return torch.optim.RMSprop(groups, momentum=settings.momentum, alpha=settings.alpha)


OPTIMIZERS: Catalog[type[UpdateRule]] = Catalog(
    "optimizer",
    group="segda.optimizers",
    built_in={"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop},
    check=subclass_of(UpdateRule, config=OptimizerConfig),
)

# What a configuration that names no optimizer means.
USUAL_OPTIMIZER = "sgd"


def build_optimizer(
    settings: OptimizerConfig, parameters: Iterable[nn.Parameter], *, trunk: Iterable[nn.Parameter] = ()
) -> Optimizer:
    """Build an optimizer; weight decay acts on weights with more than one dimension only.

    Biases and normalization parameters are one-dimensional; shrinking them regularizes nothing.

    Args:
        settings: of an optimizer in `OPTIMIZERS`.
        parameters: what to optimize.
        trunk: those of them that `head_lr_factor` does not multiply.

    Returns:
        The optimizer, with a base rate `initial_lr` in every group for `set_learning_rate`.

    Raises:
        ConfigError: if the name is unknown.
    """
    rule = OPTIMIZERS[settings.name]
    in_trunk = {id(parameter) for parameter in trunk}
    members: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in parameters:
        lr = settings.lr * (1.0 if id(parameter) in in_trunk else settings.head_lr_factor)
        members.setdefault((lr, parameter.ndim == 1), []).append(parameter)
    groups = [
        {"params": own, "lr": lr, "initial_lr": lr, "weight_decay": 0.0 if is_vector else settings.weight_decay}
        for (lr, is_vector), own in sorted(members.items(), key=lambda item: item[0])
    ]
    # On a GPU one kernel updates everything. On a CPU the fused kernels copy weights that lie in channels_last memory first, and
    # are no faster than the plain ones.
    fused = any(parameter.is_cuda for group in members.values() for parameter in group)
    return rule.optimizer(groups, settings, fused=fused)


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
