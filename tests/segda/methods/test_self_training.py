"""Self-training: what it labels, when, and what it learns from the labels."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from segda.losses import Loss
from segda.methods import METHODS, StepInput
from segda.methods.self_training import SUBSAMPLING, SelfTraining, SelfTrainingConfig
from segda.methods.thresholds import (
    adapted_thresholds,
    class_balanced_thresholds,
    count_confidences,
    label_by_thresholds,
    label_the_confident,
)
from segda.testing.methods import NUM_CLASSES, MethodCase
from segda.types import IGNORE_INDEX, PseudoLabel, UnlabeledBatch


def build(**settings: object) -> SelfTraining:
    method = MethodCase(METHODS["self_training"], settings).build()
    assert isinstance(method, SelfTraining)
    return method


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(size, 3, 32, 32, generator=generator) for size in (3, 3, 1)]


class Twice:
    """Images that count how often they are gone through."""

    def __init__(self) -> None:
        self.times = 0

    def __iter__(self) -> Iterator[Tensor]:
        self.times += 1
        return iter(batches())


@torch.no_grad()
def labels(method: SelfTraining, *, number: int = 1) -> list[Tensor]:
    method.eval()
    return [pseudo.label for pseudo in method.pseudo_labels(Twice(), number=number)]


def test_rounds_are_equally_long_and_fill_what_the_warm_up_leaves():
    assert build(warm_up=0.4, rounds=3).round_starts() == pytest.approx((0.4, 0.6, 0.8))
    assert build(warm_up=0.0, rounds=1).round_starts() == (0.0,)


def test_thresholds_are_those_of_all_images_together_at_every_fourth_pixel():
    method = build(portion=0.3)
    images = Twice()
    with torch.no_grad():
        got = [pseudo.label for pseudo in method.eval().pseudo_labels(images, number=1)]
        probs = [method.segmenter(image).logits.softmax(1) for image in batches()]
    assert images.times == 2
    counts = count_confidences(torch.cat(probs)[:, :, ::SUBSAMPLING, ::SUBSAMPLING])
    thresholds = class_balanced_thresholds(counts, 0.3)
    for label, own in zip(got, probs, strict=True):
        assert torch.equal(label, label_by_thresholds(own, thresholds))
    share = float((torch.cat(got) != IGNORE_INDEX).float().mean())
    assert share == pytest.approx(0.3, abs=0.05)


def test_the_portion_grows_from_round_to_round_up_to_its_maximum():
    method = build(portion=0.2, portion_step=0.2, portion_max=0.5)
    shares = [float((torch.cat(labels(method, number=n)) != IGNORE_INDEX).float().mean()) for n in (1, 2, 3, 4)]
    assert shares[:2] == pytest.approx([0.2, 0.4], abs=0.05)
    assert shares[2:] == pytest.approx([0.5, 0.5], abs=0.05)
    assert shares[2] == shares[3]


def test_a_constant_threshold_labels_what_is_more_probable_in_every_round():
    method = build(thresholds="constant", confidence=0.3)
    with torch.no_grad():
        confidence, prediction = method.eval().segmenter(torch.cat(batches())).logits.softmax(1).max(1)
    kept = confidence > 0.3
    assert kept.any()
    assert not kept.all()
    for number in (1, 5):
        assert torch.equal(torch.cat(labels(method, number=number)), torch.where(kept, prediction, IGNORE_INDEX))


def test_adaptive_thresholds_go_through_the_images_in_order_whatever_passes_at_once():
    method = build(thresholds="instance_adaptive", alpha=0.8, beta=0.4, gamma=2.0).eval()
    with torch.no_grad():
        together = [pseudo.label for pseudo in method.pseudo_labels(Twice(), number=1)]
        alone = [pseudo.label for pseudo in method.pseudo_labels(torch.cat(batches()).split(1), number=2)]
        thresholds = torch.full((NUM_CLASSES,), 0.9, dtype=torch.float64)
        for image, label in zip(torch.cat(batches()), alone, strict=True):
            probs = method.segmenter(image[None]).logits.softmax(1)[0]
            thresholds = adapted_thresholds(probs, thresholds, alpha=0.8, beta=0.4, gamma=2.0)
            assert torch.equal(label[0], label_the_confident(probs, thresholds))
    assert torch.equal(torch.cat(together), torch.cat(alone))  # a round begins anew, and a batch is its images
    kept = torch.cat(together) != IGNORE_INDEX
    assert kept.any()
    assert not kept.all()


def reference_loss(logits: Tensor, label: Tensor) -> float:
    """Mean of -log softmax over labelled pixels, in NumPy and float64."""
    plain, wanted = logits.detach().double().numpy(), label.numpy()
    shifted = plain - plain.max(axis=1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    chosen = np.take_along_axis(log_probs, np.minimum(wanted, NUM_CLASSES - 1)[:, None], axis=1)[:, 0]
    return float(-chosen[wanted != IGNORE_INDEX].mean())


def test_the_loss_is_the_source_s_plus_the_weighted_mean_over_pixels_with_a_pseudo_label():
    case = MethodCase(SelfTraining, {"lambda_target": 0.7})
    method, step = case.build(), case.step()
    output = method.training_step(step)
    twin = case.build()
    loss_seg = twin.loss(twin.segmenter(step.labeled.image), step.labeled.label).value.item()
    assert step.target.pseudo_label is not None
    loss_target = reference_loss(twin.segmenter(step.target.image).logits, step.target.pseudo_label.label)
    assert output.logs["loss_target"].value.item() == pytest.approx(loss_target, rel=1e-5)
    assert output.losses["segmenter"].value.item() == pytest.approx(loss_seg + 0.7 * loss_target, rel=1e-5)


@pytest.mark.parametrize("padded", [False, True])
def test_entropy_counts_where_an_image_has_no_label_and_the_divergence_where_it_has_one(padded):
    """IAST's terms; what is padded has neither."""
    case = MethodCase(SelfTraining, {"lambda_ent": 0.4, "lambda_uniform": 0.05})
    method, step = case.build(), case.step(padded=padded)
    output = method.training_step(step)
    twin = case.build()
    twin.segmenter(step.labeled.image)
    plain = twin.segmenter(step.target.image).logits.detach().double().numpy()
    raised = np.exp(plain - plain.max(1, keepdims=True))
    probs = raised / raised.sum(1, keepdims=True)
    pseudo_label, valid = step.target.pseudo_label, step.target.valid
    assert pseudo_label is not None
    labeled = pseudo_label.label.numpy() != IGNORE_INDEX
    others = ~labeled if valid is None else ~labeled & valid.numpy()
    assert others.any()
    ent = -(probs * np.log(probs)).sum(1)[others].mean() / np.log(NUM_CLASSES)
    uniform = (np.log(1 / NUM_CLASSES) - np.log(probs)).mean(1)[labeled].mean()
    assert output.logs["loss_ent"].value.item() == pytest.approx(ent, rel=1e-5)
    assert output.logs["loss_uniform"].value.item() == pytest.approx(uniform, rel=1e-5)
    parts = output.logs["loss_seg"].value.item() + output.logs["loss_target"].value.item()
    assert output.losses["segmenter"].value.item() == pytest.approx(parts + 0.4 * ent + 0.05 * uniform, rel=1e-5)


def test_a_step_on_pseudo_labels_makes_them_more_probable():
    """The sign: descending raises the probability of what was labelled."""
    case = MethodCase(SelfTraining, {"lambda_target": 5.0})
    method, step = case.build(normalized=False), case.step()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.02)
    before = method.training_step(step)
    before.losses["segmenter"].value.backward()
    optimizer.step()
    after = method.training_step(step)
    assert after.logs["loss_target"].value.item() < before.logs["loss_target"].value.item()


def with_target(step: StepInput, target: UnlabeledBatch) -> StepInput:
    return step._replace(target=target)


def test_before_the_first_round_it_is_training_on_the_source_alone():
    case, plain = MethodCase(SelfTraining), MethodCase(METHODS["source_only"])
    step = case.step()
    method, expected = case.build(), plain.build()
    got = method.training_step(with_target(step, UnlabeledBatch(step.target.image)))
    wanted = expected.training_step(step)
    assert torch.equal(got.losses["segmenter"].value, wanted.losses["segmenter"].value)
    for name, value in expected.state_dict().items():
        assert torch.equal(method.state_dict()[name], value), name  # statistics of batch normalization too


def gradients(loss: Loss, method: SelfTraining) -> dict[str, Tensor]:
    loss.value.backward()
    return {name: parameter.grad for name, parameter in method.named_parameters() if parameter.grad is not None}


def test_a_batch_without_any_pseudo_label_has_the_gradient_of_the_source_alone():
    case = MethodCase(SelfTraining)
    step, first, second = case.step(), case.build(), case.build()
    empty = PseudoLabel(torch.full((4, 32, 32), IGNORE_INDEX))
    output = first.training_step(with_target(step, UnlabeledBatch(step.target.image, empty)))
    assert output.logs["loss_target"].value.item() == 0
    alone = second.training_step(with_target(step, UnlabeledBatch(step.target.image)))
    got, expected = gradients(output.losses["segmenter"], first), gradients(alone.losses["segmenter"], second)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(got[name], value), name


def test_settings_out_of_range_are_refused():
    for wrong in ({"warm_up": 1.0}, {"rounds": 0}, {"portion": 0.0}, {"confidence": 1.0}, {"lambda_target": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SelfTrainingConfig.model_validate(wrong)
