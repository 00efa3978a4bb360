"""The focal loss against its formula in float64."""

import numpy as np
import pytest
import torch

from segda.losses.additive import differentiate
from segda.losses.cross_entropy import cross_entropy
from segda.losses.focal import focal
from segda.types import IGNORE_INDEX

ALPHA = torch.tensor([0.75, 0.75, 0.25, 0.75])


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, 4, 5, 6, generator=generator, dtype=torch.float64)
    label = torch.randint(4, (3, 5, 6), generator=generator)
    label[0, 1:] = IGNORE_INDEX
    label[1] = IGNORE_INDEX
    return logits, label, torch.rand(3, 5, 6, generator=generator)


def reference(logits, label, *, gamma, alpha=None, weight=None):
    logits, label = logits.numpy(), label.numpy()
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs = powers / powers.sum(axis=1, keepdims=True)
    valid = label != IGNORE_INDEX
    ids = np.where(valid, label, 0)
    p = np.take_along_axis(probs, ids[:, None], axis=1)[:, 0]
    pixels = -((1 - p) ** gamma) * np.log(p)
    if alpha is not None:
        pixels = pixels * alpha.double().numpy()[ids]
    if weight is not None:
        pixels = pixels * weight.double().numpy()
    return pixels[valid].sum() / valid.sum()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.0])
@pytest.mark.parametrize("alpha", [None, ALPHA])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_formula_with_p_from_the_unweighted_cross_entropy(gamma, alpha, weighted):
    logits, label, weight = batch()
    weight = weight if weighted else None
    expected = reference(logits, label, gamma=gamma, alpha=alpha, weight=weight)
    assert focal(logits, label, weight, gamma=gamma, alpha=alpha).value.item() == pytest.approx(expected, rel=1e-6)


def test_without_gamma_it_is_cross_entropy():
    logits, label, weight = batch()
    got, expected = focal(logits, label, weight, gamma=0.0), cross_entropy(logits, label, weight)
    assert got.value.item() == pytest.approx(expected.value.item(), rel=1e-6)


def test_the_sums_of_parts_give_the_gradient_of_the_whole():
    logits, label, weight = batch()
    leaf = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(focal(leaf, label, weight, alpha=ALPHA).value, leaf)
    parts = [focal(leaf[i : i + 1], label[i : i + 1], weight[i : i + 1], alpha=ALPHA) for i in range(3)]
    sums = torch.stack([part.sums.detach() for part in parts]).sum(0)
    got = sum(torch.autograd.grad(part.sums, leaf, differentiate(part, sums)[1])[0] for part in parts)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_a_batch_of_void_pixels_alone_costs_zero_with_a_graph(gamma):
    logits, label, _ = batch()
    leaf = logits.requires_grad_()
    loss = focal(leaf, torch.full_like(label, IGNORE_INDEX), gamma=gamma, alpha=ALPHA).value
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(leaf.grad, torch.zeros_like(leaf))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_gradient_is_finite_where_a_pixel_is_surely_right_or_surely_wrong(gamma):
    logits = torch.tensor([[200.0, -200.0, 0.0], [-200.0, 200.0, 0.0]]).reshape(1, 2, 1, 3).requires_grad_()
    focal(logits, torch.tensor([[[0, 0, IGNORE_INDEX]]]), gamma=gamma).value.backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 0, 0, 1] < 0  # towards the labelled class
    assert (logits.grad[..., 2] == 0).all()


def test_half_precision_logits_are_summed_in_single_precision():
    logits, label, _ = batch(1)
    big = logits.half().repeat(1, 1, 40, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = focal(big, label.repeat(1, 40, 40)).value.item()
    assert got == pytest.approx(reference(logits.half().double(), label, gamma=2.0), rel=1e-4)
