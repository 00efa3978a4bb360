"""Adversarial adaptation against a form of its losses in NumPy, and which way each step moves whom."""

import numpy as np
import pytest
import torch
from torch import nn

from segda.losses.adversarial import SOURCE_DOMAIN, adversarial_loss
from segda.methods import METHODS
from segda.testing.methods import MethodCase

SETTINGS = [
    {},
    {"input": "self_information"},
    {"input": "self_information", "scaled_information": True, "discriminator": "light_light"},
    {"kind": "least_squares", "levels": "multi"},
    {"discriminator": "multi_class_light"},
    {"discriminator": "multi_class_light", "kind": "least_squares", "input": "self_information"},
    {"discriminator": "pixel"},
]
every_setting = pytest.mark.parametrize(
    "settings", SETTINGS, ids=lambda settings: "-".join(map(str, settings.values())) or "default"
)


def case(settings):
    return MethodCase(METHODS["adversarial"], {"lambda_adv": 0.3, "lambda_adv_auxiliary": 0.05, **settings})


def _maps(logits, config):
    x = logits.detach().double().numpy()
    probs = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    if config.input == "softmax":
        return probs
    information = -probs * np.log2(probs + 1e-30) / np.log2(x.shape[1])
    return information * np.e * np.log(x.shape[1]) if config.scaled_information else information


def _cost(scores, domain, kind):
    """Return the mean cost and the share of right outputs of domain scores float64 [B, K, h, w]."""
    outputs = scores.shape[1]
    if outputs == 1:
        right = (scores > (0.5 if kind == "least_squares" else 0)) == (domain == 1)
        if kind == "least_squares":
            return ((scores - domain) ** 2).mean(), right.mean()
        said_target = 1 / (1 + np.exp(-scores))
        return -np.log(said_target if domain == 1 else 1 - said_target).mean(), right.mean()
    right = (scores[:, 1] > scores[:, 0]) == (domain == 1)
    if kind == "least_squares":
        return ((scores - np.eye(outputs)[domain][None, :, None, None]) ** 2).sum(1).mean(), right.mean()
    probs = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return -np.log(probs[:, domain]).mean(), right.mean()


@every_setting
def test_losses_and_accuracies_equal_their_float64_form(settings):
    method, step = case(settings).build(), case(settings).step()
    config, kind = method.config, method.config.kind
    got = method.training_step(step)
    source, target = method.segmenter(step.labeled.image), method.segmenter(step.target.image)

    adversarial = discriminating = 0.0
    right = []
    levels = zip(
        method.discriminators, [source.logits, *source.auxiliary], [target.logits, *target.auxiliary], strict=False
    )
    for level, (discriminator, of_source, of_target) in enumerate(levels):
        judge = discriminator.double()
        with torch.no_grad():
            scores = [judge(torch.tensor(_maps(logits, config))).numpy() for logits in (of_source, of_target)]
        adversarial += (config.lambda_adv_auxiliary if level else config.lambda_adv) * _cost(scores[1], 0, kind)[0]
        discriminating += 0.5 * _cost(scores[0], 0, kind)[0] + 0.5 * _cost(scores[1], 1, kind)[0]
        right.append((_cost(scores[0], 0, kind)[1], _cost(scores[1], 1, kind)[1]))
    supervised = method.loss(source, step.labeled.label).value.item()

    assert got.losses["segmenter"].value.item() == pytest.approx(supervised + adversarial, rel=1e-5)
    assert got.losses["discriminator"].value.item() == pytest.approx(discriminating, rel=1e-5)
    for name, expected in zip(("source", "target"), np.mean(right, axis=0), strict=True):
        assert got.logs[f"discriminator_accuracy_{name}"].value.item() == pytest.approx(expected, abs=1e-3)


def _cost_of_passing(method, step):
    """Return how far the main discriminator is from calling the target's predictions the source's."""
    with torch.no_grad():
        scores = method.discriminators[0](method._maps(method.segmenter(step.target.image).logits))
    return adversarial_loss(scores, SOURCE_DOMAIN, kind=method.config.kind).value.item()


@every_setting
def test_one_step_of_the_segmenter_makes_target_predictions_pass_for_source(settings):
    # The sign of the adversarial loss: it holds target predictions against the source's number, and all methods share both numbers.
    method, step = case({**settings, "lambda_adv": 1.0}).build(), case(settings).step()
    adversarial = method.training_step(step).logs["loss_adv"].value
    parameters = list(method.segmenter.parameters())
    gradients = torch.autograd.grad(adversarial, parameters, allow_unused=True)
    before = _cost_of_passing(method, step)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter -= 1e-3 * gradient / torch.stack([g.norm() for g in gradients if g is not None]).norm()
    assert _cost_of_passing(method, step) < before


@every_setting
def test_one_step_of_the_discriminator_tells_the_domains_better(settings):
    method, step = case(settings).build(), case(settings).step()
    loss = method.training_step(step).losses["discriminator"]
    parameters = list(method.discriminators.parameters())
    gradients = torch.autograd.grad(loss.value, parameters, retain_graph=True)
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= 1e-3 * gradient / norm
    assert method.training_step(step).losses["discriminator"].value < loss.value


def test_the_segmenters_loss_leaves_the_discriminator_alone_and_the_other_way_round():
    # Each loss is back-propagated into its own group only; what would be the wrong sign for a discriminator never reaches it.
    settings = {"levels": "multi"}
    method, step = case(settings).build(), case(settings).step()
    groups = method.parameter_groups()
    for own, other in (("segmenter", "discriminator"), ("discriminator", "segmenter")):
        method.zero_grad()
        torch.autograd.backward(method.training_step(step).losses[own].value, inputs=groups[own])
        assert all(parameter.grad is None for parameter in groups[other])
        assert any(parameter.grad.abs().sum() > 0 for parameter in groups[own] if parameter.grad is not None)


@pytest.mark.parametrize("mixing", ["separate", "source", "joint"])
def test_running_statistics_blend_the_domains_as_asked(mixing):
    settings = {"batch_norm": mixing}
    method, step = case(settings).build(), case(settings).step()
    layer = next(module for module in method.segmenter.modules() if isinstance(module, nn.BatchNorm2d))
    before = layer.num_batches_tracked.item()
    method.training_step(step)
    assert layer.num_batches_tracked.item() - before == (2 if mixing == "separate" else 1)
