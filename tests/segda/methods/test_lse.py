"""Learning from scale-invariant examples: selection, enlarged patches and losses."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from segda.methods import METHODS, StepInput
from segda.methods.lse import Lse, LseConfig, draw_patches, enlarge
from segda.methods.ranking import class_averages, label_below, select_images
from segda.testing.methods import NUM_CLASSES, MethodCase, begin_round
from segda.types import IGNORE_INDEX, PseudoLabel, UnlabeledBatch

Floats = npt.NDArray[np.float64]


def build(**settings: object) -> Lse:
    method = MethodCase(METHODS["lse"], settings).build()
    assert isinstance(method, Lse)
    return method


def with_opinions(method: Lse) -> Lse:
    """Let the copy say something else from pixel to pixel: with its first weights it predicts one class everywhere."""
    with torch.no_grad():
        method.frozen.head.weight.mul_(30)
        method.frozen.head.bias.zero_()
    return method


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(size, 3, 32, 32, generator=generator) for size in (3, 3, 1)]


@torch.inference_mode()
def labels(method: Lse, *, number: int = 1) -> Tensor:
    method.eval()
    return torch.cat([pseudo.label for pseudo in method.pseudo_labels(batches(), number=number)])


def test_rounds_are_equally_long_and_fill_what_the_warm_up_leaves():
    assert build(warm_up=0.4, rounds=3).round_starts() == pytest.approx((0.4, 0.6, 0.8))
    assert len(build().round_starts()) == 7


@pytest.mark.parametrize(("number", "portion"), [(1, 0.3), (2, 0.7), (3, 0.9), (9, 0.9)])
def test_labels_are_the_copy_s_on_the_selected_images_of_a_portion_that_grows(number, portion):
    method = build(portion=0.3, portion_step=0.4, portion_max=0.9)
    got = labels(method, number=number)
    with torch.inference_mode():
        probs = torch.cat([method.frozen(image).logits.softmax(1) for image in batches()])
    selected, thresholds = select_images(*class_averages(probs), portion=portion)
    expected = label_below(probs, thresholds)
    expected[~selected] = IGNORE_INDEX
    assert torch.equal(got, expected)
    assert (got != IGNORE_INDEX).any()


def test_images_that_are_not_selected_are_void_and_not_drawn():
    got = labels(build(portion=0.01, portion_max=0.01))
    void = (got == IGNORE_INDEX).flatten(1).all(1)
    assert void.any()
    assert not void.all()
    assert Lse.draws_labeled_only


def test_a_constant_threshold_replaces_those_of_the_classes():
    method = build(thresholds="constant", entropy=0.2, portion=1.0, portion_max=1.0)
    got = labels(method)
    with torch.inference_mode():
        probs = torch.cat([method.frozen(image).logits.softmax(1) for image in batches()])
    selected, _ = select_images(*class_averages(probs), portion=1.0)
    expected = label_below(probs, torch.full((NUM_CLASSES,), 0.2))
    expected[~selected] = IGNORE_INDEX
    assert torch.equal(got, expected)


def test_the_copy_is_of_the_beginning_of_the_round_and_a_step_leaves_it_as_it_is():
    method = build()
    with torch.no_grad():
        for parameter in method.segmenter.parameters():
            parameter.add_(0.5)
    assert not torch.equal(method.frozen.head.weight, method.segmenter.head.weight)
    begin_round(method, 2)
    for kept, own in zip(method.frozen.state_dict().values(), method.segmenter.state_dict().values(), strict=True):
        assert torch.equal(kept, own)
    assert not method.train().frozen.training
    before = {name: value.clone() for name, value in method.frozen.state_dict().items()}
    step = MethodCase(Lse).step()
    method.training_step(step).losses["segmenter"].value.backward()
    method.after_step()
    for name, value in method.frozen.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in method.frozen.parameters())


def reference_enlarged(patch: Floats, size: tuple[int, int]) -> Floats:
    """Bilinear with corner pixels at the corners, K x h x w to K x H x W."""

    def weights(length: int, new: int) -> Floats:
        matrix = np.zeros((new, length))
        for index in range(new):
            place = index * (length - 1) / (new - 1)
            low = min(int(place), length - 2)
            matrix[index, low], matrix[index, low + 1] = 1 - (place - low), place - low
        return matrix

    rows, columns = (weights(length, new) for length, new in zip(patch.shape[1:], size, strict=True))
    return np.einsum("rh,khw,cw->krc", rows, patch, columns)


@pytest.mark.parametrize("size", [(32, 32), (33, 21)])
def test_a_patch_is_enlarged_to_the_size_of_the_image(size):
    images = torch.rand(3, 2, *size, generator=torch.Generator().manual_seed(0))
    places = draw_patches(torch.Size(size), generators=[torch.Generator().manual_seed(seed) for seed in (5, 6, 7)])
    assert len({(rows.start, columns.start) for rows, columns in places}) > 1
    got = enlarge(images, places)
    for image, (rows, columns), enlarged in zip(images, places, got, strict=True):
        assert (rows.stop - rows.start, columns.stop - columns.start) == tuple(-(-length // 2) for length in size)
        assert rows.stop <= size[0]
        assert columns.stop <= size[1]
        expected = reference_enlarged(image[:, rows, columns].double().numpy(), size)
        assert enlarged.numpy() == pytest.approx(expected, abs=1e-5)


def test_patches_lie_anywhere_in_the_image():
    places = draw_patches(torch.Size((8, 4)), generators=[torch.Generator().manual_seed(seed) for seed in range(200)])
    assert {rows.start for rows, _ in places} == {0, 1, 2, 3, 4}
    assert {columns.start for _, columns in places} == {0, 1, 2}


def softmax(logits: Tensor) -> Floats:
    plain: Floats = logits.detach().double().numpy()
    exponentials = np.exp(plain - plain.max(axis=1, keepdims=True))
    normalized: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
    return normalized


def reference_examples(method: Lse, step: StepInput) -> tuple[Tensor, npt.NDArray[np.int64]]:
    """Enlarged images, and the argmax of enlarged probabilities where the enlarged mask is at least 0.5."""
    assert step.target.pseudo_label is not None
    images, classes = [], []
    probs = softmax(method.frozen(step.target.image).logits)
    mask = (step.target.pseudo_label.label != IGNORE_INDEX).double().numpy()
    for number, image in enumerate(step.target.image.double().numpy()):
        generator = step.draws.generator(number, "patch")
        top, left = (int(torch.randint(17, (), generator=generator)) for _ in range(2))
        rows, columns = slice(top, top + 16), slice(left, left + 16)
        images.append(reference_enlarged(image[:, rows, columns], (32, 32)))
        label = reference_enlarged(probs[number][:, rows, columns], (32, 32)).argmax(0)
        covered = reference_enlarged(mask[number][None, rows, columns], (32, 32))[0]
        classes.append(np.where(covered >= 0.5 - 1e-9, label, IGNORE_INDEX))
    return torch.from_numpy(np.stack(images)).float(), np.stack(classes)


def example_step() -> StepInput:
    """Masks with holes and borders inside of the patches."""
    step = MethodCase(Lse).step()
    label = torch.zeros(4, 32, 32, dtype=torch.int64)
    label[:, ::5, ::3] = IGNORE_INDEX
    label[:, 10:15] = IGNORE_INDEX
    return step._replace(target=UnlabeledBatch(step.target.image, PseudoLabel(label)))


def test_the_loss_adds_the_focal_loss_to_the_cross_entropy_on_labels_of_enlarged_probabilities():
    """Labels are made of enlarged probabilities, not of enlarged class numbers; the focal loss is added, not put in the place."""
    settings = {"lambda_target": 0.7, "lambda_focal": 0.3, "gamma": 3.0}
    method, twin, step = with_opinions(build(**settings)), with_opinions(build(**settings)), example_step()
    output = method.training_step(step)
    source = twin.loss(twin.segmenter(step.labeled.image), step.labeled.label).value.item()
    image, label = reference_examples(twin, step)
    probs = softmax(twin.segmenter(image).logits)
    labeled = label != IGNORE_INDEX
    assert 0.2 < labeled.mean() < 0.95
    assert len(np.unique(label)) > 3
    p = np.take_along_axis(probs, np.where(labeled, label, 0)[:, None], 1)[:, 0][labeled]
    entropy = -np.log(p)
    # Ties of the enlarged argmax and mask aside, of which rounding decides.
    assert output.logs["loss_target"].value.item() == pytest.approx(entropy.mean(), rel=1e-3)
    assert output.logs["loss_focal"].value.item() == pytest.approx(((1 - p) ** 3 * entropy).mean(), rel=1e-3)
    parts = source + 0.7 * output.logs["loss_target"].value + 0.3 * output.logs["loss_focal"].value
    assert output.losses["segmenter"].value.item() == pytest.approx(parts.item(), rel=1e-5)


def test_labels_are_of_enlarged_probabilities_and_not_enlarged_class_numbers():
    method, step = with_opinions(build()), example_step()
    assert step.target.pseudo_label is not None
    image, label = method._examples(step, step.target.pseudo_label)
    wanted_image, wanted = reference_examples(method, step)
    assert torch.allclose(image, wanted_image, atol=1e-5)
    assert (label.numpy() == wanted).mean() > 0.999
    of_maps = method.frozen(step.target.image).logits.argmax(1)
    places = draw_patches(
        torch.Size((32, 32)), generators=[step.draws.generator(number, "patch") for number in range(4)]
    )
    numbers = enlarge(of_maps.unsqueeze(1).float(), places).round().long()[:, 0]
    assert ((numbers != label) & (label != IGNORE_INDEX)).float().mean() > 0.02


@pytest.mark.parametrize(("off", "on"), [("lambda_target", "lambda_focal"), ("lambda_focal", "lambda_target")])
def test_each_term_can_be_switched_off(off, on):
    step = example_step()
    output = build(**{off: 0.0, on: 2.0}).training_step(step)
    named = {"lambda_target": "loss_target", "lambda_focal": "loss_focal"}[on]
    expected = output.logs["loss_seg"].value + 2 * output.logs[named].value
    assert output.losses["segmenter"].value.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_step_makes_the_labels_more_probable():
    """The sign: descending raises the probability of what the copy said."""
    method, step = MethodCase(Lse, {"lambda_target": 5.0}).build(normalized=False), example_step()
    optimizer = torch.optim.SGD(method.segmenter.parameters(), lr=0.02)
    before = method.training_step(step)
    before.losses["segmenter"].value.backward()
    optimizer.step()
    after = method.training_step(step)
    for name in ("loss_target", "loss_focal"):
        assert after.logs[name].value.item() < before.logs[name].value.item()


def test_void_labels_have_the_gradient_of_the_source_alone():
    first, second, step = build(), build(), example_step()
    empty = PseudoLabel(torch.full((4, 32, 32), IGNORE_INDEX))
    output = first.training_step(step._replace(target=UnlabeledBatch(step.target.image, empty)))
    assert output.logs["loss_target"].value.item() == 0
    assert output.logs["loss_focal"].value.item() == 0
    output.losses["segmenter"].value.backward()
    alone = second.training_step(step._replace(target=UnlabeledBatch(step.target.image)))
    alone.losses["segmenter"].value.backward()
    for (name, got), expected in zip(first.segmenter.named_parameters(), second.segmenter.parameters(), strict=True):
        assert got.grad is not None
        assert torch.equal(got.grad, expected.grad), name


def test_before_the_first_round_it_is_training_on_the_source_alone():
    plain = MethodCase(METHODS["source_only"])
    step = plain.step()
    method, expected = MethodCase(Lse, round=0).build(), plain.build()
    got, wanted = method.training_step(step), expected.training_step(step)
    assert torch.equal(got.losses["segmenter"].value, wanted.losses["segmenter"].value)
    for name, value in expected.state_dict().items():
        assert torch.equal(method.state_dict()[name], value), name


def test_settings_out_of_range_are_refused():
    for wrong in ({"warm_up": 1.0}, {"rounds": 0}, {"portion": 0.0}, {"entropy": 0.0}, {"lambda_focal": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LseConfig.model_validate(wrong)
