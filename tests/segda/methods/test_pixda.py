"""PixDA: its terms against NumPy in float64, its choice of source images, its stages."""

import copy
import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from segda.config_problems import LocatedError
from segda.datasets.loaders import denormalize, normalize
from segda.losses import SegmentationLoss
from segda.methods import METHODS, StepInput
from segda.methods.pixda import (
    Pixda,
    PixdaConfig,
    choose_above,
    distillation,
    pixel_adversarial,
    pixel_weights,
)
from segda.testing.methods import NUM_CLASSES, MethodCase, ToySegmenter, begin_round
from segda.transforms.fourier import swap_amplitude
from segda.types import IGNORE_INDEX

Floats = npt.NDArray[np.float64]
LAST = 6  # the round of the distillation, after five others


def build(number: int = 1, **settings: object) -> Pixda:
    method = MethodCase(METHODS["pixda"], settings, round=number).build()
    assert isinstance(method, Pixda)
    return method


def step_in(number: int) -> StepInput:
    return MethodCase(Pixda, round=number).step()


def softmax(logits: Tensor) -> Floats:
    plain: Floats = logits.detach().double().numpy()
    exponentials = np.exp(plain - plain.max(axis=1, keepdims=True))
    normalized: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
    return normalized


def random_case(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits and labels of three images: one with void, one of a single class, one all void."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, 4, 6, 5, generator=generator)
    label = torch.randint(0, 4, (3, 6, 5), generator=generator)
    label[0, :2] = IGNORE_INDEX
    label[0, 2:4] = 1
    label[1] = 2
    label[2] = IGNORE_INDEX
    return logits, label


def reference_weights(probs: Floats, label: npt.NDArray[np.int64]) -> Floats:
    """S * B pixel by pixel."""
    weights = np.zeros(label.shape)
    for image, row, column in np.ndindex(*label.shape):
        number = label[image, row, column]
        if number != IGNORE_INDEX:
            counted = label[image][label[image] != IGNORE_INDEX]
            balance = 1 - (counted == number).sum() / len(counted)
            weights[image, row, column] = -np.log(probs[image, number, row, column]) * balance
    return weights


def test_pixels_weigh_their_cross_entropy_times_the_share_of_other_classes_in_their_image():
    logits, label = random_case()
    weights = pixel_weights(logits, label, detached=True)
    assert weights.numpy() == pytest.approx(reference_weights(softmax(logits), label.numpy()), abs=1e-5)
    assert weights.dtype == torch.float32
    assert (weights[label == IGNORE_INDEX] == 0).all()
    assert (weights[1] == 0).all()  # one class alone: nothing is rare in it


def test_shares_are_of_the_image_and_leave_void_out():
    logits = torch.zeros(2, 2, 1, 4)
    label = torch.tensor([[[0, 0, 0, 1]], [[0, 1, IGNORE_INDEX, IGNORE_INDEX]]])
    weights = pixel_weights(logits, label, detached=True) / math.log(2)
    assert weights.flatten().tolist() == pytest.approx([0.25, 0.25, 0.25, 0.75, 0.5, 0.5, 0, 0])


def test_a_share_that_equals_a_class_number_is_no_class():
    """The published trap: shares are written into the label, and a class whose share is written as 1 is then taken for class 1."""
    label = torch.zeros(1, 4, 4, dtype=torch.int64)
    label[0, 0, 0] = 1
    probs = torch.full((1, 2, 4, 4), 0.5)
    weights = pixel_weights(probs.log(), label, detached=True) / math.log(2)
    assert weights[0, 0, 0].item() == pytest.approx(15 / 16)
    assert weights[0, 1:].unique().tolist() == pytest.approx([1 / 16])


@pytest.mark.parametrize("detached", [True, False])
def test_weights_are_constants_unless_the_switch_lets_gradients_through_the_cross_entropy(detached):
    """The published trap: the paper's weights are constants, the code's are not."""
    logits, label = random_case()
    logits.requires_grad_()
    domain = torch.randn(3, 1, 6, 5, generator=torch.Generator().manual_seed(1))
    loss = pixel_adversarial(domain, pixel_weights(logits, label, detached=detached)).value
    assert loss.requires_grad is not detached
    if not detached:
        (gradient,) = torch.autograd.grad(loss, logits)
        probs, costs = softmax(logits), np.log1p(np.exp(domain[:, 0].double().numpy()))
        expected = np.zeros(logits.shape)
        for image, row, column in np.ndindex(*label.shape):
            number = int(label[image, row, column])
            if number != IGNORE_INDEX:
                counted = label[image][label[image] != IGNORE_INDEX]
                balance = 1 - float((counted == number).double().mean())
                of_entropy = probs[image, :, row, column] - np.eye(4)[number]
                expected[image, :, row, column] = costs[image, row, column] * balance * of_entropy / label.numel()
        assert gradient.numpy() == pytest.approx(expected, abs=1e-6)


def test_the_adversarial_loss_is_a_mean_over_all_pixels_void_ones_included():
    logits, label = random_case()
    domain = torch.randn(3, 1, 6, 5, generator=torch.Generator().manual_seed(1))
    weights = pixel_weights(logits, label, detached=True)
    costs = np.log1p(np.exp(domain[:, 0].double().numpy()))  # -ln(1 - sigmoid): the source is 0
    expected = (reference_weights(softmax(logits), label.numpy()) * costs).sum() / label.numel()
    assert pixel_adversarial(domain, weights).value.item() == pytest.approx(expected, rel=1e-5)
    sure_of_source = pixel_adversarial(domain - 20, weights).value
    assert sure_of_source.item() < 1e-6


def test_void_alone_is_a_loss_of_zero_with_a_gradient_of_zero():
    label = torch.full((2, 4, 4), IGNORE_INDEX)
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    domain = torch.randn(2, 1, 4, 4, requires_grad=True)
    loss = pixel_adversarial(domain, pixel_weights(logits, label, detached=False)).value
    assert loss.item() == 0
    for gradient in torch.autograd.grad(loss, [logits, domain]):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_the_distillation_is_a_mean_over_pixels_and_classes_with_the_scale_on_the_copy_alone():
    generator = torch.Generator().manual_seed(2)
    logits, copied = (2 * torch.randn(2, 5, 4, 3, generator=generator) for _ in range(2))
    expected = (-softmax(0.5 * copied) * np.log(softmax(logits))).mean()
    assert distillation(logits, copied, scale=0.5).value.item() == pytest.approx(expected, rel=1e-5)


def test_images_above_the_threshold_are_chosen():
    losses = torch.tensor([0.1, 0.5, 0.9, 0.4])
    assert choose_above(losses, threshold=0.4, smallest_share=0.25).tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.01, [2]), (0.5, [1, 2]), (0.51, [1, 2, 3]), (1.0, [0, 1, 2, 3])],
)
def test_a_threshold_that_no_image_exceeds_leaves_those_of_the_highest_losses(share, expected):
    """The published trap: no image is left, and the sampler raises an error."""
    losses = torch.tensor([0.1, 0.5, 0.9, 0.4])
    chosen = choose_above(losses, threshold=5.0, smallest_share=share)
    assert torch.nonzero(chosen).flatten().tolist() == expected


class Images:
    """Source images in batches of different sizes."""

    def __iter__(self):
        generator = torch.Generator().manual_seed(4)
        return iter([torch.randn(size, 3, 32, 32, generator=generator) for size in (3, 1)])


@pytest.mark.parametrize(("number", "threshold"), [(1, 0.6), (2, 0.7), (4, 0.9)])
def test_images_that_the_image_discriminator_takes_for_the_target_are_chosen_and_ever_fewer(number, threshold):
    method = build(threshold=0.6, threshold_step=0.1, smallest_share=0.1).eval()
    with torch.no_grad():
        for parameter in method.image_discriminator.parameters():
            parameter.mul_(1.5)
        probs = [softmax(method.segmenter(image).logits) for image in Images()]
        scores = [method.image_discriminator(torch.from_numpy(p).float()).double().numpy() for p in probs]
    losses = np.concatenate([np.log1p(np.exp(values)).mean(axis=(1, 2, 3)) for values in scores])
    with torch.inference_mode():
        chosen = method.choose_source(Images(), number=number)
    assert chosen is not None
    above = losses > threshold
    assert chosen.tolist() == (above if above.any() else losses == losses.max()).tolist()


def test_what_looks_like_the_target_is_chosen_and_not_what_looks_like_the_source():
    """The sign: a discriminator that is sure of the source (negative) on some images leaves these out."""
    method = build(threshold=0.4).eval()

    class BySign(torch.nn.Module):
        def forward(self, probs: Tensor) -> Tensor:
            return torch.tensor([-3.0, 3.0, -3.0]).view(3, 1, 1, 1)

    method.image_discriminator = BySign()  # type: ignore[assignment]
    with torch.inference_mode():
        chosen = method.choose_source([torch.zeros(3, 3, 32, 32)], number=1)
    assert chosen is not None
    assert chosen.tolist() == [False, True, False]


def test_all_images_are_drawn_while_the_network_is_distilled():
    assert build().choose_source([], number=LAST) is None


def test_rounds_fill_the_time_between_warm_up_and_distillation():
    assert build(warm_up=0.4, rounds=3, distillation=0.3).round_starts() == pytest.approx((0.4, 0.5, 0.6, 0.7))
    assert build(warm_up=0.4, rounds=3, distillation=0.0).round_starts() == pytest.approx((0.4, 0.6, 0.8))


def reference_focal(probs: Floats, label: npt.NDArray[np.int64], factor: Floats, gamma: float) -> float:
    losses = []
    for image, row, column in np.ndindex(*label.shape):
        number = label[image, row, column]
        if number != IGNORE_INDEX:
            p = probs[image, number, row, column]
            losses.append(-factor[number] * (1 - p) ** gamma * np.log(p))
    return float(np.mean(losses))


def bce(scores: Floats, domain: int) -> float:
    return float(np.log1p(np.exp(scores if domain == 0 else -scores)).mean())


def test_the_losses_of_a_round_are_those_of_the_formula():
    settings = {
        "frequent_class": 1,
        "frequent_alpha": 0.3,
        "alpha": 0.8,
        "gamma": 1.5,
        "lambda_few": 0.7,
        "lambda_adv": 0.3,
        "beta": 0.1,
    }
    method, step = build(**settings), step_in(1)
    with torch.no_grad():
        # Freshly drawn, discriminators say the same of everything: with the domains swapped their losses would be as good as equal.
        for parameter in (method.segmenter.head.weight, *method.parameter_groups()["discriminator"]):
            parameter.mul_(3)
    twin = copy.deepcopy(method)
    few = step.few_shot
    assert few is not None
    output = method.training_step(step)
    styled = normalize(swap_amplitude(denormalize(step.labeled.image), denormalize(few.image), beta=0.1))
    assert (styled - step.labeled.image).abs().max() > 0.1
    source, target = twin.segmenter(styled), twin.segmenter(few.image)
    factor = np.full(NUM_CLASSES, 0.8)
    factor[1] = 0.3

    def supervised(found, label: Tensor) -> float:
        return sum(reference_focal(softmax(z), label.numpy(), factor, 1.5) for z in (found.logits, *found.auxiliary))

    loss_seg, loss_few = supervised(source, step.labeled.label), supervised(target, few.label)
    p_source, p_few = (torch.from_numpy(softmax(found.logits)).float() for found in (source, target))
    judged = {
        name: [net(p).detach().double().numpy() for p in (p_source, p_few)]
        for name, net in (("pixels", twin.discriminator), ("image", twin.image_discriminator))
    }
    weights = reference_weights(softmax(target.logits), few.label.numpy())
    loss_adv = float((weights * np.log1p(np.exp(judged["pixels"][1][:, 0]))).mean())
    told = {name: 0.5 * bce(of_source, 0) + 0.5 * bce(of_few, 1) for name, (of_source, of_few) in judged.items()}
    for name, (of_source, of_few) in judged.items():
        assert told[name] != pytest.approx(0.5 * bce(of_source, 1) + 0.5 * bce(of_few, 0), rel=1e-3)
    expected = {
        "loss_seg": loss_seg,
        "loss_few": loss_few,
        "loss_adv": loss_adv,
        "loss_discriminator": told["pixels"],
        "loss_image_discriminator": told["image"],
        "discriminator_accuracy_source": (judged["pixels"][0] < 0).mean(),
        "discriminator_accuracy_target": (judged["pixels"][1] > 0).mean(),
    }
    assert {name: item.value.item() for name, item in output.logs.items()} == pytest.approx(expected, rel=1e-4)
    assert output.losses["segmenter"].value.item() == pytest.approx(
        loss_seg + 0.7 * loss_few + 0.3 * loss_adv, rel=1e-4
    )
    assert output.losses["discriminator"].value.item() == pytest.approx(sum(told.values()), rel=1e-4)


def test_a_step_of_the_segmenter_makes_target_predictions_pass_for_source_ones():
    """The sign of the adversarial loss: the discriminator's loss for saying "source" falls on target images."""
    settings = {"alpha": 1e-9, "lambda_few": 0.0, "lambda_adv": 50.0}
    method = MethodCase(Pixda, settings).build(normalized=False)
    step = step_in(1)
    optimizer = torch.optim.SGD(method.segmenter.parameters(), lr=0.01)
    before = method.training_step(step)
    few = step.few_shot
    assert few is not None

    def told_source() -> float:
        with torch.no_grad():
            logits = method.segmenter(few.image).logits
            weights = pixel_weights(logits, few.label, detached=True) * 0 + 1
            return pixel_adversarial(method.discriminator(logits.softmax(1)), weights).value.item()

    first = told_source()
    before.losses["segmenter"].value.backward(inputs=list(method.segmenter.parameters()))
    optimizer.step()
    assert told_source() < first


def test_neither_network_is_trained_by_the_other_one_s_loss():
    """A frozen discriminator in the segmenter's step, detached predictions in the discriminator's: by parameter groups."""
    method, step = build(), step_in(1)
    output = method.training_step(step)
    groups = method.parameter_groups()
    for group, other in (("segmenter", "discriminator"), ("discriminator", "segmenter")):
        output.losses[group].value.backward(inputs=groups[group], retain_graph=True)
        assert all(parameter.grad is None for parameter in groups[other])
        for parameter in groups[group]:
            parameter.grad = None


def test_before_the_first_round_it_is_training_on_the_source_alone_and_discriminators_rest():
    plain = MethodCase(METHODS["source_only"])
    method, expected = build(0), plain.build()
    optimizer = torch.optim.Adam(method.parameter_groups()["discriminator"], lr=0.1)
    before = [parameter.clone() for parameter in method.parameter_groups()["discriminator"]]
    output, wanted = method.training_step(step_in(0)), expected.training_step(plain.step())
    assert torch.equal(output.losses["segmenter"].value, wanted.losses["segmenter"].value)
    output.losses["discriminator"].value.backward()
    assert all(parameter.grad is not None for parameter in method.parameter_groups()["discriminator"])
    optimizer.step()
    for kept, parameter in zip(before, method.parameter_groups()["discriminator"], strict=True):
        assert torch.equal(kept, parameter)
    for name, value in expected.state_dict().items():
        assert torch.equal(method.state_dict()[name], value), name


def test_the_last_round_learns_from_the_few_images_and_a_copy_of_the_network_at_its_beginning():
    method, step = build(LAST, lambda_kd=0.7), step_in(LAST)
    with torch.no_grad():
        for parameter in method.segmenter.parameters():
            parameter.mul_(1.3)
    kept = {name: value.clone() for name, value in method.frozen.state_dict().items()}
    begin_round(method, 5)
    assert all(torch.equal(value, kept[name]) for name, value in method.frozen.state_dict().items())
    begin_round(method, LAST)
    with torch.no_grad():
        for parameter in method.segmenter.parameters():
            parameter.mul_(1.1)
    few = step.few_shot
    assert few is not None
    output = method.training_step(step)
    logits, copied = method.segmenter(few.image), method.frozen(few.image).logits
    factor = np.full(NUM_CLASSES, 0.75)
    loss_few = sum(
        reference_focal(softmax(z), few.label.numpy(), factor, 2.0) for z in (logits.logits, *logits.auxiliary)
    )
    loss_kd = float((-softmax(0.5 * copied) * np.log(softmax(logits.logits))).mean())
    assert output.logs["loss_kd"].value.item() == pytest.approx(loss_kd, rel=1e-5)
    assert output.losses["segmenter"].value.item() == pytest.approx(loss_few + 0.7 * loss_kd, rel=1e-5)
    assert output.losses["discriminator"].value.item() == 0
    assert not method.frozen.training


def test_distillation_pulls_the_network_back_to_its_copy():
    """The sign: with nothing but the copy to learn from, descending brings predictions nearer to the copy's."""
    method = MethodCase(Pixda, {"alpha": 1e-9, "lambda_kd": 10.0, "copy_scale": 1.0}, round=LAST).build(
        normalized=False
    )
    with torch.no_grad():
        for parameter in method.segmenter.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    optimizer = torch.optim.SGD(method.segmenter.parameters(), lr=0.05)
    before = method.training_step(step_in(LAST))
    before.losses["segmenter"].value.backward(inputs=list(method.segmenter.parameters()))
    optimizer.step()
    after = method.training_step(step_in(LAST))
    assert after.logs["loss_kd"].value.item() < before.logs["loss_kd"].value.item()


def test_a_few_shot_batch_of_void_alone_gives_finite_losses_and_gradients():
    for number in (1, LAST):
        method, step = build(number), step_in(number)
        few = step.few_shot
        assert few is not None
        void = step._replace(few_shot=few._replace(label=torch.full_like(few.label, IGNORE_INDEX)))
        output = method.training_step(void)
        assert output.logs["loss_few"].value.item() == 0
        output.losses["segmenter"].value.backward(inputs=list(method.segmenter.parameters()))
        assert all(p.grad is None or p.grad.isfinite().all() for p in method.segmenter.parameters())


def test_weights_of_classes_apply_to_both_domains():
    weights = np.array([0.5, 3.0, 1.0, 1.0, 2.0])
    method = Pixda(
        ToySegmenter(),
        config=PixdaConfig(),
        loss=SegmentationLoss("cross_entropy", class_weight=weights),
        num_classes=NUM_CLASSES,
    )
    plain = Pixda(ToySegmenter(), config=PixdaConfig(), loss=SegmentationLoss("cross_entropy"), num_classes=NUM_CLASSES)
    plain.load_state_dict(method.state_dict())
    outputs = [each.train().training_step(step_in(1)) for each in (method, plain)]
    for name in ("loss_seg", "loss_few"):
        assert outputs[0].logs[name].value.item() != pytest.approx(outputs[1].logs[name].value.item(), rel=1e-4)


def test_settings_out_of_range_are_refused():
    for wrong in ({"rounds": 0}, {"smallest_share": 0.0}, {"beta": 0.5}, {"alpha": 0.0}, {"lambda_adv": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            PixdaConfig.model_validate(wrong)
    with pytest.raises(ValueError, match="leave no time for it"):
        PixdaConfig(warm_up=0.8, distillation=0.2)
    PixdaConfig(frequent_class=4).check_classes(5)
    with pytest.raises(LocatedError, match="must be a train id from 0 to 4, got 5"):
        PixdaConfig(frequent_class=5).check_classes(5)
