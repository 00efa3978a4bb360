"""What is said of the pick's worth on the target."""

import pytest
from records import replicate, trial

from sweeps.reports.pick import worth_line
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
