"""Distillation against its formula in NumPy and float64."""

import numpy as np
import pytest
import torch

from segda.losses.distillation import channel_divergence, distillation


def scores(seed: int) -> torch.Tensor:
    return 4 * torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(seed))


def softmax(logits: torch.Tensor, temperature: float) -> np.ndarray:
    plain = logits.detach().double().numpy() / temperature
    raised = np.exp(plain - plain.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
@pytest.mark.parametrize("some", [False, True])
def test_it_is_the_divergence_of_softened_probabilities_times_the_square_of_the_temperature(temperature, some):
    student, teacher = scores(0), scores(1)
    where = torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(2)) < 0.5
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    pixels = temperature**2 * (q * (np.log(q) - np.log(p))).sum(1)
    expected = pixels[where.numpy()].mean() if some else pixels.mean()
    loss = distillation(student, teacher, temperature=temperature, where=where if some else None)
    assert loss.value.item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_is_that_of_the_formula_and_leads_to_the_teacher():
    """T^2 * KL has the gradient T * (p - q) by the logits: the sign, and which of the two probabilities is which."""
    student, teacher, temperature = scores(0).requires_grad_(), scores(1), 3.0
    (gradient,) = torch.autograd.grad(distillation(student, teacher, temperature=temperature).value, student)
    expected = temperature * (softmax(student, temperature) - softmax(teacher, temperature)) / (2 * 6 * 7)
    assert gradient.double().numpy() == pytest.approx(expected, abs=1e-7)


def test_it_is_zero_where_both_agree_or_nothing_counts():
    student = scores(0).requires_grad_()
    assert distillation(student, student.detach() + 5, temperature=2).value.item() == pytest.approx(0, abs=1e-6)
    nothing = distillation(student, scores(1), temperature=2, where=torch.zeros(2, 6, 7, dtype=torch.bool)).value
    nothing.backward()
    assert nothing.item() == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_a_class_that_the_teacher_rules_out_gives_no_nan():
    teacher = torch.zeros(1, 5, 2, 2)
    teacher[:, 0] = 1e4
    assert distillation(torch.zeros(1, 5, 2, 2), teacher, temperature=1).value.item() == pytest.approx(np.log(5))


def shares(maps: torch.Tensor, where: np.ndarray, temperature: float) -> np.ndarray:
    raised = np.exp(maps.detach().double().numpy() / temperature) * where[:, None]
    return raised / raised.sum((2, 3), keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("some", [False, True])
def test_channels_are_compared_by_their_shares_of_the_positions(temperature, some):
    student, teacher = scores(0), scores(1)
    where = torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(2)) < (0.5 if some else 2)
    p, q = (shares(maps, where.numpy(), temperature) for maps in (student, teacher))
    ratio = np.log(np.divide(q, p, where=q > 0, out=np.ones_like(q)))
    expected = temperature**2 * (q * ratio).sum((2, 3)).mean()
    loss = channel_divergence(student, teacher, temperature=temperature, where=where if some else None)
    assert loss.value.item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_by_a_channel_leads_to_the_shares_of_the_teacher():
    student, teacher, temperature = scores(0).requires_grad_(), scores(1), 3.0
    where = torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(2)) < 0.5
    loss = channel_divergence(student, teacher, temperature=temperature, where=where)
    (gradient,) = torch.autograd.grad(loss.value, student)
    p, q = (shares(maps, where.numpy(), temperature) for maps in (student, teacher))
    assert gradient.double().numpy() == pytest.approx(temperature * (p - q) / (2 * 5), abs=1e-7)


def test_an_image_without_positions_is_left_out_and_what_all_positions_share_changes_nothing():
    student, teacher = scores(0).requires_grad_(), scores(1)
    where = torch.ones(2, 6, 7, dtype=torch.bool)
    where[1] = False
    loss = channel_divergence(student, teacher, temperature=2, where=where).value
    first = channel_divergence(student[:1], teacher[:1], temperature=2).value
    assert loss.item() == pytest.approx(first.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, student)
    assert torch.equal(gradient[1], torch.zeros_like(gradient[1]))
    shifted = teacher + torch.randn(2, 5, 1, 1, generator=torch.Generator().manual_seed(3))
    assert channel_divergence(shifted, teacher, temperature=2).value.item() == pytest.approx(0, abs=1e-5)
    nothing = channel_divergence(student, teacher, temperature=2, where=torch.zeros_like(where)).value
    (gradient,) = torch.autograd.grad(nothing, student)
    assert nothing.item() == 0
    assert torch.equal(gradient, torch.zeros_like(student))
