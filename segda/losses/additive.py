"""A loss that is known by sums: what parts of a batch say of it adds up to what the whole batch says.

A mean over some pixels (labelled ones, confident ones, those of a class) is no mean of the means of its parts: parts have
different numbers of such pixels. So a loss here is not a number but the sums that it is made from, and the formula that makes it
from them: for a mean, a total and a count. The training loop adds the sums of all micro-batches and of all processes, applies the
formula once, and its derivatives tell each part how much each of its own sums weighs. The gradient is that of the whole batch
however it was cut, and no formula has to know that it was.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

Formula = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """A loss of a part of a batch.

    Losses add up and are scaled like numbers: `loss_seg + 0.001 * loss_adv`.

    Attributes:
        sums: float64 [K], with a graph; each is a sum over pixels or images, so that those of parts add up to those of the whole.
        formula: maps sums float64 [K] to the loss, a scalar; differentiable, and the same for every part of a batch.

    Example:
        >>> first, second = mean(torch.tensor(6.0), 2), mean(torch.tensor(1.0), 1)
        >>> first.value.item(), second.value.item()
        (3.0, 1.0)
        >>> first.formula(first.sums + second.sums).item()  # 7 / 3, not the mean of 3 and 1
        2.3333333333333335
    """

    sums: Tensor
    formula: Formula

    @property
    def value(self) -> Tensor:
        """The loss as if this part were all, scalar float64 with a graph."""
        return self.formula(self.sums)

    def __add__(self, other: "Loss") -> "Loss":
        if not isinstance(other, Loss):
            return NotImplemented
        split = len(self.sums)

        def formula(sums: Tensor) -> Tensor:
            return self.formula(sums[:split]) + other.formula(sums[split:])

        return Loss(torch.cat([self.sums, other.sums]), formula)

    def __mul__(self, factor: float) -> "Loss":
        return Loss(self.sums, lambda sums: factor * self.formula(sums))

    __rmul__ = __mul__


def mean(added: Tensor, count: Tensor | int) -> Loss:
    """Return a mean as a loss: added / count, and zero where nothing was counted.

    Args:
        added: sum of what is averaged, a scalar with a graph.
        count: how many were added up, or the sum of their weights: a scalar or a number, >= 0.
    """
    # A number is filled in on the device: copied there from the host, it would be waited for in every step.
    counted = count.double() if isinstance(count, Tensor) else added.new_full((), count, dtype=torch.float64)
    sums = torch.stack([added.double(), counted])
    return Loss(sums, _ratio)


def total(losses: Sequence[Loss]) -> Loss:
    """Return the sum of one or more losses."""
    return reduce(operator.add, losses)


def _ratio(sums: Tensor) -> Tensor:
    added, count = sums
    ratio: Tensor = added / torch.where(count > 0, count, 1.0)
    return ratio


def differentiate(loss: Loss, sums: Tensor) -> tuple[Tensor, Tensor]:
    """Return a loss at the sums of a whole batch, and how much each sum weighs in it.

    Args:
        loss: of any part of the batch.
        sums: of all parts, float64 [K].

    Returns:
        The loss, a scalar, and its derivatives float64 [K]; both detached.
    """
    with torch.enable_grad():
        whole = sums.detach().requires_grad_()
        value = loss.formula(whole)
        (weights,) = torch.autograd.grad(value, whole)
    return value.detach(), weights
