import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from segda.methods.mixing import draw_box, draw_pasted, paste
from segda.types import IGNORE_INDEX

NUM_CLASSES = 6


def generators(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(1000 * seed + number) for number in range(count)]


def drawn_classes(label: torch.Tensor, pasted: torch.Tensor) -> set[int]:
    return set(label[pasted].tolist())


@pytest.mark.parametrize("shown", [(2,), (0, 5), (1, 3, 4), (0, 1, 2, 4), (0, 1, 2, 3, 4, 5)])
def test_half_of_the_classes_rounded_up_are_pasted_whole(shown):
    rng = np.random.default_rng(0)
    label = torch.from_numpy(rng.choice([*shown, IGNORE_INDEX], (3, 16, 16)))
    pasted = draw_pasted(label, num_classes=NUM_CLASSES, generators=generators(3))
    assert pasted.dtype == torch.bool
    for one, mask in zip(label, pasted, strict=True):
        drawn = drawn_classes(one, mask)
        assert len(drawn) == -(-len(shown) // 2)
        assert torch.equal(mask, torch.isin(one, torch.tensor(sorted(drawn))))


def test_void_is_never_a_class():
    """Counted as one, it would be drawn in half of the cases, and three classes and void would give two of them."""
    label = torch.full((1, 4, 4), IGNORE_INDEX)
    label[0, 0] = torch.tensor([0, 1, 2, 2])
    for seed in range(50):
        pasted = draw_pasted(label, num_classes=NUM_CLASSES, generators=generators(1, seed))
        drawn = drawn_classes(label, pasted)
        assert IGNORE_INDEX not in drawn
        assert len(drawn) == 2


def test_an_image_that_is_all_void_gives_nothing():
    label = torch.full((2, 4, 4), IGNORE_INDEX)
    label[1] = 3
    pasted = draw_pasted(label, num_classes=NUM_CLASSES, generators=generators(2))
    assert not pasted[0].any()
    assert pasted[1].all()


def test_every_set_of_classes_is_equally_likely():
    label = torch.tensor([0, 2, 3, 5]).view(1, 2, 2)
    seen = Counter(
        tuple(sorted(drawn_classes(label, draw_pasted(label, num_classes=NUM_CLASSES, generators=generators(1, seed)))))
        for seed in range(600)
    )
    assert set(seen) == set(itertools.combinations((0, 2, 3, 5), 2))
    assert min(seen.values()) > 65  # 100 each is expected
    assert max(seen.values()) < 135


def test_an_image_draws_by_its_own_generator_whatever_its_neighbors():
    label = torch.randint(0, NUM_CLASSES, (4, 8, 8), generator=torch.Generator().manual_seed(0))
    whole = draw_pasted(label, num_classes=NUM_CLASSES, generators=generators(4))
    parts = [
        draw_pasted(label[i : i + 2], num_classes=NUM_CLASSES, generators=generators(4)[i : i + 2]) for i in (0, 2)
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_image_label_and_weight_are_pasted_alike():
    rng = np.random.default_rng(1)
    label, pseudo_label = torch.from_numpy(rng.integers(0, NUM_CLASSES, (2, 2, 9, 7)))
    pasted = draw_pasted(label, num_classes=NUM_CLASSES, generators=generators(2))

    def painted(ids: torch.Tensor, domain: int) -> torch.Tensor:
        return torch.stack([ids, 10 * ids, torch.full_like(ids, domain)], dim=1).float()

    image = paste(pasted, painted(label, 1), painted(pseudo_label, 2)).to(memory_format=torch.channels_last)
    mixed_label = paste(pasted, label, pseudo_label)
    weight = paste(pasted, torch.ones(2, 9, 7), torch.full((2, 9, 7), 0.25))
    assert mixed_label.dtype == torch.int64
    assert torch.equal(image[:, 0], mixed_label.float())
    assert torch.equal(image[:, 1], 10 * mixed_label.float())
    assert torch.equal(image[:, 2] == 1, pasted)
    assert torch.equal(weight == 1, pasted)
    assert 0 < pasted.float().mean() < 1


def test_mixed_images_keep_the_memory_format():
    first, second = (torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last) for _ in range(2))
    mixed = paste(torch.rand(2, 8, 8) > 0.5, first, second)
    assert mixed.is_contiguous(memory_format=torch.channels_last)


def test_a_box_covers_half_of_the_image_and_is_drawn_anywhere_in_many_shapes():
    height, width, count = 36, 48, 400
    boxes = draw_box((height, width), generators=generators(count), device=torch.device("cpu")).numpy()
    assert boxes.shape == (count, height, width)
    heights, tops = [], []
    for box in boxes:
        rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
        assert box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()  # a rectangle
        assert box.sum() == len(rows) * len(columns)
        assert abs(box.sum() - height * width / 2) <= len(rows) / 2
        heights.append(len(rows))
        tops.append(rows[0])
    # The logarithm of the height is uniform between those of a half and of the whole.
    exponents = np.log(np.array(heights) / height) / np.log(0.5)
    assert exponents.mean() == pytest.approx(0.5, abs=0.05)
    assert exponents.std() == pytest.approx(np.sqrt(1 / 12), abs=0.03)
    assert min(tops) == 0
    assert max(tops) > height // 3
    assert boxes.any(0).all()


def test_a_box_depends_on_its_own_generator_alone_and_fits_images_of_odd_sizes():
    for size in ((1, 1), (3, 5), (33, 7)):
        both = draw_box(size, generators=generators(3), device=torch.device("cpu"))
        alone = draw_box(size, generators=generators(3)[2:], device=torch.device("cpu"))
        assert torch.equal(both[2:], alone)
        assert both.any()
