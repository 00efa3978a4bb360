"""Where classes meet, and what networks that learn it are trained by."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segda.losses import LOSSES, SegmentationLoss
from segda.losses.additive import differentiate
from segda.losses.boundary import balanced_loss, boundary_of, detail_loss, detail_target
from segda.losses.cross_entropy import cross_entropy
from segda.types import IGNORE_INDEX, Boundary, SegmentationOutput

every_rule = pytest.mark.parametrize("rule", ["detail", "balanced"])


def label_of_regions(seed=0, *, images=4, size=(19, 23), void=True):
    """Return rectangles of classes; images differ much in how much of them is void."""
    generator = np.random.default_rng(seed)
    label = np.zeros((images, *size), dtype=np.int64)
    for number in range(images):
        for _ in range(4):
            top, left = (generator.integers(0, side - 4) for side in size)
            label[number, top : top + generator.integers(3, 9), left : left + generator.integers(3, 9)] = (
                generator.integers(1, 5)
            )
    if void:
        label[0, 3:5, 2:9] = IGNORE_INDEX
        label[1, 5:] = IGNORE_INDEX
        label[2] = IGNORE_INDEX
    return torch.from_numpy(label)


def scores_for(label, *, channels=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(len(label), channels, *label.shape[1:], generator=generator)


def reference_boundary(label, *, reach):
    """Each pixel's neighbourhood, one by one."""
    boundary, known = np.zeros(label.shape, bool), np.zeros(label.shape, bool)
    for number, row, column in np.ndindex(*label.shape):
        if label[number, row, column] == IGNORE_INDEX:
            continue
        top, left = max(row - reach, 0), max(column - reach, 0)
        near = label[number, top : row + reach + 1, left : column + reach + 1]
        boundary[number, row, column] = len(np.unique(near[near != IGNORE_INDEX])) > 1
        known[number, row, column] = boundary[number, row, column] or not (near == IGNORE_INDEX).any()
    return boundary, known


def published_detail(label):
    """The target of STDC's published implementation: Laplacians of ids with three strides, fused by fixed weights."""
    kernel = torch.full((1, 1, 3, 3), -1.0)
    kernel[..., 1, 1] = 8
    ids = label.unsqueeze(1).float()
    size = label.shape[1:]
    levels = [F.conv2d(ids, kernel, stride=stride, padding=1).clamp(min=0) > 0.1 for stride in (1, 2, 4)]
    enlarged = [F.interpolate(level.float(), size, mode="nearest") for level in levels]
    fused = sum(weight * level for weight, level in zip((0.6, 0.3, 0.1), enlarged, strict=True))
    return (fused > 0.1).squeeze(1)


def binary_entropy(scores, target):
    """Binary cross-entropy in NumPy, float64."""
    probs = 1 / (1 + np.exp(-scores.double().numpy()[:, 0]))
    return -np.where(target, np.log(probs), np.log(1 - probs)), probs


@pytest.mark.parametrize("reach", [1, 2])
def test_a_boundary_is_where_two_classes_are_near_and_void_is_none(reach):
    label = label_of_regions()

    boundary, known = boundary_of(label, reach=reach)

    expected = reference_boundary(label.numpy(), reach=reach)
    assert 0 < expected[0].sum() < expected[1].sum() < (label != IGNORE_INDEX).sum().item()
    np.testing.assert_array_equal(boundary.numpy(), expected[0])
    np.testing.assert_array_equal(known.numpy(), expected[1])


@pytest.mark.parametrize(("reach", "columns"), [(1, [4, 5]), (2, [3, 4, 5, 6])])
def test_boundaries_are_bands_twice_as_wide_as_the_reach(reach, columns):
    label = torch.zeros(1, 6, 10, dtype=torch.int64)
    label[:, :, 5:] = 3

    boundary, known = boundary_of(label, reach=reach)

    assert known.all()
    assert boundary.all(1).nonzero()[:, 1].tolist() == boundary.any(1).nonzero()[:, 1].tolist() == columns


def test_the_detail_target_holds_what_the_published_one_finds_between_classes():
    label = label_of_regions(seed=3, void=False)
    published = published_detail(label)[:, 2:-2, 2:-2]

    target = detail_target(label)[0][:, 2:-2, 2:-2]

    assert 0.1 < published.float().mean() < 0.4
    assert not (published & ~target).any()
    # What is more is the other side: of two pixels that meet, the published one marks the larger id.
    mirrored = published_detail(label.max() - label)[:, 2:-2, 2:-2]
    assert torch.equal(target, published | mirrored)


def test_the_third_stride_of_the_published_detail_target_decides_nothing():
    label = torch.zeros(1, 16, 16, dtype=torch.int64)
    label[0, 4, 4] = 1  # which all strides look at: a block of 1, 2 and 4 pixels
    found = published_detail(label)[0].nonzero()
    assert found.amin(0).tolist() == [4, 4]
    assert found.amax(0).tolist() == [5, 5]


def test_the_detail_target_does_not_depend_on_the_numbers_of_classes_nor_on_borders():
    label = label_of_regions()
    other = torch.tensor([3, 1, 4, 0, 2])[label.clamp(max=4)].masked_fill(label == IGNORE_INDEX, IGNORE_INDEX)

    for maps, others in zip(detail_target(label), detail_target(other), strict=True):
        assert torch.equal(maps, others)
    one_class = torch.full((1, 8, 8), 7)
    one_class[:, 2:4] = IGNORE_INDEX
    assert published_detail(one_class).any()
    target, known = detail_target(one_class)
    assert not target.any()
    assert known[0, :, 0].nonzero().flatten().tolist() == [
        0,
        6,
        7,
    ]  # row 5 is in the block of row 4, which is beside void


def test_the_detail_loss_is_that_of_the_formula():
    label = label_of_regions()
    scores, weight = scores_for(label), torch.rand(label.shape, generator=torch.Generator().manual_seed(5))
    target, known = (maps.numpy() for maps in detail_target(label))
    entropy, probs = binary_entropy(scores, target)
    for given in (None, weight):
        counted = known * (np.ones(label.shape) if given is None else given.double().numpy())
        score = (2 * (probs * target * counted).sum((1, 2)) + 1) / (
            (probs * counted).sum((1, 2)) + (target * counted).sum((1, 2)) + 1
        )
        expected = (entropy * counted).sum() / known.sum() + (1 - score)[[0, 1, 3]].mean()

        assert detail_loss(scores, label, given).value.item() == pytest.approx(expected, rel=1e-5)


def test_the_balanced_loss_is_that_of_the_formula():
    label = label_of_regions()
    scores, weight = scores_for(label), torch.rand(label.shape, generator=torch.Generator().manual_seed(5))
    target, known = (maps.numpy() for maps in boundary_of(label, reach=2))
    entropy, _ = binary_entropy(scores, target)
    share = target.sum() / known.sum()
    for given in (None, weight):
        balance = np.where(target, 1 - share, share) * (1 if given is None else given.double().numpy())
        expected = (balance * entropy)[known].mean()

        assert balanced_loss(scores, label, given).value.item() == pytest.approx(expected, rel=1e-5)


def output_for(label, rule):
    logits = scores_for(label, channels=5, seed=1)
    return SegmentationOutput(logits, (logits.flip(0),), logits, Boundary(scores_for(label), rule))


def test_a_detail_loss_is_added_with_its_weight():
    label = label_of_regions()
    output = output_for(label, "detail")
    of_classes = cross_entropy(output.logits, label).value + 0.5 * cross_entropy(output.auxiliary[0], label).value
    expected = of_classes + 0.3 * detail_loss(output.boundary.logits, label).value

    loss = SegmentationLoss("cross_entropy", auxiliary_weight=0.5, boundary_weight=0.3)

    assert loss(output, label).value.item() == pytest.approx(expected.item())


def test_beside_a_balanced_loss_the_main_output_learns_once_more_where_the_boundary_is_probable():
    label = label_of_regions()
    output = output_for(label, "balanced")
    scores = output.boundary.logits
    near = torch.where(torch.sigmoid(scores[:, 0]) > 0.8, label, IGNORE_INDEX)
    assert 0.05 < (near != IGNORE_INDEX).sum() / (label != IGNORE_INDEX).sum() < 0.5
    ohem = SegmentationLoss("ohem", auxiliary_weight=0.0)
    expected = [ohem(output._replace(boundary=None), given).value.item() for given in (label, near)]
    expected.append(20 * balanced_loss(scores, label).value.item())

    assert ohem(output, label).value.item() == pytest.approx(sum(expected))


@every_rule
def test_no_boundary_weight_leaves_the_boundary_alone(rule):
    label = label_of_regions()
    output = output_for(label, rule)
    broken = output._replace(boundary=Boundary(torch.full_like(output.boundary.logits, torch.nan), rule))
    loss = SegmentationLoss("dice", boundary_weight=0.0)

    assert loss(broken, label).value.item() == loss(output._replace(boundary=None), label).value.item()


@pytest.mark.parametrize("weighted", [False, True])
@every_rule
def test_parts_of_a_batch_give_loss_and_gradient_of_the_whole(rule, weighted):
    label = label_of_regions()
    loss = SegmentationLoss("ohem", least=0.2, class_weight=[0.4, 3.0, 1.0, 9.0, 0.2])
    weight = torch.rand(label.shape) if weighted else None
    leaves = [scores_for(label, channels=5).requires_grad_(), scores_for(label, seed=2).requires_grad_()]

    def of(part):
        output = SegmentationOutput(leaves[0][part], (), leaves[0][part], Boundary(leaves[1][part], rule))
        return loss(output, label[part], None if weight is None else weight[part])

    whole = of(slice(None)).value
    expected = torch.autograd.grad(whole, leaves)
    parts = [of(slice(number, number + 1)) for number in range(len(label))]
    value, derivatives = differentiate(parts[0], sum(part.sums.detach() for part in parts))
    got = torch.autograd.grad([part.sums for part in parts], leaves, [derivatives] * len(parts))

    torch.testing.assert_close(value, whole.detach(), rtol=1e-6, atol=0)
    for gradient, wanted in zip(got, expected, strict=True):
        assert wanted.abs().max() > 1e-4
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-8)
    # Means of the parts' own losses are another thing.
    assert sum(part.value for part in parts).item() / len(parts) != pytest.approx(whole.item(), rel=1e-2)


@every_rule
def test_what_is_not_known_gets_no_gradient_and_costs_nothing(rule):
    label = label_of_regions()
    boundary_only = detail_loss if rule == "detail" else balanced_loss
    known = (detail_target(label) if rule == "detail" else boundary_of(label, reach=2))[1]
    scores = scores_for(label).requires_grad_()
    boundary_only(scores, label).value.backward()
    assert torch.equal(scores.grad[:, 0] != 0, known)

    for name in LOSSES:
        output = output_for(label, rule)
        leaf = output.boundary.logits.requires_grad_()
        loss = SegmentationLoss(name)(output, torch.full_like(label, IGNORE_INDEX)).value
        loss.backward()
        assert loss.item() == 0
        assert not leaf.grad.any()


@every_rule
def test_a_step_against_the_gradient_lowers_it_and_sums_are_made_in_single_precision(rule):
    label = label_of_regions()
    of = detail_loss if rule == "detail" else balanced_loss
    scores = scores_for(label).requires_grad_()
    before = of(scores, label).value
    (gradient,) = torch.autograd.grad(before, scores)
    assert of(scores - gradient, label).value < before

    half = scores.detach().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = of(half, label).value.item()
    assert rounded == pytest.approx(of(half.float(), label).value.item(), rel=1e-6)
