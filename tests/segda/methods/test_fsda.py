"""FSDA's pairs and losses against a form in NumPy, and which way each step moves whom."""

import numpy as np
import pytest
import torch

from segda.draws import Draws
from segda.methods import METHODS
from segda.methods.fsda import kind_loss, pair
from segda.testing.methods import NUM_CLASSES, MethodCase
from segda.types import IGNORE_INDEX

SETTINGS = {"lambda_few": 0.7, "lambda_image": 0.3, "lambda_structure": 0.2}
CASE = MethodCase(METHODS["fsda"], SETTINGS)
SECOND_STAGE = 30  # of forty steps


def _offset(draws, number, purpose, side):
    generator = draws.generator(number, purpose)
    return [int(torch.randint(side // 4, side - side // 4, (), generator=generator)) for _ in range(2)]


def _pairs(probs, label, other_probs, other_label, draws, purpose):
    """Return maps and kinds of pairs, float64 and int64, by indices."""
    height, width = label.shape[1:]
    maps = np.empty((len(label), 2 * probs.shape[1], height, width))
    kind = np.empty(label.shape, np.int64)
    for number in range(len(label)):
        down, right = _offset(draws, number, purpose, height)
        rows, columns = (np.arange(height) - down) % height, (np.arange(width) - right) % width
        maps[number] = np.concatenate([probs[number], other_probs[number][:, rows][:, :, columns]])
        second = other_label[number][rows][:, columns]
        kind[number] = np.where(label[number] == second, 0, 2)
        kind[number][(label[number] == IGNORE_INDEX) | (second == IGNORE_INDEX)] = IGNORE_INDEX
    return maps, kind


def _domain_cost(scores, domain):
    return np.log1p(np.exp(scores if domain == 0 else -scores)).mean()


def _kind_cost(scores, kind, domain):
    costs = []
    log_probs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    for image, row, column in np.ndindex(scores.shape[0], *scores.shape[2:]):
        at = kind[image, 8 * row + 4, 8 * column + 4]
        if at != IGNORE_INDEX:
            costs.append(-log_probs[image, at + domain, row, column])
    return np.mean(costs) if costs else 0.0


def _probs(logits):
    x = logits.detach().double().numpy()
    return np.exp(x) / np.exp(x).sum(1, keepdims=True)


def test_pairs_are_the_first_image_and_the_second_one_moved_around():
    step = CASE.step()
    probs, other = (torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    got = pair(probs, step.labeled.label, other, step.few_shot.label, draws=step.draws, purpose="test")
    labels = step.labeled.label.numpy(), step.few_shot.label.numpy()
    maps, kind = _pairs(probs.numpy(), labels[0], other.numpy(), labels[1], step.draws, "test")
    np.testing.assert_array_equal(got.maps.numpy(), maps.astype(np.float32))
    np.testing.assert_array_equal(got.kind.numpy(), kind)
    assert set(np.unique(kind)) == {0, 2, IGNORE_INDEX}


def test_offsets_are_new_for_every_image_and_step_and_never_small():
    probs = torch.arange(64.0).view(1, 1, 8, 8).expand(6, 1, 8, 8)
    label = torch.zeros(6, 8, 8, dtype=torch.int64)
    seen = set()
    for number in range(4):
        moved = pair(probs, label, probs, label, draws=Draws(seed=0, step=number), purpose="test").maps[:, 1]
        for image in moved:
            row, column = divmod(int((image == 0).nonzero()[0] @ torch.tensor([8, 1])), 8)
            assert 2 <= row < 6
            assert 2 <= column < 6
            seen.add((row, column))
    assert len(seen) > 8


@pytest.mark.parametrize("number", [0, SECOND_STAGE])
def test_losses_equal_their_float64_form_in_both_stages(number):
    method, step = CASE.build(), CASE.step(number)
    got = method.training_step(step)
    source, few = method.segmenter(step.labeled.image), method.segmenter(step.few_shot.image)
    supervised = (
        method.loss(source, step.labeled.label).value.item() + 0.7 * method.loss(few, step.few_shot.label).value.item()
    )
    of_source = _probs(source.logits), step.labeled.label.numpy()
    of_few = _probs(few.logits), step.few_shot.label.numpy()
    within = _pairs(*of_source, *of_source, step.draws, "source and source")
    across = [
        _pairs(*of_source, *of_few, step.draws, "source and few"),
        _pairs(*of_few, *of_few, step.draws, "few and few"),
    ]

    def judged(discriminator, maps):
        with torch.no_grad():
            return discriminator.double()(torch.tensor(maps)).numpy()

    image = [judged(method.of_images, maps) for maps, _ in (within, *across)]
    structure = [judged(method.of_structures, maps) for maps, _ in (within, *across)]
    kinds = [kind for _, kind in (within, *across)]
    adversarial = 0.3 * np.mean([_domain_cost(scores, 0) for scores in image[1:]])
    if number:
        adversarial += 0.2 * np.mean([_kind_cost(*both, 0) for both in zip(structure[1:], kinds[1:], strict=True)])
    judging = 0.5 * (_domain_cost(image[0], 0) + np.mean([_domain_cost(scores, 1) for scores in image[1:]]))
    judging += 0.5 * _kind_cost(structure[0], kinds[0], 0)
    judging += 0.5 * np.mean([_kind_cost(*both, 1) for both in zip(structure[1:], kinds[1:], strict=True)])

    assert got.losses["segmenter"].value.item() == pytest.approx(supervised + adversarial, rel=1e-5)
    assert got.losses["discriminator"].value.item() == pytest.approx(judging, rel=1e-5)
    right = [(image[0] < 0).mean(), np.mean([(scores > 0).mean() for scores in image[1:]])]
    accuracies = [got.logs[f"discriminator_accuracy_{domain}"].value.item() for domain in ("source", "target")]
    assert accuracies == pytest.approx(right, abs=1e-3)


def test_the_structure_level_enters_at_its_share_of_the_training():
    method = CASE.build()
    first, second = (method.training_step(CASE.step(20)._replace(progress=share)) for share in (0.499, 0.5))
    difference = second.logs["loss_adv"].value - first.logs["loss_adv"].value
    assert difference.item() > 0.2 * 0.1
    always = MethodCase(METHODS["fsda"], {**SETTINGS, "first_stage": 0.0}).build()
    assert (
        always.training_step(CASE.step(20)._replace(progress=0.0)).logs["loss_adv"].value
        == second.logs["loss_adv"].value
    )


@pytest.mark.parametrize("level", ["lambda_image", "lambda_structure"])
def test_one_step_of_the_segmenter_makes_pairs_with_the_target_pass_for_source(level):
    # The sign of each level's adversarial loss, by the discriminators' cost on such pairs after a step along it alone.
    case = MethodCase(METHODS["fsda"], {"lambda_image": 0.0, "lambda_structure": 0.0, "first_stage": 0.0, level: 1.0})
    method, step = case.build(), case.step()
    parameters = list(method.segmenter.parameters())
    adversarial = method.training_step(step).logs["loss_adv"].value
    gradients = torch.autograd.grad(adversarial, parameters, allow_unused=True)
    norm = torch.stack([gradient.norm() for gradient in gradients if gradient is not None]).norm()
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter -= 1e-3 * gradient / norm
    assert norm > 0
    assert method.training_step(step).logs["loss_adv"].value < adversarial


def test_the_adversarial_losses_move_target_predictions_alone():
    method, step = CASE.build(normalized=False), CASE.step(SECOND_STAGE)
    seen = {}
    forward = method.segmenter.forward

    def kept(image, **options):
        output = forward(image, **options)
        output.logits.retain_grad()
        seen["few" if image is step.few_shot.image else "source"] = output.logits
        return output

    method.segmenter.forward = kept
    method.training_step(step).logs["loss_adv"].value.backward()
    assert seen["source"].grad is None
    assert seen["few"].grad.abs().sum() > 0


def test_each_loss_reaches_its_own_group_only():
    method, step = CASE.build(), CASE.step(SECOND_STAGE)
    groups = method.parameter_groups()
    for own, other in (("segmenter", "discriminator"), ("discriminator", "segmenter")):
        method.zero_grad()
        torch.autograd.backward(method.training_step(step).losses[own].value, inputs=groups[own])
        assert all(parameter.grad is None for parameter in groups[other])
        assert all(parameter.grad is not None for parameter in groups[own])


@pytest.mark.parametrize("size", [(32, 32), (37, 45)])
def test_pairs_of_void_cost_nothing(size):
    logits = torch.randn(2, 4, size[0] // 8, size[1] // 8, requires_grad=True)
    loss = kind_loss(logits, torch.full((2, *size), IGNORE_INDEX), 1).value
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()
    kind = torch.zeros(2, *size, dtype=torch.int64)
    expected = -logits.double().log_softmax(1)[:, 1].mean().item()
    assert kind_loss(logits, kind, 1).value.item() == pytest.approx(expected, rel=1e-5)


def test_it_is_said_to_be_a_reconstruction():
    assert METHODS["fsda"].reconstruction
    assert "RECONSTRUCTION" in METHODS["fsda"].__doc__
    assert METHODS["fsda"].Config().model_dump()["name"] == "fsda"
    assert CASE.build().of_images.layers[0].in_channels == 2 * NUM_CLASSES
