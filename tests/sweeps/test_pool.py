"""Choosing by what candidates say of each other, and what it must not be fooled by."""

import dataclasses
import logging

import numpy as np
import pytest
from records import replicate, trial
from scipy.stats import spearmanr

from segda.target_prediction import (
    TARGET_PREDICTION,
    TargetPrediction,
    read_target_prediction,
    write_target_prediction,
)
from sweeps.execution.predictions import compared
from sweeps.execution.remote import keep
from sweeps.metrics import ENSV, TARGET_MIOU
from sweeps.selection.choice import rank, select
from sweeps.selection.guards import Guard, collapse
from sweeps.selection.pool import agreement, pool_fault, with_pool_figures
from sweeps.store import Store
from sweeps.trial import TrialKind, TrialState

CLASSES = 7
SHARES = np.array([0.30, 0.20, 0.15, 0.12, 0.10, 0.08, 0.05])
COUNT = 6000


def miou(prediction, labels):
    terms = []
    for label in range(CLASSES):
        hits = ((prediction == label) & (labels == label)).sum()
        union = ((prediction == label) | (labels == label)).sum()
        terms += [hits / union] if union else []
    return float(np.mean(terms))


def predicted(classes, pixels="same"):
    return TargetPrediction(np.asarray(classes, dtype=np.uint8), CLASSES, pixels)


class Pool:
    """Synthetic candidates: skills from poor to good, errors that are partly common, and a confidence of their own."""

    def __init__(self, *, skills=None, noise=0.3, collapsed=0, seed=0):
        rng = np.random.default_rng(seed)
        skills = np.linspace(1.0, 3.2, 8) if skills is None else skills
        self.labels = rng.choice(CLASSES, COUNT, p=SHARES)
        common = rng.normal(size=(COUNT, CLASSES))
        self.trials, self.predictions = [], {}
        for number, skill in enumerate(skills):
            raw = np.sqrt(noise) * common + np.sqrt(1 - noise) * rng.normal(size=(COUNT, CLASSES))
            raw[np.arange(COUNT), self.labels] += skill
            if number < collapsed:
                raw[:, 0] += 12
            classes = raw.argmax(axis=1)
            figures = {
                "target/largest_class_share": float(np.bincount(classes, minlength=CLASSES).max() / COUNT),
                # What confidence says is nothing: the poorer, the surer of itself on the target.
                "target/validator/entropy": -0.1 * number,
            }
            self.trials.append(trial(number, 0.6, miou(classes, self.labels), metrics=figures))
            self.predictions[number] = predicted(classes)

    def with_figures(self):
        return with_pool_figures(self.trials, lambda trial: self.predictions.get(trial.number))


def test_agreement_is_the_mean_iou_of_classes_that_either_has():
    prediction, majority = np.array([0, 0, 1, 2, 2], np.uint8), np.array([0, 1, 1, 2, 0], np.uint8)
    # 0: one of {0, 1, 4}; 1: one of {1, 2}; 2: one of {3, 4}; the others are nowhere.
    assert agreement(prediction, majority, num_classes=CLASSES) == pytest.approx((1 / 3 + 1 / 2 + 1 / 2) / 3)
    assert agreement(majority, majority, num_classes=CLASSES) == 1


def test_the_majority_has_one_vote_of_each_candidate():
    classes = {0: [0, 0, 1, 3], 1: [0, 1, 1, 3], 2: [2, 1, 2, 3]}
    trials = with_pool_figures([trial(number) for number in classes], lambda one: predicted(classes[one.number]))
    majority = np.array([0, 1, 1, 3], np.uint8)
    for one in trials:
        expected = agreement(np.array(classes[one.number], np.uint8), majority, num_classes=CLASSES)
        assert one.metrics[ENSV] == pytest.approx(expected)
    assert trials[1].metrics[ENSV] == 1


@pytest.mark.parametrize("noise", [0.3, 0.7])
def test_agreement_orders_candidates_as_the_target_does_however_sure_they_are(make_spec, noise):
    """A weak but over-confident member must not win, as it does by every score of a single model."""
    pool = Pool(noise=noise)
    trials = pool.with_figures()
    truth = [one.metrics[TARGET_MIOU] for one in trials]
    assert spearmanr([one.metrics[ENSV] for one in trials], truth).statistic > 0.9
    spec = make_spec(selection="ensv")
    selection = select(trials, spec)
    assert (selection.criterion, selection.used) == ("ensv", "ensv")
    if noise < 0.5:
        assert selection.picked.number == 7
    # Where most errors are common, a good but typical network agrees more than the best one.
    assert selection.picked.metrics[TARGET_MIOU] > np.median(truth)
    assert select(trials, spec, criterion="entropy").picked.number == 0  # the worst one
    assert f"best {ENSV}" in selection.reason
    assert "No target label was read" in selection.reason


def test_a_few_collapsed_candidates_do_not_vote_and_are_not_picked(make_spec):
    pool = Pool(collapsed=2)
    trials = pool.with_figures()
    healthy = Pool(collapsed=2)
    healthy.trials, without = healthy.trials[2:], None
    without = healthy.with_figures()
    assert [one.metrics[ENSV] for one in trials[2:]] == [one.metrics[ENSV] for one in without]
    selection = select(trials, make_spec(selection="ensv"))
    assert selection.used == "ensv"
    assert selection.picked.number == 7
    assert [number for number, _ in selection.rejected] == [0, 1]


def test_a_pool_of_which_half_has_collapsed_is_refused_and_the_reason_says_what_chose(make_spec):
    """Where half of the pool is collapsed alike, agreement picks a collapsed one."""
    pool = Pool(collapsed=4)
    spec = make_spec(selection="ensv")
    unguarded = [dataclasses.replace(one, metrics={}) for one in pool.trials]
    figures = with_pool_figures(unguarded, lambda one: pool.predictions[one.number])
    assert max(figures, key=lambda one: one.metrics[ENSV]).number < 4  # what is refused
    trials = pool.with_figures()
    best = dataclasses.replace(trials[5], metrics={**trials[5].metrics, "source/val/miou": 0.61})
    trials[5] = best
    selection = select(trials, spec)
    assert (selection.criterion, selection.used) == ("ensv", "source_validation")
    assert selection.picked is best
    assert selection.reason.startswith("ensv was refused: 4 of 8 fully trained candidates have collapsed on the target")
    assert "By source_validation: Trial 5" in selection.reason
    assert rank(trials, spec)[0] is best


def test_a_majority_that_puts_one_class_everywhere_is_refused_although_no_member_does(make_spec):
    classes = np.zeros((3, 100), np.uint8)
    for number in range(3):
        classes[number, 20 * number : 20 * number + 20] = 1
    trials = [trial(number, metrics={"target/largest_class_share": 0.8}) for number in range(3)]
    trials = with_pool_figures(trials, lambda one: predicted(classes[one.number]))
    assert pool_fault(trials) == "the majority of 3 candidates puts one class on 100.0% of the target's pixels"


@pytest.mark.parametrize("known", [0, 1, 2])
def test_less_than_three_voters_are_no_pool(make_spec, known):
    pool = Pool()
    pool.predictions = dict(list(pool.predictions.items())[:known])
    trials = pool.with_figures()
    assert f"as well as the best, got {known}" in select(trials, make_spec(selection="ensv")).reason
    assert select(trials, make_spec(selection="ensv")).used == "source_validation"


def of_networks(*networks):
    """Return voters of networks: (name, source validation, what it predicts)."""
    trials, predictions = [], {}
    for number, (name, source, classes) in enumerate(networks):
        one = trial(number, source)
        trials.append(dataclasses.replace(one, config={**one.config, "model": {"name": name}}))
        predictions[number] = predicted(classes)
    return with_pool_figures(trials, lambda one: predictions[one.number])


GOOD, POOR = [0, 1, 2, 3], [3, 3, 2, 1]


def test_networks_that_learn_the_source_far_worse_do_not_outvote_others():
    strong = [("bisenet_v1", source, GOOD) for source in (0.30, 0.54, 0.50)]
    trials = of_networks(*strong, *[("fast_scnn", source, POOR) for source in (0.43, 0.2, 0.3, 0.3)])
    assert [one.metrics[ENSV] for one in trials[:3]] == [1, 1, 1]
    assert pool_fault(trials) is None
    # One training of it that is about as good is enough: what others gave of the source may have been for the target.
    trials = of_networks(*strong, *[("fast_scnn", source, POOR) for source in (0.44, 0.2, 0.3, 0.3)])
    assert [one.metrics[ENSV] for one in trials[3:]] == [1, 1, 1, 1]


def test_a_vote_of_two_is_refused_however_many_are_of_weaker_networks(make_spec):
    trials = of_networks(("bisenet_v1", 0.6, GOOD), ("bisenet_v1", 0.5, GOOD), *[("fast_scnn", 0.3, POOR)] * 4)
    selection = select(trials, make_spec(selection="ensv"))
    assert (selection.used, selection.picked.number) == ("source_validation", 0)
    assert "as well as the best, got 2" in selection.reason
    assert "learn the source about as well as the best" in selection.reason


def test_a_candidate_without_a_prediction_is_rejected_where_the_others_vote(make_spec):
    pool = Pool()
    del pool.predictions[7]
    selection = select(pool.with_figures(), make_spec(selection="ensv"))
    assert selection.used == "ensv"
    assert selection.rejected == ((7, f"it has no {ENSV}"),)


def test_predictions_of_other_pixels_neither_vote_nor_are_compared():
    """A sweep that goes on with other images, another size or other classes has two kinds of predictions."""
    pool = Pool()
    alone = Pool()
    for number in (0, 1, 7):
        pool.predictions[number] = dataclasses.replace(pool.predictions[number], pixels="other")
        del alone.predictions[number]
    assert [one.metrics for one in pool.with_figures()] == [one.metrics for one in alone.with_figures()]


def test_repetitions_are_compared_and_do_not_vote():
    """The choice of finalists does not move while they are repeated, and can be compared over their seeds."""
    pool = Pool()
    before = [one.metrics[ENSV] for one in pool.with_figures()]
    for number, parent in enumerate([7, 7, 7, 6, 6, 6], start=8):
        pool.trials.append(replicate(number, pool.trials[parent], 0.6, seed=number))
        pool.predictions[number] = pool.predictions[0]  # poor ones, and many
    found = pool.with_figures()
    assert [one.metrics[ENSV] for one in found[:8]] == before
    assert all(one.metrics[ENSV] == before[0] for one in found[8:])


@pytest.mark.parametrize(
    "changes",
    [
        {"state": TrialState.PRUNED},
        {"kind": TrialKind.REFERENCE, "name": "bound"},
        {"method": "target_only"},
    ],
    ids=str,
)
def test_only_fully_trained_candidates_vote(changes):
    pool = Pool()
    before = [one.metrics[ENSV] for one in pool.with_figures()]
    for number in range(8, 20):
        pool.trials.append(trial(number, **changes))
        pool.predictions[number] = predicted(np.zeros(COUNT))
    assert [one.metrics[ENSV] for one in pool.with_figures()[:8]] == before


def test_finalists_are_compared_over_their_seeds_by_agreement(make_spec):
    pool = Pool(skills=[2.0, 2.2, 2.4, 2.6, 2.8, 3.0])
    first, second = (rank(pool.with_figures(), make_spec(selection="ensv"))[place].number for place in (0, 1))
    for offset, seed in enumerate((1, 2)):
        for parent, like in ((first, 0), (second, first)):
            number = 6 + 2 * offset + (parent == second)
            pool.trials.append(replicate(number, pool.trials[parent], 0.6, seed=seed))
            pool.predictions[number] = pool.predictions[like]
    selection = select(pool.with_figures(), make_spec(selection="ensv", finalists=2, seeds=[0, 1, 2]))
    assert selection.picked.number == second
    assert selection.comparisons[0].holds


def test_no_label_of_the_target_enters(make_spec):
    pool = Pool()
    spec = make_spec(selection="ensv")
    expected = select(pool.with_figures(), spec)
    for garbage in (0.0, np.nan, None):
        for number, one in enumerate(pool.trials):
            metrics = {name: value for name, value in one.metrics.items() if not name.startswith("oracle/")}
            pool.trials[number] = dataclasses.replace(
                one, metrics=metrics if garbage is None else metrics | {TARGET_MIOU: garbage}
            )
        found = select(pool.with_figures(), spec)
        assert found.picked.number == expected.picked.number
        assert (found.ranked, found.reason) == (expected.ranked, expected.reason)


def test_the_alarm_is_measured_by_what_source_only_training_has():
    baseline = trial(0, method="source_only", metrics={"target/transport_accuracy": 0.6})
    kept, lost = (
        trial(number, metrics={"target/transport_accuracy": value}) for number, value in ((1, 0.41), (2, 0.39))
    )
    trials = [baseline, kept, lost]
    assert collapse(kept, trials) is None
    assert collapse(lost, trials) == (
        "with the source's class shares at most 39.0% of its target predictions could be right, below 40.0%, two thirds of what "
        "source-only trial 0 has"
    )
    assert Guard(trials).target_collapse(lost) is not None


@pytest.mark.parametrize("accuracy", [0.3, 0.9])
def test_without_a_source_only_training_the_alarm_is_measured_by_the_networks_own_source(accuracy):
    """A network that has learned little is not collapsed: its predictions could not be right on the source either."""

    def collapsed(transport):
        one = trial(0, metrics={"target/transport_accuracy": transport, "source/val/pixel_accuracy": accuracy})
        return collapse(one, [one])

    assert collapsed(0.49 * accuracy) is not None
    assert collapsed(0.51 * accuracy) is None


def test_predictions_are_read_from_the_folders_of_trials_and_damaged_ones_are_left_out(store, caplog):
    pool = Pool()
    for one in pool.trials:
        store.trial(one).mkdir(parents=True)
        write_target_prediction(store.trial(one) / TARGET_PREDICTION, pool.predictions[one.number])
    assert compared(pool.trials, store=store, storage=None) == pool.with_figures()
    assert (store.trial(pool.trials[0]) / TARGET_PREDICTION).stat().st_size < 6000
    damaged, lost = (store.trial(pool.trials[number]) / TARGET_PREDICTION for number in (0, 1))
    damaged.write_bytes(damaged.read_bytes()[:-40])
    lost.unlink()
    with caplog.at_level(logging.WARNING):
        found = compared(pool.trials, store=store, storage=None)
    assert "trial 0 is compared with no other one" in caplog.text
    assert [ENSV in one.metrics for one in found] == [False, False, *[True] * 6]


def test_a_prediction_comes_back_as_it_was_written_and_what_is_none_is_refused(tmp_path):
    path = tmp_path / TARGET_PREDICTION
    write_target_prediction(path, predicted([0, 6, 3]))
    found = read_target_prediction(path)
    assert (found.classes.tolist(), found.num_classes, found.pixels) == ([0, 6, 3], CLASSES, "same")
    with pytest.raises(FileNotFoundError):
        read_target_prediction(tmp_path / "none.npz")
    write_target_prediction(path, predicted([0, 7, 3]))  # a class that does not exist
    for content in (None, b"", b"PK", b"\x80\x04K\x01.", np.arange(3).tobytes()):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match="is not what a training writes"):
            read_target_prediction(path)


def test_predictions_of_trials_that_ran_elsewhere_come_from_the_storage_address(store, tmp_path):
    pool, storage, there = Pool(), f"file://{tmp_path}/bucket", Store.at(tmp_path / "node")
    pool.trials = [dataclasses.replace(one, attempt=1) for one in pool.trials]
    for one in pool.trials:
        there.trial(one).mkdir(parents=True)
        write_target_prediction(there.trial(one) / TARGET_PREDICTION, pool.predictions[one.number])
        (there.trial(one) / "checkpoint.pt").write_bytes(b"large")
        keep(one, store=there, storage=storage)
    assert compared(pool.trials, store=store, storage=None) == pool.trials
    assert compared(pool.trials, store=store, storage=storage) == pool.with_figures()
    assert not (store.trial(pool.trials[0]) / "checkpoint.pt").exists()
