"""Fourier domain adaptation: its step and its pseudo-labels in NumPy and float64."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from segda.batch_norm import running_averages_kept
from segda.methods import METHODS, Method, StepInput
from segda.testing.methods import NUM_CLASSES, MethodCase, make_optimizers, run_steps
from segda.types import IGNORE_INDEX, IMAGE_MEAN, IMAGE_STD


def case(*, round: int | None = None, **settings) -> MethodCase:
    method = METHODS["fda"]
    return MethodCase(method, settings) if round is None else MethodCase(method, settings, round=round)


def swapped(source: Tensor, target: Tensor, beta: float) -> NDArray[np.float64]:
    """Normalized images [B, 3, H, W] whose spectra were swapped on values from 0 to 255."""
    mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    own, other = (np.fft.fft2(image.double().numpy() * std + mean) for image in (source, target))
    height, width = source.shape[2:]
    reach = int(min(height, width) * beta)
    amplitude, wanted = (np.fft.fftshift(np.abs(spectrum), axes=(2, 3)) for spectrum in (own, other))
    window = (..., *(slice(size // 2 - reach, size // 2 + reach + 1) for size in (height, width)))
    amplitude[window] = wanted[window]
    mixed = np.fft.ifftshift(amplitude, axes=(2, 3)) * np.exp(1j * np.angle(own))
    return (np.fft.ifft2(mixed).real - mean) / std


def probabilities(logits: Tensor) -> NDArray[np.float64]:
    plain = logits.detach().double().numpy()
    raised = np.exp(plain - plain.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def cross_entropy(logits: Tensor, label: Tensor) -> float:
    known = label.numpy() != IGNORE_INDEX
    index = np.where(known, label.numpy(), 0)[:, None]
    return float(-np.log(np.take_along_axis(probabilities(logits), index, 1)[:, 0][known]).mean())


def logged(method: Method, step: StepInput) -> dict[str, float]:
    output = method.training_step(step)
    return {name: item.value.item() for name, item in output.logs.items()} | {
        "all": output.losses["segmenter"].value.item()
    }


@pytest.mark.parametrize("beta", [0.0, 0.09, 0.2])
@pytest.mark.parametrize("padded", [False, True])
def test_a_step_is_the_formula(beta, padded):
    """The swap is done on values from 0 to 255, and the entropy is measured in shares of ln C."""
    used = case(beta=beta, lambda_ent=0.3, eta=1.5, lambda_target=0.7, rounds=1, round=1)
    method = used.build()
    run_steps(used, method, make_optimizers(method), range(10))
    step = used.step(20, padded=padded)
    image = swapped(step.labeled.image, step.target.image, beta)
    with running_averages_kept(method.segmenter):
        source = method.segmenter(torch.from_numpy(image).float())
        target = method.segmenter(step.target.image, auxiliary=False)
    shown = np.ones((len(image), 32, 32), bool) if step.target.valid is None else step.target.valid.numpy()
    probs = probabilities(target.logits).transpose(0, 2, 3, 1)[shown]
    entropy = -(probs * np.log(probs)).sum(1) / np.log(NUM_CLASSES)
    seg = sum(cross_entropy(logits, step.labeled.label) for logits in (source.logits, *source.auxiliary))
    ent = ((entropy**2 + 1e-8) ** 1.5).mean()
    pseudo = cross_entropy(target.logits, step.target.pseudo_label.label)
    got = logged(method, step)
    assert got["loss_seg"] == pytest.approx(seg, rel=1e-4)
    assert got["loss_ent"] == pytest.approx(ent, rel=1e-4)
    assert got["loss_target"] == pytest.approx(pseudo, rel=1e-4)
    assert got["all"] == pytest.approx(seg + 0.3 * ent + 0.7 * pseudo, rel=1e-4)
    # What the published code does, where there are not 19 classes, is something else.
    assert ent != pytest.approx((((entropy * np.log(NUM_CLASSES) / 2.9444) ** 2 + 1e-8) ** 1.5).mean(), rel=0.1)


def test_swapping_normalized_images_would_be_another_method():
    step = case().step()
    raw = swapped(step.labeled.image, step.target.image, 0.09)
    own, other = (np.fft.fft2(image.double().numpy()) for image in (step.labeled.image, step.target.image))
    mean_of_normalized = np.abs(other[..., 0, 0]) * np.exp(1j * np.angle(own[..., 0, 0])) / 32**2
    assert np.abs(raw.mean((2, 3)) - mean_of_normalized.real).max() > 0.1
    assert np.abs(raw.mean((2, 3)) - step.target.image.double().numpy().mean((2, 3))).max() < 1e-6


def test_the_entropy_waits_until_its_share_of_the_training_and_the_target_with_it():
    used = case(entropy_from=0.5, lambda_ent=1.0)
    method = used.build()
    seen: list[int] = []
    method.segmenter.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    before, after = (used.step(number) for number in (19, 20))
    assert (before.progress, after.progress) == (19 / 40, 0.5)
    assert logged(method, before).keys() == {"loss_seg", "all"}
    assert len(seen) == 1
    assert logged(method, after).keys() == {"loss_seg", "loss_ent", "all"}
    assert len(seen) == 3
    # Pseudo-labels do not wait for it.
    in_round = case(entropy_from=0.5, lambda_ent=1.0, lambda_target=0.7, rounds=1, round=1)
    got = logged(in_round.build(), in_round.step(19))
    assert got.keys() == {"loss_seg", "loss_target", "all"}
    assert got["all"] == pytest.approx(got["loss_seg"] + 0.7 * got["loss_target"])


def test_entropy_makes_predictions_on_the_target_more_decided():
    def entropies(weight: float) -> float:
        used = case(lambda_ent=weight, eta=1.0, batch_norm="source")
        method = used.build()
        run_steps(used, method, make_optimizers(method), range(30))
        probs = probabilities(method.segmenter(used.step(30).target.image).logits)
        return float(-(probs * np.log(probs)).sum(1).mean())

    assert entropies(5.0) < entropies(0.0) - 0.05


@pytest.mark.parametrize(("quantile", "cap"), [(0.66, 1.0), (0.34, 1.0), (0.66, 0.4)])
def test_pseudo_labels_are_those_of_sorted_confidences(quantile, cap):
    used = case(rounds=2, quantile=quantile, cap=cap)
    method = used.build()
    run_steps(used, method, make_optimizers(method), range(25))
    method.eval()
    images = [used.step(number).target.image[: 4 - number] for number in range(3)]
    with torch.inference_mode():
        given = torch.cat([pseudo.label for pseudo in method.pseudo_labels(images, number=1)]).numpy()
        probs = np.concatenate([probabilities(method.segmenter(image).logits) for image in images])
    confidence, prediction = probs.max(1), probs.argmax(1)
    expected = np.full_like(prediction, IGNORE_INDEX)
    for number in np.unique(prediction):
        ascending = np.sort(confidence[prediction == number])
        threshold = min(ascending[min(round(quantile * len(ascending)), len(ascending) - 1)], cap)
        expected[(prediction == number) & (confidence >= threshold)] = number
    assert (given == expected).mean() > 0.99
    kept = (given != IGNORE_INDEX).mean()
    # The code's reading keeps the most confident third, the paper's text two thirds; a cap only keeps more.
    assert kept > 1 - quantile + 0.1 if cap < 1 else abs(kept - (1 - quantile)) < 0.02


def test_rounds_are_at_equal_distances_after_the_warm_up():
    assert case().build().round_starts() == ()
    assert case(rounds=2, warm_up=0.6).build().round_starts() == (0.6, 0.8)


def test_without_entropy_and_statistics_it_is_source_only_on_swapped_images():
    used, plain = case(lambda_ent=0, batch_norm="source", beta=0.09), MethodCase(METHODS["source_only"])
    method, without = used.build(), plain.build()
    step = used.step()
    image = torch.from_numpy(swapped(step.labeled.image, step.target.image, 0.09)).float()
    own = logged(method, step)["loss_seg"]
    given = logged(without, step._replace(labeled=step.labeled._replace(image=image)))["loss_seg"]
    assert own == pytest.approx(given, rel=1e-5)
    for name, value in method.segmenter.state_dict().items():
        torch.testing.assert_close(value, without.segmenter.state_dict()[name])
