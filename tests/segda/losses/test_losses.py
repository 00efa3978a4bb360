import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segda.errors import ConfigError
from segda.losses import LOSSES, SegmentationLoss
from segda.losses.cross_entropy import cross_entropy
from segda.losses.dice import dice, dice_published
from segda.types import IGNORE_INDEX, SegmentationOutput


def _batch(seed, *, num_classes=5, size=(2, 6, 7), void=0.3):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size[0], num_classes, *size[1:], generator=generator)
    label = torch.randint(num_classes, size, generator=generator)
    label[torch.rand(size, generator=generator) < void] = IGNORE_INDEX
    return logits, label


def _pixels(logits, label):
    """Return probs float64 [N, C] and ids [N] of the pixels that are not void, in NumPy."""
    rows = logits.double().permute(0, 2, 3, 1).reshape(-1, logits.shape[1]).numpy()
    ids = label.reshape(-1).numpy()
    keep = ids != IGNORE_INDEX
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True))[keep], ids[keep]


def _cross_entropy_reference(probs, ids):
    return -np.log(probs[np.arange(len(ids)), ids]).mean()


def _dice_reference(probs, ids):
    scores = []
    for train_id in np.unique(ids):
        truth = (ids == train_id).astype(np.float64)
        p = probs[:, train_id]
        scores.append(2 * (p * truth).sum() / (p.sum() + truth.sum()))
    return 1 - np.mean(scores)


def _dice_published_reference(probs, ids):
    one_hot = np.eye(probs.shape[1])[ids]
    return 1 - 2 * (probs * one_hot).sum() / (probs + one_hot).sum()


def _focal_reference(probs, ids, gamma=2.0):
    p = probs[np.arange(len(ids)), ids]
    return (-((1 - p) ** gamma) * np.log(p)).mean()


def _whole_reference(probs, ids):
    return _cross_entropy_reference(probs, ids) + _dice_reference(probs, ids)


REFERENCES = {
    "cross_entropy": _cross_entropy_reference,
    "dice": _dice_reference,
    "dice_published": _dice_published_reference,
    "cross_entropy_dice": _whole_reference,
    "focal": _focal_reference,
    # With every pixel kept; which ones are kept is a matter of images and tested apart.
    "ohem": _cross_entropy_reference,
}
SETTINGS = {"ohem": {"least": 1.0}}

every_loss = pytest.mark.parametrize("name", LOSSES)


def loss_of(name, logits, label, weight=None, class_weight=None, **settings):
    rule = LOSSES[name]
    config = rule.Config(name=name, **SETTINGS.get(name, {}) | settings)
    return rule.loss(logits, label, weight=weight, class_weight=class_weight, settings=config)


@pytest.mark.parametrize("channels_last", [False, True])
@every_loss
def test_a_loss_equals_its_float64_form(name, channels_last):
    for seed in range(3):
        logits, label = _batch(seed)
        if channels_last:
            logits = logits.contiguous(memory_format=torch.channels_last)
        expected = REFERENCES[name](*_pixels(logits, label))
        assert loss_of(name, logits, label).value.item() == pytest.approx(expected, rel=1e-5)


@every_loss
def test_the_gradient_equals_finite_differences(name):
    logits, label = _batch(0, num_classes=3, size=(1, 3, 3))
    leaf = logits.clone().requires_grad_()
    loss_of(name, leaf, label).value.backward()
    numeric = np.zeros(logits.shape)
    for index in itertools.product(*map(range, logits.shape)):
        for sign in (1, -1):
            moved = logits.double()
            moved[index] += sign * 1e-5
            numeric[index] += sign * REFERENCES[name](*_pixels(moved, label)) / 2e-5
    np.testing.assert_allclose(leaf.grad.numpy(), numeric, atol=2e-6)


@every_loss
def test_a_gradient_step_lowers_the_loss(name):
    logits, label = _batch(1)
    leaf = logits.requires_grad_()
    before = loss_of(name, leaf, label).value
    before.backward()
    assert loss_of(name, leaf.detach() - leaf.grad, label).value < before


@every_loss
def test_a_perfect_prediction_costs_nothing(name):
    _, label = _batch(2)
    certain = torch.where(label.unsqueeze(1) == torch.arange(5).view(1, -1, 1, 1), 200.0, -200.0)
    assert loss_of(name, certain, label).value.item() == pytest.approx(0, abs=1e-6)


@every_loss
def test_a_perfect_prediction_costs_nothing_when_classes_are_absent(name):
    label = torch.full((2, 4, 4), 3)
    certain = torch.full((2, 7, 4, 4), -200.0)
    certain[:, 3] = 200.0
    assert loss_of(name, certain, label).value.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("num_classes", [2, 7, 12])
def test_a_uniform_prediction_costs_the_closed_form(num_classes):
    label = torch.arange(num_classes).repeat(6).view(1, 6, num_classes)
    uniform = torch.zeros(1, num_classes, 6, num_classes)
    assert cross_entropy(uniform, label).value.item() == pytest.approx(math.log(num_classes))
    assert dice_published(uniform, label).value.item() == pytest.approx(1 - 1 / num_classes)
    # With equally frequent classes both sums of the denominator are n, so the class-wise form agrees.
    assert dice(uniform, label).value.item() == pytest.approx(1 - 1 / num_classes)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_logits_at_void_pixels_change_nothing(seed):
    logits, label = _batch(seed)
    void = (label == IGNORE_INDEX).unsqueeze(1)
    other = torch.where(void, 20 * _batch(seed + 1)[0], logits)
    for name in LOSSES:
        expected = loss_of(name, logits, label).value.item()
        assert loss_of(name, other, label).value.item() == pytest.approx(expected, rel=1e-5)


@every_loss
def test_void_pixels_get_no_gradient(name):
    logits, label = _batch(3)
    leaf = logits.requires_grad_()
    loss_of(name, leaf, label).value.backward()
    void = (label == IGNORE_INDEX).unsqueeze(1).expand_as(leaf)
    assert leaf.grad[void].abs().max() == 0
    assert leaf.grad[~void].abs().max() > 0


@every_loss
def test_an_all_void_batch_costs_zero_and_can_be_back_propagated(name):
    logits, label = _batch(4, void=1.1)
    leaf = logits.requires_grad_()
    loss = loss_of(name, leaf, label).value
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(leaf.grad, torch.zeros_like(leaf))


@every_loss
def test_half_precision_logits_lose_nothing_in_the_sums(name):
    logits, label = _batch(5, size=(1, 300, 300), void=0.0)
    half = logits.half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(name, half, label).value
    assert loss.item() == pytest.approx(REFERENCES[name](*_pixels(half, label)), rel=1e-5)


def test_dice_keeps_its_precision_over_millions_of_pixels():
    # Added one by one in float32, each 0.3 counts as 0.25 once the sum has passed a million.
    logits = torch.tensor([0.3, 0.7]).log().view(1, 2, 1, 1).expand(1, 2, 2500, 2400)
    label = torch.zeros(1, 2500, 2400, dtype=torch.int64)
    assert dice(logits, label).value.item() == pytest.approx(1 - 2 * 0.3 / 1.3, rel=1e-4)


def test_dice_weighs_classes_alike_and_the_published_form_weighs_pixels():
    label = torch.zeros(1, 10, 10, dtype=torch.int64)
    label[0, 0, 0] = 1
    blind = torch.stack([torch.full((1, 10, 10), 100.0), torch.zeros(1, 10, 10)], dim=1)
    assert dice_published(blind, label).value.item() == pytest.approx(0.01)
    assert dice(blind, label).value.item() == pytest.approx(1 - (2 * 99 / 199) / 2, rel=1e-5)


def test_auxiliary_outputs_are_weighed_and_summed():
    outputs = [_batch(seed)[0] for seed in range(3)]
    _, label = _batch(0)
    output = SegmentationOutput(logits=outputs[0], auxiliary=tuple(outputs[1:]), features=outputs[0])
    main, first, second = (cross_entropy(logits, label).value.item() for logits in outputs)
    loss = SegmentationLoss("cross_entropy", auxiliary_weight=0.4)
    assert loss(output, label).value.item() == pytest.approx(main + 0.4 * (first + second))


def test_no_auxiliary_weight_trains_the_main_output_only():
    main, label = _batch(0)
    auxiliary = torch.full_like(main, float("nan"))
    output = SegmentationOutput(logits=main, auxiliary=(auxiliary,), features=main)
    assert SegmentationLoss("dice", auxiliary_weight=0.0)(output, label).value.item() == dice(main, label).value.item()


def test_an_unknown_loss_names_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown loss 'dise' \(did you mean 'dice'\?\)"):
        SegmentationLoss("dise")


def test_a_negative_auxiliary_weight_is_refused():
    with pytest.raises(ConfigError, match=r"loss: auxiliary_weight: must be at least 0, got -1"):
        SegmentationLoss("dice", auxiliary_weight=-1.0)


def _weighted_reference(name, probs, ids, weight, of_class=None):
    """Return a loss with weights of pixels and of classes, from the formula."""
    at_label = probs[np.arange(len(ids)), ids]
    of_class = np.ones(probs.shape[1]) if of_class is None else of_class
    own = of_class[ids]
    if name in ("cross_entropy", "ohem"):
        return -(own * weight * np.log(at_label)).sum() / own.sum()
    if name == "focal":
        return -(own * weight * (1 - at_label) ** 2 * np.log(at_label)).sum() / own.sum()
    if name == "dice_published":
        return (own * weight * (1 - at_label)).sum() / (own * weight).sum()
    if name == "cross_entropy_dice":
        parts = ("cross_entropy", "dice")
        return sum(_weighted_reference(part, probs, ids, weight, of_class) for part in parts)
    missing, counted = 0.0, 0.0
    for train_id in np.unique(ids):
        truth = ids == train_id
        p = probs[:, train_id]
        score = 2 * (weight * p * truth).sum() / ((weight * p).sum() + (weight * truth).sum())
        missing += of_class[train_id] * (1 - score)
        counted += of_class[train_id]
    return missing / counted


@every_loss
def test_weights_act_on_pixels_as_their_float64_form_says(name):
    logits, label = _batch(6)
    weight = torch.rand(label.shape, generator=torch.Generator().manual_seed(1))
    kept = weight.double().numpy()[label.numpy() != IGNORE_INDEX]
    expected = _weighted_reference(name, *_pixels(logits, label), kept)
    assert loss_of(name, logits, label, weight).value.item() == pytest.approx(expected, rel=1e-5)
    per_image = torch.tensor([0.25, 1.0]).view(2, 1, 1)
    spread = loss_of(name, logits, label, per_image.expand_as(label)).value
    assert loss_of(name, logits, label, per_image).value.item() == pytest.approx(spread.item())
    assert loss_of(name, logits, label, torch.ones(1, 1, 1)).value.item() == pytest.approx(
        loss_of(name, logits, label).value.item(), rel=1e-6
    )


CLASS_WEIGHT = torch.tensor([0.4, 3.0, 1.0, 9.0, 0.2])


@pytest.mark.parametrize("weighted", [False, True])
@every_loss
def test_class_weights_act_as_their_float64_form_says(name, weighted):
    logits, label = _batch(7)
    label[label == 3] = 2  # a class with a large weight and no pixel
    weight = torch.rand(label.shape, generator=torch.Generator().manual_seed(1)) if weighted else None
    kept = (torch.ones(label.shape) if weight is None else weight).double().numpy()[label.numpy() != IGNORE_INDEX]
    expected = _weighted_reference(name, *_pixels(logits, label), kept, CLASS_WEIGHT.double().numpy())
    got = loss_of(name, logits, label, weight, CLASS_WEIGHT).value.item()
    assert got == pytest.approx(expected, rel=1e-5)
    assert got != pytest.approx(loss_of(name, logits, label, weight).value.item(), rel=1e-3)


@every_loss
def test_the_mean_divides_by_the_sum_of_class_weights_so_that_their_scale_changes_nothing(name):
    logits, label = _batch(8)
    once, tenfold = (loss_of(name, logits, label, None, factor * CLASS_WEIGHT).value.item() for factor in (1, 10))
    assert once == pytest.approx(tenfold, rel=1e-5)


@every_loss
def test_with_class_weights_an_all_void_batch_costs_zero_where_pytorch_divides_zero_by_zero(name):
    logits, label = _batch(4, void=1.1)
    leaf = logits.requires_grad_()
    loss = loss_of(name, leaf, label, None, CLASS_WEIGHT).value
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(leaf.grad, torch.zeros_like(leaf))


def test_weighted_cross_entropy_is_pytorchs_where_that_is_defined():
    logits, label = _batch(9)
    expected = torch.nn.functional.cross_entropy(logits, label, CLASS_WEIGHT, ignore_index=IGNORE_INDEX)
    assert cross_entropy(logits, label, class_weight=CLASS_WEIGHT).value.item() == pytest.approx(expected.item())


def test_settings_of_a_loss_reach_its_formula():
    logits, label = _batch(0)
    output = SegmentationOutput(logits=logits, auxiliary=(), features=logits)
    expected = _focal_reference(*_pixels(logits, label), gamma=4.0)
    assert SegmentationLoss("focal", gamma=4.0)(output, label).value.item() == pytest.approx(expected, rel=1e-5)
    probs, ids = _pixels(logits, label)
    expected = _cross_entropy_reference(probs, ids) + 3 * _dice_reference(probs, ids)
    loss = SegmentationLoss("cross_entropy_dice", lambda_dice=3.0)
    assert loss(output, label).value.item() == pytest.approx(expected, rel=1e-5)


def test_class_weights_weigh_auxiliary_outputs_too_move_with_the_loss_and_are_not_saved():
    main, label = _batch(0)
    other, _ = _batch(1)
    output = SegmentationOutput(logits=main, auxiliary=(other,), features=main)
    loss = SegmentationLoss("cross_entropy", auxiliary_weight=0.5, class_weight=CLASS_WEIGHT.tolist())
    parts = [cross_entropy(logits, label, class_weight=CLASS_WEIGHT).value.item() for logits in (main, other)]
    assert loss(output, label).value.item() == pytest.approx(parts[0] + 0.5 * parts[1])
    assert loss.to("meta").class_weight.is_meta
    assert loss.state_dict() == {}
