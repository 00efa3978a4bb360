import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segda.metrics import ConfusionMatrix
from segda.types import IGNORE_INDEX

cases = given(seed=st.integers(0, 2**31), num_classes=st.integers(1, 6), void=st.sampled_from([0.0, 0.3, 1.0]))
examples = settings(max_examples=60, deadline=None)


def _draw(seed, num_classes, void, *, size=(4, 3, 5)):
    rng = np.random.default_rng(seed)
    # Only some of the classes appear, so that absent ones are common.
    used = rng.integers(num_classes, size=rng.integers(1, num_classes + 1))
    label = rng.choice(used, size=size)
    prediction = rng.choice(rng.integers(num_classes, size=3), size=size)
    label[rng.random(size) < void] = IGNORE_INDEX
    return torch.from_numpy(prediction), torch.from_numpy(label)


def _measure(prediction, label, num_classes, **options):
    matrix = ConfusionMatrix(num_classes)
    matrix.update(prediction, label)
    return matrix.compute(**options)


def _reference(prediction, label, num_classes, unscored=frozenset()):
    """Return miou, IoUs, pixel accuracy and mean class accuracy from sets of pixels, without a confusion matrix."""
    prediction, label = prediction.numpy().ravel(), label.numpy().ravel()
    prediction, label = prediction[label != IGNORE_INDEX], label[label != IGNORE_INDEX]
    iou, recall = [], []
    for train_id in range(num_classes):
        truth, said = label == train_id, prediction == train_id
        both, either = (truth & said).sum(), (truth | said).sum()
        iou.append(both / either if either else math.nan)
        recall.append(both / truth.sum() if truth.sum() else math.nan)
    keep = [c for c in range(num_classes) if c not in unscored]
    means = [
        float(np.mean(known)) if (known := [values[c] for c in keep if not math.isnan(values[c])]) else math.nan
        for values in (iou, recall)
    ]
    accuracy = float((prediction == label).mean()) if len(label) else math.nan
    return means[0], iou, accuracy, means[1]


@cases
@examples
def test_metrics_equal_counts_of_pixel_sets(seed, num_classes, void):
    prediction, label = _draw(seed, num_classes, void)
    unscored = frozenset({seed % num_classes}) if seed % 2 else frozenset()
    metrics = _measure(prediction, label, num_classes, unscored=unscored)
    miou, iou, accuracy, class_accuracy = _reference(prediction, label, num_classes, unscored)
    assert metrics.miou == pytest.approx(miou, nan_ok=True)
    assert list(metrics.iou_per_class) == pytest.approx(iou, nan_ok=True)
    assert metrics.pixel_accuracy == pytest.approx(accuracy, nan_ok=True)
    assert metrics.mean_class_accuracy == pytest.approx(class_accuracy, nan_ok=True)


@cases
@examples
def test_batches_and_merged_matrices_give_the_whole(seed, num_classes, void):
    prediction, label = _draw(seed, num_classes, void)
    whole = _measure(prediction, label, num_classes).confusion
    first, second = ConfusionMatrix(num_classes), ConfusionMatrix(num_classes)
    first.update(prediction[:1], label[:1])
    first.update(prediction[1:2], label[1:2])
    second.update(prediction[2:], label[2:])
    first.merge(second)
    np.testing.assert_array_equal(first.compute().confusion, whole)


@cases
@examples
def test_predictions_at_void_pixels_change_nothing(seed, num_classes, void):
    prediction, label = _draw(seed, num_classes, void)
    other = torch.where(label == IGNORE_INDEX, (prediction + 1) % num_classes, prediction)
    expected = _measure(prediction, label, num_classes).confusion
    np.testing.assert_array_equal(_measure(other, label, num_classes).confusion, expected)
    assert expected.sum() == (label != IGNORE_INDEX).sum()


@cases
@examples
def test_renaming_the_classes_permutes_the_ious(seed, num_classes, void):
    prediction, label = _draw(seed, num_classes, void)
    order = torch.randperm(num_classes, generator=torch.Generator().manual_seed(seed))
    table = torch.full((256,), IGNORE_INDEX)
    table[:num_classes] = order
    before, after = _measure(prediction, label, num_classes), _measure(table[prediction], table[label], num_classes)
    assert after.miou == pytest.approx(before.miou, nan_ok=True)
    assert [after.iou_per_class[order[c]] for c in range(num_classes)] == pytest.approx(
        list(before.iou_per_class), nan_ok=True
    )


def test_rows_are_labels_and_columns_are_predictions():
    metrics = _measure(torch.tensor([[[1, 1, 0]]]), torch.tensor([[[0, 0, 0]]]), 2)
    np.testing.assert_array_equal(metrics.confusion, [[1, 2], [0, 0]])
    assert metrics.confusion.dtype == np.int64


def test_a_class_that_is_predicted_but_never_labelled_counts_as_zero():
    metrics = _measure(torch.tensor([[[0, 0, 1, 2]]]), torch.tensor([[[0, 0, 1, 1]]]), 4)
    assert metrics.iou_per_class[:3] == (1.0, 0.5, 0.0)
    assert math.isnan(metrics.iou_per_class[3])
    assert metrics.miou == pytest.approx(0.5)
    assert metrics.mean_class_accuracy == pytest.approx(0.75)


def test_an_unscored_class_leaves_the_means_but_stays_an_error_of_others():
    label, prediction = torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 0, 1, 0]]])
    metrics = _measure(prediction, label, 2, unscored=frozenset({1}))
    assert metrics.miou == pytest.approx(2 / 3)
    assert metrics.mean_class_accuracy == 1.0
    assert metrics.iou_per_class == (pytest.approx(2 / 3), 0.5)
    assert metrics.pixel_accuracy == 0.75


def test_miou_comes_from_the_whole_split_not_from_the_mean_over_images():
    label = torch.tensor([[[0, 0, 0, 1]], [[0, 1, 1, 1]]])
    prediction = torch.tensor([[[0, 0, 0, 0]], [[0, 1, 1, 1]]])
    metrics = _measure(prediction, label, 2)
    assert metrics.miou == pytest.approx((4 / 5 + 3 / 4) / 2)
    assert metrics.miou != pytest.approx(np.mean([_measure(prediction[i], label[i], 2).miou for i in (0, 1)]))


def test_no_labelled_pixel_gives_nan_not_zero():
    metrics = ConfusionMatrix(3).compute()
    numbers = [metrics.miou, metrics.pixel_accuracy, metrics.mean_class_accuracy, *metrics.iou_per_class]
    assert all(math.isnan(number) for number in numbers)


def test_uint8_ids_count_like_int64_ones():
    prediction, label = _draw(7, 6, 0.3)
    expected = _measure(prediction, label, 6).confusion
    np.testing.assert_array_equal(_measure(prediction.byte(), label.byte(), 6).confusion, expected)


def test_later_updates_leave_computed_metrics_alone():
    matrix = ConfusionMatrix(2)
    matrix.update(torch.zeros(1, 2, 2, dtype=torch.int64), torch.zeros(1, 2, 2, dtype=torch.int64))
    metrics = matrix.compute()
    matrix.update(torch.ones(1, 2, 2, dtype=torch.int64), torch.zeros(1, 2, 2, dtype=torch.int64))
    np.testing.assert_array_equal(metrics.confusion, [[4, 0], [0, 0]])


@pytest.mark.parametrize(("predicted", "labeled"), [(3, 0), (0, 3), (-1, 0), (0, -1), (255, 0)])
def test_an_id_out_of_range_is_refused(predicted, labeled):
    with pytest.raises(ValueError, match=r"train ids must be 0\.\.2"):
        ConfusionMatrix(3).update(torch.tensor([[[predicted]]]), torch.tensor([[[labeled]]]))


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        ConfusionMatrix(3).update(torch.zeros(1, 2, 2, dtype=torch.int64), torch.zeros(1, 2, 3, dtype=torch.int64))


def test_matrices_over_different_classes_do_not_merge():
    with pytest.raises(ValueError, match="over 3 classes into one over 2"):
        ConfusionMatrix(2).merge(ConfusionMatrix(3))


def test_an_unscored_id_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"unscored train ids must be 0\.\.1, got \[2\]"):
        ConfusionMatrix(2).compute(unscored=frozenset({2}))
