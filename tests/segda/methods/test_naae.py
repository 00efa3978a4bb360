"""NAAE-like weights of source pixels against a form in NumPy, and which way they go."""

import numpy as np
import pytest
import torch
from torch import nn

from segda.methods import METHODS
from segda.methods.naae import relative_weight
from segda.testing.methods import MethodCase
from segda.types import IGNORE_INDEX

CASE = MethodCase(METHODS["naae"], {"lambda_few": 0.7})


def _weight(scores, label):
    """Return the weights in float64: sigmoid over its mean over the labelled pixels of each image."""
    weight = 1 / (1 + np.exp(-scores))
    for image, known in zip(weight, label != IGNORE_INDEX, strict=True):
        image[~known] = 0
        if known.any():
            image /= image[known].mean()
    return weight


def _cross_entropy(logits, label, weight):
    x = logits.detach().double().numpy()
    log_probs = x - np.log(np.exp(x).sum(1, keepdims=True))
    known = label != IGNORE_INDEX
    picked = np.take_along_axis(log_probs, np.where(known, label, 0)[:, None], 1)[:, 0]
    return -(picked * weight * known).sum() / known.sum()


def _drawn(*shape):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_weights_equal_their_float64_form():
    label = CASE.step().labeled.label
    scores = _drawn(*label.shape)
    got = relative_weight(scores, label)
    np.testing.assert_allclose(got.numpy(), _weight(scores.double().numpy(), label.numpy()), rtol=2e-5)
    for weight, known in zip(got, label != IGNORE_INDEX, strict=True):
        assert weight[known].mean().item() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("shift", [-500.0, -60.0, 60.0])
def test_a_discriminator_that_is_sure_of_one_domain_leaves_weights_with_a_mean_of_one(shift):
    label = torch.zeros(1, 6, 6, dtype=torch.int64)
    scores = _drawn(1, 6, 6)
    weight = relative_weight(scores + shift, label)
    assert weight.mean().item() == pytest.approx(1, rel=1e-5)
    expected = np.exp(scores.double().numpy()) if shift < 0 else np.ones((1, 6, 6))
    np.testing.assert_allclose(weight.numpy(), expected / expected.mean(), rtol=1e-3)


def test_void_pixels_weigh_nothing_and_an_image_of_void_gives_no_nan():
    label = torch.full((2, 4, 4), IGNORE_INDEX)
    label[1, 0, 0] = 3
    weight = relative_weight(_drawn(2, 4, 4), label)
    assert weight.isfinite().all()
    assert (weight[0] == 0).all()
    assert weight[1].sum() == weight[1, 0, 0] == 1


def test_losses_equal_their_float64_form():
    method, step = CASE.build(), CASE.step()
    got = method.training_step(step)
    source, few = method.segmenter(step.labeled.image), method.segmenter(step.few_shot.image)
    judge = method.weighting.double()
    with torch.no_grad():
        source_scores, few_scores = (judge(output.logits.double().softmax(1))[:, 0].numpy() for output in (source, few))
    label, few_label = step.labeled.label.numpy(), step.few_shot.label.numpy()
    weight = _weight(source_scores, label)
    supervised = sum(_cross_entropy(logits, label, weight) for logits in (source.logits, *source.auxiliary))
    of_few = sum(_cross_entropy(logits, few_label, np.ones(few_label.shape)) for logits in (few.logits, *few.auxiliary))
    judging = 0.5 * np.log1p(np.exp(source_scores)).mean() + 0.5 * np.log1p(np.exp(-few_scores)).mean()

    assert got.losses["segmenter"].value.item() == pytest.approx(supervised + 0.7 * of_few, rel=1e-5)
    assert got.losses["discriminator"].value.item() == pytest.approx(judging, rel=1e-5)
    accuracies = [got.logs[f"discriminator_accuracy_{domain}"].value.item() for domain in ("source", "target")]
    assert accuracies == pytest.approx([(source_scores < 0).mean(), (few_scores > 0).mean()], abs=1e-3)


class LeftIsTarget(nn.Module):
    """A discriminator that takes the left half of everything for the target."""

    def forward(self, maps):
        left = torch.arange(maps.shape[3]) < maps.shape[3] // 2
        return torch.where(left, 4.0, -4.0).expand(len(maps), 1, *maps.shape[2:])


def test_pixels_that_look_like_the_target_count_more():
    method, step = CASE.build(), CASE.step()
    method.weighting = LeftIsTarget()
    logits = []
    method.segmenter.register_forward_hook(lambda _module, _images, output: logits.append(output.logits))
    loss_seg = method.training_step(step).logs["loss_seg"].value
    (gradient,) = torch.autograd.grad(loss_seg, logits[0])
    left, right = gradient.abs().sum(1).chunk(2, dim=2)
    assert left.sum() > 20 * right.sum()


def test_the_weights_and_the_weighting_network_get_no_gradient_from_the_segmenters_loss():
    method, step = CASE.build(), CASE.step()
    output = method.training_step(step)
    output.losses["segmenter"].value.backward()
    assert all(parameter.grad is None for parameter in method.weighting.parameters())
    method.zero_grad()
    output.losses["discriminator"].value.backward()
    assert all(parameter.grad is None for parameter in method.segmenter.parameters())
    assert all(parameter.grad is not None for parameter in method.weighting.parameters())


def test_it_is_said_to_be_a_reconstruction():
    assert METHODS["naae"].reconstruction
    assert not METHODS["joint"].reconstruction
    assert "RECONSTRUCTION" in METHODS["naae"].__doc__
