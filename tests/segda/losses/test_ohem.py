"""Which pixels count as hard, against a loop over images in float64."""

import math

import numpy as np
import pytest
import torch

from segda.losses.ohem import ohem
from segda.types import IGNORE_INDEX

CLASS_WEIGHT = torch.tensor([0.4, 3.0, 1.0, 9.0])


def batch(seed=0, *, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(3, 4, 9, 7, generator=generator, dtype=torch.float64)
    label = torch.randint(4, (3, 9, 7), generator=generator)
    label[0, 2:] = IGNORE_INDEX
    label[1] = IGNORE_INDEX
    return logits, label, torch.rand(3, 9, 7, generator=generator)


def reference(logits, label, *, threshold, least, weight=None, class_weight=None):
    added = counted = 0.0
    for image in range(len(label)):
        rows = logits[image].permute(1, 2, 0).reshape(-1, 4).numpy()
        ids = label[image].flatten().numpy()
        valid = ids != IGNORE_INDEX
        probs = np.exp(rows[valid]) / np.exp(rows[valid]).sum(axis=1, keepdims=True)
        losses = -np.log(probs[np.arange(valid.sum()), ids[valid]])
        pixel = np.ones(valid.sum()) if weight is None else weight[image].flatten().double().numpy()[valid]
        own = np.ones(valid.sum()) if class_weight is None else class_weight.double().numpy()[ids[valid]]
        kept = losses > -math.log(threshold)
        number = math.ceil(least * valid.sum())
        if kept.sum() < number:
            kept = np.zeros(valid.sum(), dtype=bool)
            kept[np.argsort(-losses)[:number]] = True
        added += (losses * pixel * own)[kept].sum()
        counted += own[kept].sum()
    return added / counted if counted else 0.0


@pytest.mark.parametrize("scale", [0.1, 3.0, 1.0])  # all hard; some; hardly any, so that the least number decides
@pytest.mark.parametrize("least", [1 / 16, 0.3, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_mean_over_the_hard_pixels_of_each_image(scale, least, weighted):
    logits, label, weight = batch(scale=scale)
    if scale == 1.0:  # nearly everything right
        logits = logits.scatter_add(
            1, label.masked_fill(label == IGNORE_INDEX, 0)[:, None], torch.full((3, 1, 9, 7), 5.0).double()
        )
    extra = {"weight": weight, "class_weight": CLASS_WEIGHT} if weighted else {}
    expected = reference(logits, label, threshold=0.7, least=least, **extra)
    assert ohem(logits, label, threshold=0.7, least=least, **extra).value.item() == pytest.approx(expected, rel=1e-5)


def test_easy_pixels_get_no_gradient_and_hard_ones_do():
    probability = torch.tensor([0.95, 0.75, 0.65, 0.2])
    logits = torch.stack([probability, 1 - probability]).log().reshape(1, 2, 1, 4).requires_grad_()
    ohem(logits, torch.zeros(1, 1, 4, dtype=torch.int64), threshold=0.7, least=0.25).value.backward()
    moved = logits.grad.abs().sum(1).flatten() > 0
    assert moved.tolist() == [False, False, True, True]
    assert logits.grad[0, 0, 0, 3] < logits.grad[0, 0, 0, 2] < 0  # towards the labelled class, the hardest most


def test_where_all_is_learned_the_hardest_pixels_are_still_kept():
    """Otherwise the mean over no pixel would be NaN, or training would stop."""
    probability = torch.tensor([0.99, 0.98, 0.97, 0.9])
    logits = torch.stack([probability, 1 - probability]).log().reshape(1, 2, 1, 4)
    loss = ohem(logits, torch.zeros(1, 1, 4, dtype=torch.int64), threshold=0.7, least=0.25)
    assert loss.value.item() == pytest.approx(-math.log(0.9), rel=1e-5)


def test_void_pixels_are_no_part_of_the_least_number():
    """A share of all pixels would keep every labelled pixel of an image that is mostly void."""
    probability = torch.tensor([0.9] + [0.99] * 7 + [0.5] * 8)
    logits = torch.stack([probability, 1 - probability]).log().reshape(1, 2, 1, 16)
    label = torch.zeros(1, 1, 16, dtype=torch.int64)
    label[..., 8:] = IGNORE_INDEX
    assert ohem(logits, label, threshold=0.7, least=1 / 8).value.item() == pytest.approx(-math.log(0.9), rel=1e-5)


def test_a_batch_of_void_pixels_alone_costs_zero_with_a_graph():
    logits, label, _ = batch()
    leaf = logits.requires_grad_()
    loss = ohem(leaf, torch.full_like(label, IGNORE_INDEX)).value
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(leaf.grad, torch.zeros_like(leaf))


def test_a_training_that_diverged_is_not_taken_for_one_that_is_easy():
    logits, label, _ = batch()
    logits[2, :, 4, 3] = float("nan")
    assert math.isnan(ohem(logits, label).value.item())


def test_class_weights_do_not_decide_what_is_hard():
    """-ln p times a weight of 9 would be above the threshold for every pixel of that class."""
    logits = torch.tensor([0.9, 0.1]).log().view(1, 2, 1, 1).expand(1, 2, 4, 4).clone()
    logits[0, :, 0, 0] = torch.tensor([0.4, 0.6]).log()
    heavy = torch.tensor([9.0, 1.0])
    label = torch.zeros(1, 4, 4, dtype=torch.int64)
    loss = ohem(logits, label, threshold=0.7, least=1 / 16, class_weight=heavy)
    assert loss.value.item() == pytest.approx(-math.log(0.4), rel=1e-5)
