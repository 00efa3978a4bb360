"""What is said of the pick's worth on the target."""

import pytest
from records import replicate, trial

from sweeps.reports.pick import passed_over, worth_line
from sweeps.reports.view import SweepView
from sweeps.trial import TrialKind

KNOWN = {
    "baseline": "plain",
    "references": {"plain": {"method.name": "source_only"}, "bound": {"method.name": "target_only"}},
}
REFERENCE = {"kind": TrialKind.REFERENCE}
PLAIN = trial(0, 0.6, 0.2, method="source_only", name="plain", **REFERENCE)
BOUND = trial(1, 0.5, 0.6, method="target_only", name="bound", **REFERENCE)


@pytest.fixture
def worth(make_spec):
    def tell(*trials, **changes):
        spec = make_spec(**{"selection": "source_validation", **changes})
        return worth_line(SweepView(record=None, spec=spec, trials=trials))

    return tell


def test_gain_and_way_to_the_upper_bound_are_told_with_what_they_rest_on(worth):
    assert worth(PLAIN, BOUND, trial(2, 0.7, 0.5), trial(3, 0.6, 0.55), **KNOWN) == (
        "50.0 % mIoU on the target, +30.0 points against plain, 75% of the way to bound, which had target labels "
        "(one seed, which chose it; target labels tell this and chose nothing)"
    )


def test_what_is_missing_is_left_out(worth):
    picked = trial(2, 0.7, 0.15)
    assert worth(PLAIN, picked).startswith("15.0 % mIoU on the target, -5.0 points against plain (one seed")
    assert worth(picked).startswith("15.0 % mIoU on the target (one seed")
    assert worth(trial(2, 0.7, metrics={"oracle/target/miou": None}), PLAIN) is None
    assert worth() is None


def test_who_chose_by_target_labels_is_not_told_otherwise(worth):
    assert worth(trial(2, 0.7, 0.5), selection="oracle") == "50.0 % mIoU on the target (one seed, which chose it)"


def test_further_seeds_take_the_place_of_the_one_that_chose(worth):
    picked = trial(2, 0.7, 0.9)
    again = [
        replicate(4 + 2 * place + seed - 1, of, of.metrics["source/val/miou"], target, seed=seed)
        for place, (of, targets) in enumerate([(picked, (0.40, 0.44)), (PLAIN, (0.20, 0.22)), (BOUND, (0.5, 0.5))])
        for seed, target in enumerate(targets, start=1)
    ]
    line = worth(PLAIN, BOUND, picked, *again, seeds=[0, 1, 2], finalists=1, repeat_references=True, **KNOWN)
    assert line.startswith(
        "42.0 % mIoU on the target, +21.0 points (8.3 to 33.7) against plain, 72% of the way to bound"
    )
    assert "(2 further seeds; target labels" in line


@pytest.fixture
def passed(make_spec):
    def tell(*trials, **changes):
        spec = make_spec(**{"selection": "source_validation", **changes})
        return list(passed_over(SweepView(record=None, spec=spec, trials=trials)))

    return tell


def test_a_better_trial_is_named_with_the_rule_that_excluded_it(passed):
    broke, slow = trial(3, 0.40, 0.55), trial(4, 0.6, 0.51, profile={"fps": 10.0})
    worse = trial(5, 0.40, 0.45)  # excluded too, and nobody misses it
    assert passed(PLAIN, trial(2, 0.7, 0.5), broke, slow, worse, constraints=["fps >= 30"]) == [
        "Trial 3 is better (oracle/target/miou 55.0%, the pick 50.0%) and could not be picked: source/val/miou 40.0% is below "
        "48.0%, 0.8 of what source-only trial 0 reaches, which sees the source in the same way.",
        "Trial 4 is better (oracle/target/miou 51.0%, the pick 50.0%) and could not be picked: fps >= 30 is broken: 10.",
    ]
    assert passed() == []


def test_without_target_labels_better_is_what_the_sweep_chose_by(passed):
    def unlabelled(number, score, **metrics):
        return trial(number, 0.6, metrics={"oracle/target/miou": None, "target/validator/im": score, **metrics})

    collapsed = unlabelled(3, 2.0, **{"target/largest_class_share": 0.99})
    assert passed(unlabelled(2, 1.0), collapsed, selection="im") == [
        "Trial 3 is better (target/validator/im 2, the pick 1) and could not be picked: one class covers 99.0% of the target's "
        "pixels, more than 95%."
    ]


def test_a_better_trial_whose_network_had_no_vote_is_named(passed):
    def voter(number, target, agreement, **changes):
        return trial(number, 0.6, target, metrics={"target/pool/ensv": agreement}, **changes)

    other = trial(9).config | {"model": {"name": "fast_scnn"}}
    silent = trial(3, 0.30, 0.60, metrics={"target/pool/ensv": 0.2}, config=other)
    assert passed(voter(0, 0.4, 0.9), voter(1, 0.3, 0.8), voter(2, 0.3, 0.7), silent, selection="ensv") == [
        "Trial 3 is better (oracle/target/miou 60.0%, the pick 40.0%) and had no vote: no training of its network has more "
        "source/val/miou than 30.0%, which is below 48.0%, 0.8 of what the best network reaches."
    ]
