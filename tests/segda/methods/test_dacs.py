"""DACS against a form of its own in NumPy, and what a teacher must not do."""

import numpy as np
import pytest
import torch
from torch import nn

from segda.batch_norm import running_averages_kept
from segda.losses import mean
from segda.methods import METHODS, StepInput
from segda.methods.dacs import mixed_loss
from segda.methods.mixing import draw_box, draw_pasted
from segda.testing.methods import BATCH_SIZE, NUM_CLASSES, MethodCase, make_optimizers, run_steps
from segda.types import IGNORE_INDEX, SegmentationOutput

PLAIN = {"jitter_probability": 0, "blur_probability": 0}  # mixed images as they are


def case(**settings) -> MethodCase:
    return MethodCase(METHODS["dacs"], settings)


def log_probs(logits: np.ndarray) -> np.ndarray:
    """Return log softmax over axis 1, float64 [B, C, H, W]."""
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def cross_entropy(logits: torch.Tensor, label: np.ndarray) -> np.ndarray:
    scores = log_probs(logits.detach().double().numpy())
    return -np.take_along_axis(scores, label[:, None], axis=1)[:, 0]


def expected_loss(method: nn.Module, step: StepInput, *, tau: float, auxiliary_weight: float) -> tuple[float, float]:
    """Return the mixed loss and w, with the networks given and everything else of its own."""
    with torch.no_grad():
        probs = np.exp(log_probs(method.teacher(step.target.image).logits.double().numpy()))
    label, pseudo_label, shown = step.labeled.label.numpy(), probs.argmax(1), np.ones(probs[:, 0].shape, dtype=bool)
    if step.target.valid is not None:
        shown = step.target.valid.numpy()
        pseudo_label = np.where(shown, pseudo_label, IGNORE_INDEX)
    confident = (probs.max(1) >= tau)[shown].mean()
    generators = [step.draws.generator(number, method.config.mix) for number in range(len(label))]
    if method.config.mix == "classmix":
        mask = draw_pasted(step.labeled.label, num_classes=NUM_CLASSES, generators=generators).numpy()
    else:
        mask = draw_box(label.shape[1:], generators=generators, device=torch.device("cpu")).numpy()
    image = np.where(mask[:, None], step.labeled.image.numpy(), step.target.image.numpy())
    mixed_label = np.where(mask, label, pseudo_label)
    with running_averages_kept(method.segmenter):
        output = method.segmenter(torch.from_numpy(image))
    has_label = mixed_label != IGNORE_INDEX
    index = np.where(has_label, mixed_label, 0)
    entropy = cross_entropy(output.logits, index)
    for logits in output.auxiliary:
        entropy = entropy + auxiliary_weight * cross_entropy(logits, index)
    return float((np.where(mask, 1.0, confident) * entropy)[has_label].mean()), float(confident)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("mix", ["classmix", "cutmix"])
@pytest.mark.parametrize("tau", [0.0, 0.25, 1.0])
def test_a_step_is_the_paper_s_and_neither_void_nor_padding_counts(tau, mix, padded):
    used = case(tau=tau, mix=mix, **PLAIN)
    method = used.build()
    run_steps(used, method, make_optimizers(method), range(10))
    step = used.step(10, padded=padded)
    expected, confident = expected_loss(method, step, tau=tau, auxiliary_weight=1.0)
    assert (0 < confident < 1) == (tau == 0.25)
    output = method.train().training_step(step)
    loss_seg, loss_mix = output.logs["loss_seg"].value.item(), output.logs["loss_mix"].value.item()
    assert loss_mix == pytest.approx(expected, rel=1e-5)
    assert output.logs["confident"].value.item() == pytest.approx(confident)
    assert output.losses["segmenter"].value.item() == pytest.approx(loss_seg + expected, rel=1e-5)


def test_lambda_mix_zero_is_source_only_but_for_statistics():
    """With `batch_norm: source` for these too: the control that isolates what mixing does."""
    plain, other = MethodCase(METHODS["source_only"]), case(lambda_mix=0, batch_norm="source")
    method, without = plain.build(), other.build()
    run_steps(plain, method, make_optimizers(method), range(3))
    run_steps(other, without, make_optimizers(without), range(3))
    for name, value in method.segmenter.state_dict().items():
        assert torch.equal(without.segmenter.state_dict()[name], value), name


def test_until_the_warm_up_has_passed_a_step_is_source_only_and_the_teacher_follows():
    used = case(tau=0.0, warm_up=0.5)
    method = used.build()
    early, late = (used.step(3)._replace(progress=progress) for progress in (0.49, 0.5))
    output = method.train().training_step(early)
    plain = method.loss(method.segmenter(early.labeled.image), early.labeled.label)
    assert output.losses["segmenter"].value.item() == pytest.approx(plain.value.item())
    assert output.pseudo_label is None
    assert "loss_mix" in method.training_step(late).logs
    with torch.no_grad():
        next(method.segmenter.parameters()).add_(1.0)
    method.after_step()
    assert torch.equal(next(method.teacher.parameters()), next(method.segmenter.parameters()))


def mixed(confident: int, *, logits: torch.Tensor, pasted: torch.Tensor) -> torch.Tensor:
    label = torch.zeros(pasted.shape, dtype=torch.int64)
    output = SegmentationOutput(logits, (), logits)
    return mixed_loss(output, label, pasted, mean(torch.tensor(confident), label.numel()), auxiliary_weight=1.0).value


def test_without_confident_pixels_the_loss_is_that_of_the_pasted_ones_and_zero_without_these():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    pasted = torch.zeros(2, 4, 4, dtype=torch.bool)
    nothing = mixed(0, logits=logits, pasted=pasted)
    assert nothing.item() == 0
    (gradient,) = torch.autograd.grad(nothing, logits)
    assert torch.equal(gradient, torch.zeros_like(gradient))
    pasted[1, :2] = True
    loss = mixed(0, logits=logits, pasted=pasted)
    entropy = cross_entropy(logits, np.zeros((2, 4, 4), dtype=np.int64))
    assert loss.item() == pytest.approx(entropy[1, :2].sum() / 32, rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.equal(gradient[0], torch.zeros_like(gradient[0]))
    assert gradient[1, :, :2].abs().min() > 0


def test_a_source_without_labels_and_a_teacher_without_confidence_leave_a_loss_of_zero():
    used = case(tau=1.0)
    step = used.step()
    step.labeled.label.fill_(IGNORE_INDEX)
    method = used.build()
    loss = method.training_step(step).losses["segmenter"].value
    assert loss.item() == 0
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in method.segmenter.parameters())


def test_a_target_that_is_all_padding_leaves_what_was_pasted():
    used = case(tau=0.0)
    step = used.step()
    step = step._replace(target=step.target._replace(valid=torch.zeros(BATCH_SIZE, 32, 32, dtype=torch.bool)))
    output = used.build().training_step(step)
    assert output.logs["confident"].value.item() == 0
    assert 0 < output.logs["loss_mix"].value.item() < 10


def test_no_gradient_reaches_the_teacher():
    used = case(tau=0.0)
    method = used.build()
    method.training_step(used.step()).losses["segmenter"].value.backward()
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    assert any(parameter.grad is not None for parameter in method.segmenter.parameters())


def test_the_teacher_stays_in_evaluation_mode_and_its_statistics_move_after_a_step_only():
    used = case()
    method = used.build()
    for outer in (method, nn.Sequential(method)):
        outer.train()
        assert method.segmenter.training
        assert not any(module.training for module in method.teacher.modules())
    before = {name: value.clone() for name, value in method.teacher.state_dict().items()}
    method.training_step(used.step())
    assert all(torch.equal(value, before[name]) for name, value in method.teacher.state_dict().items())
    assert method.moves.item() == 0
    method.after_step()
    assert method.moves.item() == 1
    moved = method.teacher.state_dict()
    assert not torch.equal(moved["trunk.1.running_mean"], before["trunk.1.running_mean"])
    assert all(torch.equal(value, moved[name]) for name, value in method.segmenter.state_dict().items())


def test_teacher_and_its_clock_are_in_the_state():
    used = case(alpha=0.5)
    method = used.build()
    run_steps(used, method, make_optimizers(method), range(5))
    other = used.build(seed=3)
    other.load_state_dict(method.state_dict())
    assert other.moves.item() == 5
    for name, value in method.teacher.state_dict().items():
        assert torch.equal(other.teacher.state_dict()[name], value)
    # Not the segmenter's: half of what it was stays.
    assert not torch.equal(method.teacher.head.weight, method.segmenter.head.weight)


def test_mixed_images_are_augmented_and_their_labels_are_not():
    """The teacher sees the target as it came, and the label of a pixel does not depend on its color."""
    seen: dict[str, list[torch.Tensor]] = {"teacher": [], "segmenter": []}
    used, step = case(jitter_probability=1, blur_probability=1), case().step()
    method = used.build()
    for name, images in seen.items():
        getattr(method, name).register_forward_pre_hook(lambda _, inputs, images=images: images.append(inputs[0]))
    method.training_step(step)
    (teachers,), (source, mixed_image) = seen["teacher"], seen["segmenter"]
    assert torch.equal(teachers, step.target.image)
    assert torch.equal(source, step.labeled.image)
    generators = [step.draws.generator(number, "classmix") for number in range(BATCH_SIZE)]
    pasted = draw_pasted(step.labeled.label, num_classes=NUM_CLASSES, generators=generators)
    plain = torch.where(pasted.unsqueeze(1), step.labeled.image, step.target.image)
    change = (mixed_image - plain).flatten(1).abs().mean(1)
    assert (change > 0.01).all()
    assert len(set(change.tolist())) == BATCH_SIZE


@pytest.mark.parametrize("setting", [{"alpha": 1.0}, {"tau": 1.1}, {"jitter": 0.6}, {"blur_sigma": 0.1}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        case(**setting).build()
