"""Which images and pixels scale-invariant examples are made of, against NumPy in float64."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from segda.methods.ranking import class_averages, label_below, normalized_entropy, select_images
from segda.types import IGNORE_INDEX

Floats = npt.NDArray[np.float64]
CLASSES = 5


def random_probs(images: int = 3, seed: int = 0, *, absent: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, CLASSES, 9, 7, generator=generator)
    if absent is not None:
        logits[:, absent] = -9
    return logits.softmax(1)


def reference_entropy(probs: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    entropy = -(probs * np.log(probs)).sum(1)
    prediction = probs.argmax(1)
    normalized = np.zeros_like(entropy)
    for image, classes, own in zip(entropy, prediction, normalized, strict=True):
        for number in range(probs.shape[1]):
            pixels = classes == number
            if pixels.any() and image[pixels].max() > image[pixels].min():
                low, high = image[pixels].min(), image[pixels].max()
                own[pixels] = (image[pixels] - low) / (high - low)
    return normalized, prediction


def reference_averages(probs: Floats) -> tuple[Floats, Floats]:
    normalized, prediction = reference_entropy(probs)
    confidence, entropy = (np.full((len(probs), probs.shape[1]), np.nan) for _ in range(2))
    for image in range(len(probs)):
        for number in range(probs.shape[1]):
            pixels = prediction[image] == number
            if pixels.any():
                confidence[image, number] = probs[image].max(0)[pixels].mean()
                if normalized[image][pixels].any():
                    entropy[image, number] = normalized[image][pixels].mean()
    return confidence, entropy


def test_entropy_is_normalized_within_each_predicted_class_of_each_image():
    probs = random_probs()
    normalized, prediction = normalized_entropy(probs)
    expected, classes = reference_entropy(probs.double().numpy())
    assert np.array_equal(prediction.numpy(), classes)
    assert normalized.numpy() == pytest.approx(expected, abs=1e-5)
    assert normalized.dtype == torch.float32


def test_averages_are_those_of_the_pixels_that_are_predicted_to_be_the_class():
    probs = random_probs(absent=2)
    confidence, entropy = class_averages(probs)
    wanted_confidence, wanted_entropy = reference_averages(probs.double().numpy())
    assert confidence.numpy() == pytest.approx(wanted_confidence, abs=1e-6, nan_ok=True)
    assert entropy.numpy() == pytest.approx(wanted_entropy, abs=1e-5, nan_ok=True)
    assert confidence[:, 2].isnan().all()


def test_pixels_that_are_all_equally_uncertain_have_entropy_0_and_no_nan():
    """The published trap: the smallest entropy of a class is its largest one, and the division is 0 / 0."""
    probs = torch.full((1, 3, 4, 4), 0.1)
    probs[:, 0] = 0.8
    probs[0, :, 1, 1] = torch.tensor([0.2, 0.7, 0.1])  # a class of one pixel
    normalized, _ = normalized_entropy(probs)
    assert torch.equal(normalized, torch.zeros(1, 4, 4))
    confidence, entropy = class_averages(probs)
    assert confidence[0].tolist() == pytest.approx([0.8, 0.7, math.nan], nan_ok=True)
    assert entropy.isnan().all()
    chosen, thresholds = select_images(confidence, entropy, portion=0.5)
    assert chosen.tolist() == [True]
    assert thresholds.tolist() == [0, 0, 0]
    assert (label_below(probs, thresholds) == IGNORE_INDEX).all()


def test_certain_predictions_have_a_finite_entropy():
    probs = torch.zeros(1, 3, 2, 2)
    probs[:, 1] = 1
    assert torch.equal(normalized_entropy(probs)[0], torch.zeros(1, 2, 2))


def reference_selection(confidence: Floats, entropy: Floats, portion: float) -> tuple[set[int], list[float]]:
    chosen, thresholds = set(), []
    for number in range(confidence.shape[1]):
        showing = [image for image in range(len(confidence)) if not np.isnan(confidence[image, number])]
        ranked = sorted(showing, key=lambda image: -confidence[image, number])
        cut = math.ceil(round(len(ranked) * portion / confidence.shape[1], 9))
        chosen |= set(ranked[:cut])
        candidates = [entropy[image, number] for image in ranked[cut:] + ranked[:cut][::-1]]
        candidates = [value for value in candidates if not np.isnan(value)]
        thresholds.append(candidates[0] if candidates else 0.0)
    return chosen, thresholds


@pytest.mark.parametrize("portion", [0.05, 0.1, 0.25, 0.4, 1.0])
def test_images_are_ranked_by_class_and_the_one_below_the_cut_gives_the_threshold(portion):
    generator = torch.Generator().manual_seed(1)
    confidence, entropy = (torch.rand(40, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    confidence[torch.rand(40, 4, generator=generator) < 0.3] = torch.nan
    entropy[confidence.isnan() | (torch.rand(40, 4, generator=generator) < 0.2)] = torch.nan
    chosen, thresholds = select_images(confidence, entropy, portion=portion)
    wanted, wanted_thresholds = reference_selection(confidence.numpy(), entropy.numpy(), portion)
    assert set(torch.nonzero(chosen).flatten().tolist()) == wanted
    assert thresholds.tolist() == wanted_thresholds


def test_the_most_confident_images_are_chosen_and_the_next_one_is_the_measure():
    confidence = torch.tensor([[0.9], [0.5], [0.7], [0.8]], dtype=torch.float64)
    entropy = torch.tensor([[0.1], [0.4], [0.3], [0.2]], dtype=torch.float64)
    chosen, thresholds = select_images(confidence, entropy, portion=0.5)
    assert chosen.tolist() == [True, False, False, True]
    assert thresholds.tolist() == [0.3]


def test_a_class_that_is_never_predicted_chooses_nothing_and_labels_nothing():
    """The published trap: the authors' code unpacks an empty list there."""
    confidence, entropy = class_averages(random_probs(absent=3))
    chosen, thresholds = select_images(confidence, entropy, portion=0.5)
    assert thresholds[3] == 0
    assert chosen.any()
    nothing, none = select_images(torch.full((3, 5), torch.nan), torch.full((3, 5), torch.nan), portion=0.5)
    assert not nothing.any()
    assert not none.any()


def test_few_images_still_choose_one_for_each_class():
    confidence = torch.rand(10, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chosen, _ = select_images(confidence, confidence, portion=0.1)
    assert set(torch.nonzero(chosen).flatten().tolist()) == set(confidence.argmax(0).tolist())


def test_a_portion_that_floating_point_puts_above_a_whole_number_is_that_number():
    confidence = torch.linspace(1, 0.5, 10, dtype=torch.float64)[:, None]
    chosen, _ = select_images(confidence, confidence, portion=0.1 + 2 * 0.1)
    assert 10 * (0.1 + 2 * 0.1) > 3
    assert chosen.sum() == 3


def test_pixels_below_the_threshold_of_their_class_are_labeled():
    probs = random_probs(seed=4)
    thresholds = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.0], dtype=torch.float64)
    normalized, prediction = reference_entropy(probs.double().numpy())
    expected = np.where(normalized < thresholds.numpy()[prediction], prediction, IGNORE_INDEX)
    assert np.array_equal(label_below(probs, thresholds).numpy(), expected)
    assert 0.1 < (expected != IGNORE_INDEX).mean() < 0.9
