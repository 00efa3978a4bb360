import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from segda.datasets import DATASETS, loaders
from segda.datasets.cache import DecodedSplit, decoded_split
from segda.datasets.loaders import (
    UNCLAIMED,
    RawBatch,
    Styling,
    denormalize,
    evaluation_batches,
    normalize,
    training_batches,
)
from segda.errors import ConfigError
from segda.transforms import RECIPES
from segda.transforms.styles import STYLES, Style, TransferConfig, build_style
from segda.types import IMAGE_MEAN, IMAGE_STD, Pixels


def make_split(count: int, *, height: int = 8, width: int = 10, labels: bool = True) -> DecodedSplit:
    """Sample number i is filled with the value i."""
    numbers = np.arange(count, dtype=np.uint8)
    images = np.broadcast_to(numbers[:, None, None, None], (count, height, width, 3)).copy()
    images.flags.writeable = False
    label = np.broadcast_to(numbers[:, None, None], (count, height, width)).copy() if labels else None
    return DecodedSplit(images=images, labels=label, names=tuple(map(str, numbers)), fingerprint="test")


def draw(split: DecodedSplit, **changes: object) -> list[RawBatch]:
    given = {"recipe": "none", "size": (8, 10), "batch_size": 2, "seed": 0, "steps": 6} | changes
    with closing(training_batches(split, **given)) as batches:  # type: ignore[arg-type]
        return list(batches)


def numbers(batches: list[RawBatch]) -> list[int]:
    return [int(image[0, 0, 0]) for batch in batches for image in batch.image]


def assert_equal(first: list[RawBatch], second: list[RawBatch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.image, other.image)
        assert (one.label is None) == (other.label is None)
        assert one.label is None or other.label is None or torch.equal(one.label, other.label)


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "segda-batches"]


def test_batch_is_channels_last_uint8_and_label_belongs_to_the_image() -> None:
    for batch in draw(make_split(5)):
        assert batch.image.shape == (2, 3, 8, 10)
        assert batch.image.dtype == torch.uint8
        assert batch.image.is_contiguous(memory_format=torch.channels_last)
        assert batch.label is not None
        assert batch.label.shape == (2, 8, 10)
        assert batch.label.dtype == torch.uint8
        assert torch.equal(batch.image[:, 0], batch.label)


def test_channels_keep_their_order() -> None:
    images = np.empty((1, 8, 10, 3), np.uint8)
    images[...] = (10, 20, 30)
    split = DecodedSplit(images=images, labels=None, names=("a",), fingerprint="test")
    for batch in (draw(split, batch_size=1, steps=1)[0], next(evaluation_batches(split, batch_size=1))):
        assert batch.image[0, :, 3, 4].tolist() == [10, 20, 30]


def test_every_epoch_is_another_permutation_of_all_samples() -> None:
    drawn = numbers(draw(make_split(6), steps=9))
    epochs = [drawn[start : start + 6] for start in (0, 6, 12)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_order_follows_from_seed_and_epoch_alone() -> None:
    expected = [i for epoch in range(2) for i in np.random.default_rng((7, epoch)).permutation(5)]
    assert numbers(draw(make_split(5), seed=7, steps=5)) == expected


def test_split_smaller_than_a_batch_repeats() -> None:
    (batch,) = draw(make_split(3), batch_size=8, steps=1)
    counts = np.bincount(numbers([batch]))
    assert counts.sum() == 8
    assert counts.min() >= 2


def test_split_without_labels_gives_none() -> None:
    assert all(batch.label is None for batch in draw(make_split(3, labels=False)))


@pytest.mark.parametrize("recipe", RECIPES)
def test_stream_continues_exactly_at_any_step(recipe: str) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 48, 48, 3), dtype=np.uint8)
    images.flags.writeable = False
    split = DecodedSplit(images=images, labels=images[..., 0] % 7, names=tuple("abcde"), fingerprint="test")
    whole = draw(split, recipe=recipe, size=(32, 40), steps=5)
    assert whole[0].image.shape == (2, 3, 32, 40)
    assert_equal(whole[3:], draw(split, recipe=recipe, size=(32, 40), start_step=3, steps=2))


def test_crops_of_one_sample_differ_between_epochs() -> None:
    images = np.arange(32 * 32 * 3, dtype=np.int64).astype(np.uint8).reshape(1, 32, 32, 3)
    split = DecodedSplit(images=images, labels=None, names=("a",), fingerprint="test")
    batches = draw(split, size=(8, 8), batch_size=1, steps=8)
    assert len({batch.image.numpy().tobytes() for batch in batches}) > 4


def test_worker_processes_change_nothing(segnet: Path, tmp_path: Path) -> None:
    split = decoded_split(
        DATASETS["camvid"],
        segnet,
        domain="all",
        split="train",
        height=12,
        width=16,
        with_labels=True,
        cache=tmp_path / "cache",
    )
    state = torch.get_rng_state()
    recipe = sorted(set(RECIPES) - {"none"})[0]
    style = build_style(STYLES["amplitude_mix"].Config(probability=0.7))
    assert style is not None
    styling = Styling(style, split)
    in_thread, in_processes = (
        draw(split, recipe=recipe, size=(8, 8), start_step=1, workers=n, styling=styling) for n in (0, 2)
    )
    assert_equal(in_thread, in_processes)
    assert in_processes[0].image.is_contiguous(memory_format=torch.channels_last)
    # Nor may they move the generator that the network draws from.
    assert torch.equal(torch.get_rng_state(), state)


def test_closing_early_ends_the_thread() -> None:
    batches = training_batches(make_split(4), recipe="none", size=(8, 10), batch_size=2, seed=0, steps=1000)
    next(batches)
    assert len(loader_threads()) == 1
    batches.close()
    assert loader_threads() == []


def test_reading_to_the_end_ends_the_thread() -> None:
    batches = training_batches(make_split(4), recipe="none", size=(8, 10), batch_size=2, seed=0, steps=3)
    assert len(list(batches)) == 3
    assert loader_threads() == []


def test_thread_stays_only_a_few_batches_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    collated: list[int] = []
    collate = loaders._collate

    def count(items: list, *, pinned: bool) -> object:
        collated.append(len(items))
        return collate(items, pinned=pinned)

    monkeypatch.setattr(loaders, "_collate", count)
    with closing(
        training_batches(make_split(4), recipe="none", size=(8, 10), batch_size=2, seed=0, steps=1000)
    ) as batches:
        next(batches)
        time.sleep(0.3)
        # One read, four in the queue, one waiting to get in.
        assert len(collated) <= 6


def test_error_in_the_thread_reaches_the_reader() -> None:
    # The crop is larger than the images, which only the augmentation notices.
    with pytest.raises(ConfigError, match="smaller"):
        draw(make_split(4), size=(9, 10))
    assert loader_threads() == []


def test_empty_split_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="empty split"):
        training_batches(make_split(0), recipe="none", size=(8, 10), batch_size=2, seed=0, steps=1)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"start_step": -1}, {"steps": -1}, {"workers": -1}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} {next(iter(wrong.values()))}"):
        draw(make_split(4), **wrong)


def test_no_steps_give_no_batches() -> None:
    assert draw(make_split(4), steps=0) == []
    assert draw(make_split(4), steps=0, workers=1) == []


def test_evaluation_reads_the_split_in_order_once() -> None:
    batches = list(evaluation_batches(make_split(5), batch_size=2))
    assert [len(batch.image) for batch in batches] == [2, 2, 1]
    assert numbers(batches) == [0, 1, 2, 3, 4]
    for batch in batches:
        assert batch.image.is_contiguous(memory_format=torch.channels_last)
        assert batch.label is not None
        assert torch.equal(batch.image[:, 0], batch.label)


def test_evaluation_refuses_an_empty_batch() -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        next(evaluation_batches(make_split(5), batch_size=0))


def test_normalize_agrees_with_float64() -> None:
    image = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8).to(memory_format=torch.channels_last)
    mean, std = (np.asarray(values).reshape(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    normalized = normalize(image)
    np.testing.assert_allclose(normalized.numpy(), (image.numpy().astype(np.float64) - mean) / std, atol=1e-6)
    assert normalized.dtype == torch.float32
    assert normalized.is_contiguous(memory_format=torch.channels_last)


def test_normalize_can_be_trained_on_after_inference_mode() -> None:
    loaders._scale_and_offset.cache_clear()
    image = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    with torch.inference_mode():
        normalize(image)
    weight = torch.ones(1, requires_grad=True)
    (normalize(image) * weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_for_a_gpu_are_in_page_locked_memory(workers: int) -> None:
    for batch in draw(make_split(4), workers=workers, steps=2, pinned=True):
        assert batch.image.is_pinned()
        assert batch.image.is_contiguous(memory_format=torch.channels_last)
        assert batch.label is not None
        assert batch.label.is_pinned()
        assert normalize(batch.image.to("cuda", non_blocking=True)).is_cuda


def test_denormalize_undoes_normalize_and_keeps_the_memory_format() -> None:
    image = torch.randint(0, 256, (2, 3, 8, 10), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    raw = denormalize(normalize(image))
    assert raw.dtype == torch.float32
    assert raw.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(raw, image.float(), atol=1e-4, rtol=0)
    outside = raw * 2 - 100  # as a style leaves them
    torch.testing.assert_close(denormalize(normalize(outside)), outside, atol=1e-3, rtol=0)


@pytest.mark.parametrize("labels", [False, True])
def test_padding_is_told_from_pixels_without_a_label(labels: bool) -> None:
    """The image of every pixel that is not marked is the sample's own color."""
    split = make_split(6, height=32, width=40, labels=labels)
    if split.labels is not None:
        split.labels[:, :16] = 255  # nothing is claimed there
    batches = draw(split, recipe="scale_crop", size=(32, 40), steps=20, marks_padding=True)
    seen = set()
    for batch in batches:
        assert batch.label is not None
        for image, label in zip(batch.image, batch.label, strict=True):
            shown = label != 255
            own = int(image[0][shown].median())
            assert (image[0][shown].int() - own).abs().max() <= 1
            assert (image[0][~shown] == round(IMAGE_MEAN[0])).all()
            seen |= set(label[shown].tolist()) - ({own} if labels else set())
    assert seen == {UNCLAIMED}
    assert any((batch.label == 255).any() for batch in batches)
    assert not any((batch.label == 255).all() for batch in batches)


def test_labels_are_as_they_were_where_padding_is_not_asked_for() -> None:
    assert draw(make_split(6, labels=False))[0].label is None
    unmarked = draw(make_split(6), recipe="scale_crop", steps=3)
    assert not any((batch.label == UNCLAIMED).any() for batch in unmarked)


class Notes(Style):
    """Writes down where an image and its look came from, and a draw: the numbers of both are the values of their pixels."""

    Config = TransferConfig

    def __call__(self, source: Pixels, target: Pixels, *, rng: np.random.Generator) -> Pixels:
        noted = source.copy()
        noted[..., 1] = target[..., 0]
        noted[..., 2] = rng.integers(200, 256)
        return noted


def noting(partners: int = 50, *, labels: bool = False, probability: float = 1.0) -> Styling:
    split = make_split(partners, labels=labels)
    return Styling(Notes(TransferConfig(name="notes", probability=probability)), split)


def noted(batches: list[RawBatch]) -> list[list[int]]:
    return [image[:, 0, 0].tolist() for batch in batches for image in batch.image]


def test_every_image_gets_the_look_of_a_random_partner_and_keeps_its_label() -> None:
    batches = draw(make_split(5), steps=200, styling=noting())
    drawn = noted(batches)
    assert [first for first, _, _ in drawn] == numbers(draw(make_split(5), steps=200))
    assert {partner for _, partner, _ in drawn} == set(range(50))
    assert len({draws for _, _, draws in drawn}) > 40
    for batch in batches:
        assert batch.label is not None
        assert torch.equal(batch.image[:, 0], batch.label)


def test_partners_follow_from_seed_and_draw_alone() -> None:
    split, styling = make_split(5), noting()
    whole = draw(split, batch_size=4, styling=styling)
    assert_equal(whole[3:], draw(split, batch_size=4, start_step=3, steps=3, styling=styling))
    first, second = (draw(split, batch_size=4, rank=rank, ranks=2, styling=styling) for rank in (0, 1))
    for batch, one, other in zip(whole, first, second, strict=True):
        assert torch.equal(batch.image, torch.cat([one.image, other.image]))
    other_seed = noted(draw(split, batch_size=4, seed=1, styling=styling))
    assert [partner for _, partner, _ in other_seed] != [partner for _, partner, _ in noted(whole)]


def test_labels_of_partners_change_nothing() -> None:
    split = make_split(5)
    assert_equal(draw(split, styling=noting(labels=False)), draw(split, styling=noting(labels=True)))


def test_a_share_of_the_images_keeps_its_own_look() -> None:
    own = [
        second == first and third == first
        for first, second, third in noted(draw(make_split(5), steps=500, styling=noting(probability=0.3)))
    ]
    assert abs(np.mean(own) - 0.7) < 0.05
    assert draw(make_split(5), styling=None)[0].image.unique().numel() <= 2


def test_whole_images_are_styled_before_they_are_cropped() -> None:
    class Sum(Notes):
        def __call__(self, source: Pixels, target: Pixels, *, rng: np.random.Generator) -> Pixels:
            assert source.shape == target.shape == (8, 10, 3)
            return super().__call__(source, target, rng=rng)

    styling = Styling(Sum(TransferConfig(name="sum")), make_split(3))
    assert draw(make_split(5), size=(4, 4), styling=styling)[0].image.shape == (2, 3, 4, 4)


def test_no_partners_and_partners_of_another_size_are_refused() -> None:
    with pytest.raises(ConfigError, match="empty split"):
        draw(make_split(5), styling=noting(0))
    other = noting()._replace(partners=make_split(3, height=9))
    with pytest.raises(ConfigError, match=r"images of 8x10 .* cannot take the look of images of 9x10"):
        draw(make_split(5), styling=other)
