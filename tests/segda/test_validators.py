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
from segda.target_prediction import read_target_prediction
from segda.types import SegmentationOutput
from segda.validators import ONLY_AT_THE_END, USUAL_VALIDATORS, VALIDATORS, Evidence, PixelSample

CLASSES = 7
EVEN = [1 / CLASSES] * CLASSES
MAX_IMAGES, PIXELS_PER_IMAGE = 512, 256


def evidence(probs, source=None, labels=None):
    """What a network says of the target; unless said otherwise it says the same of the source, and is right there."""
    source = probs if source is None else source
    labels = source.argmax(dim=-1).to(torch.uint8) if labels is None else torch.as_tensor(labels, dtype=torch.uint8)
    shares = torch.bincount(labels[labels != 255].flatten().long(), minlength=probs.shape[-1]).double()
    return Evidence(
        target=probs.float(),
        source=source.float(),
        source_labels=labels,
        source_shares=shares / shares.sum(),
        target_features=probs.float().mean(dim=1),
        source_features=source.float().mean(dim=1),
    )


def score(name, probs, *words):
    return VALIDATORS[name](evidence(probs, *words))


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


@pytest.mark.parametrize("name", USUAL_VALIDATORS)
def test_a_validator_does_not_care_for_the_order_of_classes_and_images(name):
    probs = torch.softmax(torch.randn(3, 120, CLASSES, generator=torch.Generator().manual_seed(0)), dim=-1)
    shuffled = probs.flip(0)[..., torch.randperm(CLASSES, generator=torch.Generator().manual_seed(1))]
    found = score(name, probs)
    assert math.isfinite(found)
    assert score(name, shuffled) == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("name", USUAL_VALIDATORS)
def test_hard_zeros_give_a_finite_score(name):
    assert math.isfinite(score(name, sure([0, 0, 3], smoothing=0.0)))


@pytest.mark.parametrize("name", VALIDATORS)
def test_a_broken_network_has_no_score_and_raises_nothing(name, balanced):
    balanced[0, 3] = math.nan
    assert math.isnan(score(name, balanced))


@pytest.mark.parametrize("name", ["entropy", "im", "bnm"])
def test_a_network_that_is_sure_scores_higher_than_one_that_knows_nothing(name, balanced, clueless):
    assert score(name, balanced) > score(name, clueless)


@pytest.mark.parametrize("name", ["im", "bnm"])
def test_diversity_scores_a_collapsed_network_lower_than_a_diverse_one(name, balanced, collapsed):
    assert score(name, balanced) > score(name, collapsed)


def test_entropy_cannot_see_collapse_and_density_rewards_it(balanced, collapsed):
    assert score("entropy", collapsed) == pytest.approx(score("entropy", balanced))
    assert score("snd", collapsed) > score("snd", balanced)


def test_scores_have_the_ends_that_they_state(clueless):
    one_hot = sure(np.arange(7000) % CLASSES, smoothing=0.0)
    same = sure(np.zeros(7000, dtype=int), smoothing=0.0)
    assert score("entropy", clueless) == pytest.approx(-math.log(CLASSES))
    assert score("entropy", one_hot) == 0
    assert score("im", one_hot) == pytest.approx(math.log(CLASSES))
    assert score("im", same) == pytest.approx(0)
    assert score("bnm", one_hot) == pytest.approx(1)
    assert score("bnm", same) == pytest.approx(1 / math.sqrt(CLASSES))
    assert score("bnm", clueless) == pytest.approx(1 / CLASSES)
    assert score("snd", same) == pytest.approx(math.log(100))


def test_the_nuclear_norm_is_numpys(balanced):
    probs = torch.softmax(torch.randn(4, 50, CLASSES, generator=torch.Generator().manual_seed(2)), dim=-1)
    expected = np.linalg.norm(probs.flatten(end_dim=1).numpy().astype(np.float64), ord="nuc") / math.sqrt(200 * CLASSES)
    assert score("bnm", probs) == pytest.approx(expected)


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
    assert score("snd", probs) == pytest.approx(np.mean(images))


def test_information_prefers_even_classes_to_the_true_skewed_ones(balanced):
    skewed = sure(drawn([0.4, 0.15, 0.1, 0.05, 0.05, 0.1, 0.15]))
    assert score("im", sure(drawn(EVEN))) > score("im", skewed)


def said(count, *, height=20, width=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, CLASSES, height, width, generator=generator)
    return SegmentationOutput(scores, (), torch.randn(count, 5, 4, 6, generator=generator))


def sampled(count, output, label=None):
    sample = PixelSample(count, max_images=MAX_IMAGES, pixels=PIXELS_PER_IMAGE)
    sample.add(output, label)
    return sample


def test_the_sample_does_not_depend_on_the_size_of_batches():
    output, label = said(5), torch.randint(0, CLASSES, (5, 20, 30), generator=torch.Generator().manual_seed(1))
    whole, parts = sampled(5, output, label), PixelSample(5, max_images=MAX_IMAGES, pixels=PIXELS_PER_IMAGE)
    for start in range(0, 5, 2):
        part = slice(start, start + 2)
        parts.add(SegmentationOutput(output.logits[part], (), output.features[part]), label[part])
    assert torch.equal(whole.probs, parts.probs)
    assert torch.equal(whole.labels, parts.labels)
    assert torch.equal(whole.features, parts.features)
    assert whole.probs.shape == (5, PIXELS_PER_IMAGE, CLASSES)
    assert torch.allclose(whole.probs.sum(dim=-1), torch.ones(()))
    assert whole.features == pytest.approx(output.features.mean(dim=(2, 3)))


def test_the_sample_has_the_labels_of_its_own_pixels():
    label = torch.randint(0, CLASSES, (3, 20, 30), generator=torch.Generator().manual_seed(1))
    label[:, :4] = 255
    scores = 9.0 * nn.functional.one_hot(label.clamp(max=CLASSES - 1), CLASSES).permute(0, 3, 1, 2)
    sample = sampled(3, SegmentationOutput(scores, (), scores), label)
    known = sample.labels != 255
    assert 0 < known.sum() < known.numel()
    assert torch.equal(sample.probs.argmax(dim=-1)[known].to(torch.uint8), sample.labels[known])


def test_the_sample_holds_different_pixels_that_are_in_the_image():
    scores = torch.zeros(1, 2, 20, 30)
    scores[0, 1] = torch.arange(600).view(20, 30) / 600
    sample = sampled(1, SegmentationOutput(scores, (), scores))
    places = torch.logit(sample.probs[0, :, 1].double()) * 600
    assert len(places.round().unique()) == PIXELS_PER_IMAGE
    assert places.min() < 20
    assert places.max() > 580


def test_small_images_give_all_their_pixels():
    assert sampled(1, said(1, height=3, width=4)).probs.shape == (1, 12, CLASSES)


def test_of_many_images_evenly_spaced_ones_are_taken():
    sample = PixelSample(2 * MAX_IMAGES, max_images=MAX_IMAGES, pixels=PIXELS_PER_IMAGE)
    for start in range(0, 2 * MAX_IMAGES, 64):
        values = torch.zeros(64, 2, 1, 1)
        values[:, 1, 0, 0] = torch.arange(start, start + 64) / 100
        sample.add(SegmentationOutput(values, (), values))
    taken = torch.logit(sample.probs[:, 0, 1].double()) * 100
    assert len(taken) == MAX_IMAGES
    assert taken[0] == pytest.approx(0, abs=1e-3)
    assert taken[-1] == pytest.approx(2 * MAX_IMAGES - 1, abs=1)


def test_an_empty_sample_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        _ = PixelSample(3, max_images=9, pixels=9).probs


def test_predictions_can_be_compared_only_if_they_are_of_the_same_pixels_and_classes():
    def identity(sample=None, **changes):
        of = {"fingerprint": "f", "size": (20, 30), "kept": 9, "classes": ("a", "b")} | changes
        return (sample or sampled(3, said(3))).identity(**of)

    others = [
        identity(fingerprint="g"),
        identity(size=(30, 20)),
        identity(kept=8),
        identity(classes=("b", "a")),
        identity(sampled(4, said(4))),
        identity(PixelSample(3, max_images=MAX_IMAGES, pixels=9)),
    ]
    assert identity() == identity()
    assert len({identity(), *others}) == 7


class Skewed(nn.Module):
    """Finds class 0 in bright pixels and class 1 in the others."""

    def forward(self, image):
        bright = image.mean(dim=1, keepdim=True)
        rest = torch.full_like(bright, -9.0).expand(-1, 9, -1, -1)
        return SegmentationOutput(torch.cat([bright, -bright, rest], dim=1), (), bright)


@pytest.fixture
def without_record(monkeypatch):
    """Let a method be no more than its segmenter: what a run records of it is not looked at."""
    monkeypatch.setattr(scoring.Scorer, "_write_result", lambda *_, **__: None)


def scorer_of(*, oracle=None, source_images=5):
    """A run on five target images without labels, and a source whose labels are classes 0 and 1."""
    rng = np.random.default_rng(0)

    def images(count):
        return rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)

    target = DecodedSplit(images=images(5), labels=None, names=tuple("abcde"), fingerprint="t")
    labels = rng.integers(0, 2, (source_images, 32, 32), dtype=np.uint8)
    names = tuple(map(str, range(source_images)))
    source = DecodedSplit(images=images(source_images), labels=labels, names=names, fingerprint="s")
    if oracle is not None:
        oracle = DecodedSplit(
            images=target.images, labels=np.full((5, 32, 32), oracle, np.uint8), names=target.names, fingerprint="o"
        )
    splits = Splits(
        labeled=source, target=target, source_val=source, source_test=None, oracle=oracle, few_shot=None, source=source
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
            "validators": list(VALIDATORS),
            "steps": 1,
        }
    )
    method = SimpleNamespace(segmenter=Skewed())
    return scoring.Scorer(config, splits, method, device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("batch", [2, 8])
def test_a_training_ends_with_every_score_and_the_collapse_figures_from_one_pass(
    monkeypatch, tmp_path, batch, without_record
):
    """The figures are those of the sample, and the target's labels are not there to be read."""
    passes = []
    original = scoring.outputs

    def counted(*words, **options):
        passes.append(words)
        return original(*words, **options, batch_size=batch)

    monkeypatch.setattr(scoring, "outputs", counted)
    scorer = scorer_of()
    figures = scorer.final(tmp_path, step=1, seconds=1.0, pruning={})
    assert len(passes) == 1
    assert {name.removeprefix("target/validator/") for name in figures if "/validator/" in name} == set(VALIDATORS)
    splits = scorer.splits

    def say(split):
        return scorer.method.segmenter(normalize(torch.from_numpy(split.images).permute(0, 3, 1, 2)))

    target = PixelSample(5, max_images=512, pixels=256)
    target.add(say(splits.target))
    source = PixelSample(5, max_images=256, pixels=32)
    source.add(say(splits.source_val), torch.from_numpy(splits.source_val.labels))
    shares = np.bincount(splits.source_val.labels.ravel(), minlength=11) / splits.source_val.labels.size
    same = Evidence(
        target.probs, source.probs, source.labels, torch.from_numpy(shares), target.features, source.features
    )
    for name, validator in VALIDATORS.items():
        assert figures[f"target/validator/{name}"] == pytest.approx(validator(same), nan_ok=True)
    assert 0.5 < figures["target/largest_class_share"] < 0.95
    assert figures["target/missing_classes"] == 0
    assert figures["target/transport_accuracy"] == pytest.approx(1 - shares[0], abs=0.2)
    kept = read_target_prediction(tmp_path / "target_prediction.npz")
    assert np.array_equal(kept.classes, target.probs[:, :64].argmax(dim=-1).flatten().numpy())
    assert kept.num_classes == 11
    assert (tmp_path / "target_prediction.npz").stat().st_size < 20_000


def test_every_report_has_the_scores_of_the_same_few_target_images(monkeypatch):
    seen = []
    original = scoring.outputs

    def counted(segmenter, split, **options):
        seen.append(split.names)
        return original(segmenter, split, **options)

    monkeypatch.setattr(scoring, "outputs", counted)
    scorer = scorer_of(source_images=10)
    first, second = scorer.interim(), scorer.interim()
    assert seen == [("a", "b", "d", "e")] * 2
    assert first == pytest.approx(second)
    expected = {f"target/validator/{name}" for name in VALIDATORS if name not in ONLY_AT_THE_END}
    assert {name for name in first if name.startswith("target/validator/")} == expected
    assert {"target/largest_class_share", "target/missing_classes", "source/val/miou"} < first.keys()


def test_no_score_and_no_prediction_depends_on_labels_of_the_target(tmp_path, without_record):
    """Target labels that are garbage, or are not there, change nothing that a choice may read."""
    found = []
    for index, oracle in enumerate([None, 0, 7]):
        folder = tmp_path / str(index)
        folder.mkdir()
        figures = scorer_of(oracle=oracle).final(folder, step=1, seconds=1.0, pruning={})
        free = {name: value for name, value in figures.items() if not name.startswith("oracle/")}
        assert len(free) == len(figures) or oracle is not None
        found.append((free, (folder / "target_prediction.npz").read_bytes()))
    assert found[0][0] == pytest.approx(found[1][0], nan_ok=True)
    assert found[0][0] == pytest.approx(found[2][0], nan_ok=True)
    assert found[0][1] == found[1][1] == found[2][1]
