import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from segda import scoring
from segda.config import TrainConfig
from segda.datasets.cache import DecodedSplit
from segda.datasets.loaders import normalize
from segda.splits import Splits
from segda.types import SegmentationOutput
from segda.validators import VALIDATORS, PixelSample
from segda.validators.sample import MAX_IMAGES, PIXELS_PER_IMAGE

CLASSES = 7
EVEN = [1 / CLASSES] * CLASSES


def sure(labels, *, smoothing=0.02):
    """Probabilities of a network that is sure of some labels, [1, P, C]."""
    labels = torch.as_tensor(labels)
    return (1 - smoothing) * torch.nn.functional.one_hot(labels, CLASSES).double()[None] + smoothing / CLASSES


def drawn(shares, count=2000):
    return np.random.default_rng(0).choice(CLASSES, size=count, p=shares)


@pytest.fixture
def balanced():
    return sure(np.arange(7000) % CLASSES)


@pytest.fixture
def collapsed():
    return sure(np.zeros(7000, dtype=int))


@pytest.fixture
def clueless():
    return torch.full((1, 7000, CLASSES), 1 / CLASSES)


@pytest.mark.parametrize("name", VALIDATORS)
def test_a_validator_does_not_care_for_the_order_of_classes_and_images(name):
    probs = torch.softmax(torch.randn(3, 120, CLASSES, generator=torch.Generator().manual_seed(0)), dim=-1)
    shuffled = probs.flip(0)[..., torch.randperm(CLASSES, generator=torch.Generator().manual_seed(1))]
    score = VALIDATORS[name](probs)
    assert math.isfinite(score)
    assert VALIDATORS[name](shuffled) == pytest.approx(score, rel=1e-6)


@pytest.mark.parametrize("name", VALIDATORS)
def test_hard_zeros_give_a_finite_score(name):
    assert math.isfinite(VALIDATORS[name](sure([0, 0, 3], smoothing=0.0)))


@pytest.mark.parametrize("name", VALIDATORS)
def test_a_broken_network_has_no_score_and_raises_nothing(name, balanced):
    balanced[0, 3] = math.nan
    assert math.isnan(VALIDATORS[name](balanced))


@pytest.mark.parametrize("name", ["entropy", "im", "bnm"])
def test_a_network_that_is_sure_scores_higher_than_one_that_knows_nothing(name, balanced, clueless):
    assert VALIDATORS[name](balanced) > VALIDATORS[name](clueless)


@pytest.mark.parametrize("name", ["im", "bnm"])
def test_diversity_scores_a_collapsed_network_lower_than_a_diverse_one(name, balanced, collapsed):
    assert VALIDATORS[name](balanced) > VALIDATORS[name](collapsed)


def test_entropy_cannot_see_collapse_and_density_rewards_it(balanced, collapsed):
    assert VALIDATORS["entropy"](collapsed) == pytest.approx(VALIDATORS["entropy"](balanced))
    assert VALIDATORS["snd"](collapsed) > VALIDATORS["snd"](balanced)


def test_scores_have_the_ends_that_they_state(clueless):
    one_hot = sure(np.arange(7000) % CLASSES, smoothing=0.0)
    same = sure(np.zeros(7000, dtype=int), smoothing=0.0)
    assert VALIDATORS["entropy"](clueless) == pytest.approx(-math.log(CLASSES))
    assert VALIDATORS["entropy"](one_hot) == 0
    assert VALIDATORS["im"](one_hot) == pytest.approx(math.log(CLASSES))
    assert VALIDATORS["im"](same) == pytest.approx(0)
    assert VALIDATORS["bnm"](one_hot) == pytest.approx(1)
    assert VALIDATORS["bnm"](same) == pytest.approx(1 / math.sqrt(CLASSES))
    assert VALIDATORS["bnm"](clueless) == pytest.approx(1 / CLASSES)
    assert VALIDATORS["snd"](same) == pytest.approx(math.log(100))


def test_the_nuclear_norm_is_numpys(balanced):
    probs = torch.softmax(torch.randn(4, 50, CLASSES, generator=torch.Generator().manual_seed(2)), dim=-1)
    expected = np.linalg.norm(probs.flatten(end_dim=1).numpy().astype(np.float64), ord="nuc") / math.sqrt(200 * CLASSES)
    assert VALIDATORS["bnm"](probs) == pytest.approx(expected)


def test_density_is_that_of_a_plain_double_loop():
    probs = torch.softmax(3 * torch.randn(2, 100, CLASSES, generator=torch.Generator().manual_seed(3)), dim=-1)
    images = []
    for pixels in probs.numpy().astype(np.float64):
        rows = []
        for first in pixels:
            similarity = np.array([first @ other / (np.linalg.norm(first) * np.linalg.norm(other)) for other in pixels])
            weight = np.exp(similarity / 0.05)
            weight /= weight.sum()
            rows.append(-(weight * np.log(weight)).sum())
        images.append(np.mean(rows))
    assert VALIDATORS["snd"](probs) == pytest.approx(np.mean(images))


def test_information_prefers_even_classes_to_the_true_skewed_ones(balanced):
    skewed = sure(drawn([0.4, 0.15, 0.1, 0.05, 0.05, 0.1, 0.15]))
    assert VALIDATORS["im"](sure(drawn(EVEN))) > VALIDATORS["im"](skewed)


def logits(count, *, height=20, width=30, seed=0):
    return torch.randn(count, CLASSES, height, width, generator=torch.Generator().manual_seed(seed))


def test_the_sample_does_not_depend_on_the_size_of_batches():
    scores = logits(5)
    whole, parts = PixelSample(5), PixelSample(5)
    whole.add(scores)
    for part in scores.split(2):
        parts.add(part)
    assert torch.equal(whole.probs, parts.probs)
    assert whole.probs.shape == (5, PIXELS_PER_IMAGE, CLASSES)
    assert torch.allclose(whole.probs.sum(dim=-1), torch.ones(()))


def test_the_sample_holds_different_pixels_that_are_in_the_image():
    scores = torch.zeros(1, 2, 20, 30)
    scores[0, 1] = torch.arange(600).view(20, 30) / 600
    sample = PixelSample(1)
    sample.add(scores)
    places = torch.logit(sample.probs[0, :, 1].double()) * 600
    assert len(places.round().unique()) == PIXELS_PER_IMAGE
    assert places.min() < 20
    assert places.max() > 580


def test_small_images_give_all_their_pixels():
    sample = PixelSample(1)
    sample.add(logits(1, height=3, width=4))
    assert sample.probs.shape == (1, 12, CLASSES)


def test_of_many_images_evenly_spaced_ones_are_taken():
    sample = PixelSample(2 * MAX_IMAGES)
    for start in range(0, 2 * MAX_IMAGES, 64):
        values = torch.zeros(64, 2, 1, 1)
        values[:, 1, 0, 0] = torch.arange(start, start + 64) / 100
        sample.add(values)
    taken = torch.logit(sample.probs[:, 0, 1].double()) * 100
    assert len(taken) == MAX_IMAGES
    assert taken[0] == pytest.approx(0, abs=1e-3)
    assert taken[-1] == pytest.approx(2 * MAX_IMAGES - 1, abs=1)


def test_an_empty_sample_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        _ = PixelSample(3).probs


class Skewed(nn.Module):
    """Finds class 0 in bright pixels and class 1 in the others."""

    def forward(self, image):
        bright = image.mean(dim=1, keepdim=True)
        rest = torch.full_like(bright, -9.0).expand(-1, 9, -1, -1)
        return SegmentationOutput(torch.cat([bright, -bright, rest], dim=1), (), bright)


@pytest.mark.parametrize("batch", [2, 8])
def test_a_training_ends_with_every_score_and_the_collapse_figures_from_one_pass(monkeypatch, batch):
    """The figures are those of the sample, and the target's labels are not there to be read."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    names = tuple("abcde")
    target = DecodedSplit(images=images, labels=None, names=names, fingerprint="t")
    labels = rng.integers(0, 2, (5, 32, 32), dtype=np.uint8)
    source = DecodedSplit(images=images, labels=labels, names=names, fingerprint="s")
    splits = Splits(
        labeled=source, target=target, source_val=source, source_test=None, oracle=None, few_shot=None, source=source
    )
    domain = {"dataset": "camvid"}
    config = TrainConfig.model_validate(
        {
            "data": {
                "source": domain | {"domain": "day"},
                "target": domain | {"domain": "dusk"},
                "height": 32,
                "width": 32,
            },
            "model": {"name": "bisenet_v1", "backbone": "resnet18", "pretrained": "none"},
            "method": {"name": "source_only"},
            "steps": 1,
        }
    )
    method = SimpleNamespace(segmenter=Skewed())
    passes = []
    original = scoring.class_scores

    def counted(*words, **options):
        passes.append(words)
        return original(*words, **options, batch_size=batch)

    monkeypatch.setattr(scoring, "class_scores", counted)
    scorer = scoring.Scorer(config, splits, method, device=torch.device("cpu"), dtype=torch.float32)
    figures = scorer._target_figures()
    assert len(passes) == 1
    assert {name.removeprefix("target/validator/") for name in figures if "/validator/" in name} == set(VALIDATORS)
    sample = PixelSample(5)
    sample.add(method.segmenter(normalize(torch.from_numpy(images).permute(0, 3, 1, 2))).logits)
    for name, score in VALIDATORS.items():
        assert figures[f"target/validator/{name}"] == pytest.approx(score(sample.probs))
    assert 0.5 < figures["target/largest_class_share"] < 0.95
    assert figures["target/missing_classes"] == 0
