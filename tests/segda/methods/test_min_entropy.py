"""Entropy minimization: its loss in NumPy, and the collapse that it ends in without its guard."""

import numpy as np
import pytest
import torch
from torch import Tensor

from segda.batch_norm import running_averages_kept
from segda.draws import Draws
from segda.methods import METHODS, Method, StepInput
from segda.testing.methods import BATCH_SIZE, NUM_CLASSES, MethodCase, make_optimizers, run_steps
from segda.types import IGNORE_INDEX, LabeledBatch, UnlabeledBatch


def case(**settings) -> MethodCase:
    return MethodCase(METHODS["min_entropy"], settings)


def expected_terms(logits: Tensor, label: np.ndarray, shown: np.ndarray, share: float) -> tuple[float, float]:
    """Return H and G of one output."""
    plain = logits.detach().double().numpy()
    raised = np.exp(plain - plain.max(1, keepdims=True))
    probs = (raised / raised.sum(1, keepdims=True)).transpose(0, 2, 3, 1)[shown]
    known = label[label != IGNORE_INDEX]
    frequency = np.bincount(known, minlength=NUM_CLASSES) / len(known)
    entropy = -(probs * np.log(probs)).sum(1).mean() / np.log(NUM_CLASSES)
    return entropy, np.maximum(0, share * frequency - probs.mean(0)).sum()


@pytest.mark.parametrize("padded", [False, True])
def test_a_step_is_the_formula(padded):
    settings = {"lambda_ent": 0.3, "lambda_ent_auxiliary": 0.2, "lambda_prior": 7.0, "prior_share": 0.9}
    used = case(**settings)
    method = used.build()
    run_steps(used, method, make_optimizers(method), range(20))
    step = used.step(20, padded=padded)
    shown = np.ones((BATCH_SIZE, 32, 32), dtype=bool) if step.target.valid is None else step.target.valid.numpy()
    with running_averages_kept(method.segmenter):
        target = method.segmenter(step.target.image)
    label = step.labeled.label.numpy()
    main = expected_terms(target.logits, label, shown, 0.9)
    auxiliary = expected_terms(target.auxiliary[0], label, shown, 0.9)
    logs = {name: item.value.item() for name, item in method.training_step(step).logs.items()}
    assert logs["loss_ent"] == pytest.approx(0.3 * main[0] + 0.2 * auxiliary[0], rel=1e-5)
    assert logs["loss_prior"] == pytest.approx(7 * (0.3 * main[1] + 0.2 * auxiliary[1]), rel=1e-4, abs=1e-9)
    assert logs["loss_prior"] > 0
    total = method.training_step(step).losses["segmenter"].value.item()
    assert total == pytest.approx(sum(logs.values()), rel=1e-6)


def test_lambda_zero_is_source_only_but_for_statistics():
    plain, other = MethodCase(METHODS["source_only"]), case(lambda_ent=0, batch_norm="source")
    method, without = plain.build(), other.build()
    run_steps(plain, method, make_optimizers(method), range(3))
    run_steps(other, without, make_optimizers(without), range(3))
    for name, value in method.segmenter.state_dict().items():
        assert torch.equal(without.segmenter.state_dict()[name], value), name


COLORS = torch.randn(NUM_CLASSES, 3, generator=torch.Generator().manual_seed(9))


def shifted(number: int) -> tuple[StepInput, Tensor]:
    """Return a batch whose target images are halfway to one color, that of the most frequent class, and their truth."""
    generator = torch.Generator().manual_seed(number)
    shares = torch.tensor([0.6, 0.1, 0.1, 0.1, 0.1])

    def images(strength: float) -> tuple[Tensor, Tensor]:
        coarse = torch.multinomial(shares, BATCH_SIZE * 16, replacement=True, generator=generator)
        label = coarse.view(BATCH_SIZE, 4, 4).repeat_interleave(8, 1).repeat_interleave(8, 2)
        image = strength * COLORS[label] + (1 - strength) * COLORS[0]
        noise = 0.1 * torch.randn(BATCH_SIZE, 3, 32, 32, generator=generator)
        return image.permute(0, 3, 1, 2) + noise, label

    source, truth = images(1.0), images(0.5)
    step = StepInput(LabeledBatch(*source), UnlabeledBatch(truth[0]), None, 0.0, Draws(seed=0, step=number))
    return step, truth[1]


def trained(**settings) -> Method:
    method = case(**settings).build(normalized=False)
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    for number in range(150):
        method.training_step(shifted(number % 8)[0]).losses["segmenter"].value.backward()
        optimizer.step()
        optimizer.zero_grad()
    return method


@torch.no_grad()
def outcome(method: Method) -> tuple[float, float]:
    """Return the share of the most predicted class, and the accuracy, on target images that were not trained on."""
    counts, right = torch.zeros(NUM_CLASSES), []
    for number in range(100, 104):
        step, truth = shifted(number)
        prediction = method.segmenter(step.target.image).logits.argmax(1)
        counts += torch.bincount(prediction.flatten(), minlength=NUM_CLASSES)
        right.append(float((prediction == truth).float().mean()))
    return float(counts.max() / counts.sum()), sum(right) / len(right)


@pytest.fixture(scope="module")
def on_the_source_alone() -> tuple[float, float]:
    return outcome(trained(lambda_ent=0.0))


@pytest.mark.parametrize("weight", [3.0, 10.0])
def test_entropy_alone_collapses_to_one_class_and_its_guard_prevents_that(weight, on_the_source_alone):
    largest, accuracy = outcome(trained(lambda_ent=weight, lambda_prior=0.0))
    assert largest > 0.999
    assert accuracy <= on_the_source_alone[1]
    largest, accuracy = outcome(trained(lambda_ent=weight))
    assert largest < 0.9
    assert accuracy > on_the_source_alone[1] + 0.05


@pytest.mark.parametrize("setting", [{"lambda_ent": -1.0}, {"prior_share": 1.1}, {"lambda_prior": -1.0}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        case(**setting).build()
