"""Losses by sums: parts add up to the whole, in value and gradient."""

import pytest
import torch

from segda.losses import LOSSES, mean, total
from segda.losses.additive import differentiate
from segda.testing.losses import LOSS_CHECKS, LossCase

NO_SUM = """
from segda.losses import mean
from segda.losses.cross_entropy import cross_entropy


def no_sum(logits, label, weight=None):
    return mean(cross_entropy(logits, label, weight).value, 1)
"""


@pytest.mark.parametrize("check", LOSS_CHECKS.values(), ids=LOSS_CHECKS)
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_keeps_the_contract(name, check):
    check(LossCase(name))


def test_a_loss_that_is_a_mean_of_parts_fails_the_check(guest_folder):
    (guest_folder / "no_sum.py").write_text(NO_SUM)
    with pytest.raises(AssertionError, match="the sums of the images give"):
        LOSS_CHECKS["parts_equal_the_whole"](LossCase("no_sum:no_sum"))


def test_losses_add_up_and_scale_like_numbers():
    first, second = mean(torch.tensor(6.0), 2), mean(torch.tensor(1.0), 4)
    assert (first + 2 * second).value.item() == 3.5
    assert (first * 0.5 + second).value.item() == 1.75
    assert total([first, second, first]).value.item() == 6.25


def test_a_mean_of_nothing_is_zero_and_differentiable():
    nothing = torch.zeros((), requires_grad=True)
    loss = mean(nothing, 0)
    loss.value.backward()
    assert loss.value.item() == 0
    assert torch.isfinite(nothing.grad)


def test_counts_may_carry_a_gradient_too():
    """A mean weighted by something learned: both its sums move."""
    weight = torch.tensor([0.5, 2.0], requires_grad=True)
    values = torch.tensor([3.0, 1.0])
    loss = mean((weight * values).sum(), weight.sum())
    _, weights = differentiate(loss, loss.sums)
    (got,) = torch.autograd.grad(loss.sums, weight, weights)
    expected = (values - (weight * values).sum() / weight.sum()) / weight.sum()
    torch.testing.assert_close(got, expected.detach(), rtol=1e-6, atol=1e-7)
