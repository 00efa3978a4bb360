"""Losses by sums: parts add up to the whole, in value and gradient."""

import pytest
import torch

from segda.losses import LOSSES, mean, total
from segda.losses.additive import differentiate
from segda.types import IGNORE_INDEX


def batch():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4, 5, 6, 7, generator=generator, dtype=torch.float64)
    label = torch.randint(5, (4, 6, 7), generator=generator)
    label[0, 1:] = IGNORE_INDEX  # parts with very different numbers of labelled pixels
    label[1] = IGNORE_INDEX
    return logits, label, torch.rand(4, 6, 7, generator=generator)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_the_sums_of_parts_give_the_loss_and_the_gradient_of_the_whole(name, weighted):
    logits, label, weight = batch()
    leaf = logits.clone().requires_grad_()
    whole = LOSSES[name](leaf, label, weight if weighted else None)
    (expected,) = torch.autograd.grad(whole.value, leaf)

    leaf = logits.clone().requires_grad_()
    parts = [
        LOSSES[name](leaf[first : first + 1], label[first : first + 1], weight[first : first + 1] if weighted else None)
        for first in range(4)
    ]
    sums = torch.stack([part.sums.detach() for part in parts]).sum(0)
    got = torch.zeros_like(leaf)
    for part in parts:
        value, weights = differentiate(part, sums)
        got += torch.autograd.grad(part.sums, leaf, weights)[0]
        torch.testing.assert_close(value, whole.value.detach(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)
    alone = total([(1 / 4) * part for part in parts]).value
    assert abs(alone.item() - whole.value.item()) > 1e-3  # the mean of means is another loss


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
