"""The choice among finalists: constructed seeds whose answer is known."""

import re

import pytest
from records import PROFILE, replicate, trial

from sweeps.failures import FailureClass
from sweeps.selection.choice import select
from sweeps.selection.finalists import finalists_of
from sweeps.selection.seeds import advantage_holds, paired
from sweeps.trial import TrialState

LIGHT = PROFILE | {"macs": 1e9}


def sweep(*finalists):
    """Records of finalists, each given as (source figure of the search, {further seed: figure}, changes)."""
    records = [trial(number, source, **changes) for number, (source, _, changes) in enumerate(finalists)]
    for parent, (_, figures, changes) in zip(list(records), finalists, strict=True):
        for seed, value in figures.items():
            records.append(replicate(len(records), parent, value, seed=seed, **changes))
    return records


def choose(make_spec, *finalists, **changes):
    return select(sweep(*finalists), make_spec(finalists=3, seeds=[0, 1, 2, 3, 4, 5], **changes))


def test_an_advantage_that_holds_on_every_further_seed_promotes(make_spec):
    selection = choose(make_spec, (0.62, {1: 0.52, 2: 0.53}, {}), (0.60, {1: 0.59, 2: 0.58}, {}))
    assert selection.picked.number == 1
    assert "rank 2 of 2 candidates that qualify" in selection.reason
    assert "better than trial 0 by 6.0 points on average, and on each of 2 further common seeds" in selection.reason
    assert "of equals 1 in 4 would be" in selection.reason
    assert "60.0% with seed 0" in selection.reason
    assert "its mean over 2 further seeds is 58.5%" in selection.reason


def test_an_advantage_that_is_noise_promotes_nobody_however_large_its_mean(make_spec):
    selection = choose(make_spec, (0.62, {1: 0.40, 2: 0.60}, {}), (0.60, {1: 0.59, 2: 0.59}, {}))
    assert selection.picked.number == 0
    assert "Not separable from trial 1 over 2 further common seeds (behind by 9.0 points on average" in selection.reason
    assert "the one that ranked better is kept" in selection.reason


def test_a_cheaper_one_that_seeds_cannot_separate_is_not_promoted(make_spec):
    selection = choose(make_spec, (0.80, {1: 0.80, 2: 0.60}, {}), (0.62, {1: 0.60, 2: 0.601}, {"profile": LIGHT}))
    assert selection.picked.number == 0
    assert "ahead by 10.0 points on average" in selection.reason
    assert "the one that ranked better is kept" in selection.reason


def test_a_finalist_that_is_worse_on_every_seed_is_said_to_be(make_spec):
    selection = choose(make_spec, (0.62, {1: 0.61, 2: 0.62}, {}), (0.60, {1: 0.60, 2: 0.606}, {}))
    assert selection.picked.number == 0
    assert "It is better than trial 1 by 1.2 points on average" in selection.reason


def test_the_seed_of_the_search_is_no_evidence(make_spec):
    """It chose the finalists: with it the first one would win on one seed by construction."""
    selection = choose(make_spec, (0.90, {1: 0.52, 2: 0.53}, {}), (0.60, {1: 0.53, 2: 0.54}, {}))
    assert selection.picked.number == 1
    assert selection.comparisons[0].seeds == (1, 2)


def test_only_seeds_that_both_finished_count(make_spec):
    best, other = {1: 0.60, 2: 0.61, 4: 0.10}, {1: 0.62, 2: 0.63, 3: 0.20}
    selection = choose(make_spec, (0.62, best, {}), (0.60, other, {}))
    assert selection.picked.number == 1
    (pair,) = selection.comparisons
    assert pair.seeds == (1, 2)
    assert pair.difference.mean == pytest.approx(0.02)


def test_one_common_seed_decides_nothing(make_spec):
    selection = choose(make_spec, (0.62, {1: 0.10, 2: 0.6}, {}), (0.60, {1: 0.61, 3: 0.6}, {}))
    assert selection.picked.number == 0
    assert "they have 1 further in common, at least 2 are needed" in selection.reason


def test_a_running_repetition_does_not_count(make_spec):
    records = sweep((0.62, {1: 0.5, 2: 0.5}, {}), (0.60, {1: 0.6}, {}))
    records.append(replicate(9, records[1], 0.6, seed=2, state=TrialState.RUNNING))
    assert select(records, make_spec(finalists=2, seeds=[0, 1, 2])).picked.number == 0


def test_of_three_the_one_that_nobody_beats_is_picked(make_spec):
    selection = choose(
        make_spec, (0.63, {1: 0.50, 2: 0.51}, {}), (0.62, {1: 0.52, 2: 0.53}, {}), (0.61, {1: 0.54, 2: 0.55}, {})
    )
    assert selection.picked.number == 2
    assert [(pair.number, pair.other, pair.holds) for pair in selection.comparisons] == [(2, 0, True), (2, 1, True)]


def test_nobody_is_promoted_because_a_third_one_beats_the_first(make_spec):
    """The third beats the first; nobody can tell the second from either."""
    selection = choose(
        make_spec,
        (0.63, {1: 0.50, 2: 0.54}, {}),
        (0.62, {1: 0.60, 2: 0.53}, {}),
        (0.61, {1: 0.51, 2: 0.55}, {}),
    )
    assert selection.picked.number == 2
    assert [(pair.number, pair.other, pair.holds) for pair in selection.comparisons] == [(2, 0, True), (0, 1, False)]
    assert "Trial 0 is not separable from trial 1 over 2 further common seeds (behind by 4.5 points" in selection.reason
    assert "trial 1 does not take its place" in selection.reason


def test_advantages_that_go_round_in_a_circle_promote_one_that_beats_all_it_replaces(make_spec):
    """The second beats the first and the third the second, but the first beats the third: each pair shares other seeds."""
    first = {3: 0.50, 4: 0.50, 5: 0.60, 6: 0.60}
    second = {1: 0.50, 2: 0.50, 3: 0.60, 4: 0.60}
    third = {1: 0.60, 2: 0.60, 5: 0.50, 6: 0.50}
    records = sweep((0.63, first, {}), (0.62, second, {}), (0.61, third, {}))
    assert select(records, make_spec(finalists=3, seeds=[0, 1])).picked.number == 1


def test_a_finalist_that_collapsed_with_a_further_seed_gives_way(make_spec):
    records = sweep((0.62, {1: 0.60, 2: 0.60}, {}), (0.60, {1: 0.50, 2: 0.50}, {}))
    broken = replicate(9, records[0], 0.70, seed=3, metrics={"target/largest_class_share": 0.99})
    selection = select([*records, broken], make_spec(finalists=2, seeds=[0, 1, 2, 3]))
    assert selection.picked.number == 1
    assert "Trial 0 gives way: with seed 3 (trial 9): one class covers 99.0%" in selection.reason


def test_after_a_sentence_about_another_finalist_the_choice_is_named(make_spec):
    records = sweep((0.62, {1: 0.6, 2: 0.6}, {}), (0.60, {1: 0.5}, {}), (0.58, {1: 0.5, 2: 0.5}, {}))
    broken = replicate(19, records[1], 0.70, seed=3, metrics={"target/largest_class_share": 0.99})
    reason = select([*records, broken], make_spec(finalists=3, seeds=[0, 1, 2, 3])).reason
    assert re.search(r"Trial 1 gives way: .* Trial 0 is better than trial 2", reason)


def test_a_finalist_that_diverged_with_a_further_seed_gives_way(make_spec):
    records = sweep((0.62, {1: 0.60}, {}), (0.60, {1: 0.50}, {}))
    diverged = {"state": TrialState.FAILED, "failure": FailureClass.DIVERGED}
    records.append(replicate(9, records[0], 0.2, seed=2, **diverged))
    assert select(records, make_spec(finalists=2, seeds=[0, 1, 2])).picked.number == 1


def test_candidates_behind_the_finalists_are_never_promoted(make_spec):
    records = sweep((0.62, {1: 0.50, 2: 0.50}, {}), (0.60, {1: 0.60, 2: 0.60}, {}))
    assert select(records, make_spec(finalists=1, seeds=[0, 1, 2])).picked.number == 0


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([], False),
        ([0.5], False),
        ([0.01, 0.02], True),
        ([0.01, 0.0], False),
        ([0.05, 0.05, 0.05, -0.001], False),
        ([0.05, 0.05, 0.05, 0.05, -0.001], True),
        ([0.05, 0.01, 0.09, 0.02, -0.04], False),
        ([-0.01, -0.02, -0.01, -0.02, -0.01], False),
    ],
)
def test_an_advantage_holds_with_every_seed_or_from_five_seeds_by_its_interval(differences, expected):
    assert advantage_holds(differences) is expected


def test_a_comparison_turned_round_is_its_opposite():
    figures = {1: {1: 0.5, 2: 0.6}, 2: {1: 0.4, 2: 0.4, 3: 0.9}}
    there, back = paired(1, 2, figures), paired(2, 1, figures)
    assert there.difference.mean == pytest.approx(0.15) == -back.difference.mean
    assert (there.holds, back.holds) == (True, False)


def test_the_best_of_each_method_is_repeated_though_another_method_has_all_the_best(make_spec):
    search = {"method.name": ["dacs", "source_only"], "optimizer.lr": {"low": 0.01, "high": 0.1}}
    spec = make_spec(search=search, finalists_of_each=["method.name"], finalists=1, seeds=[0, 1])
    ranked = [
        trial(0, 0.7, params={"method.name": "dacs"}),
        trial(1, 0.6, params={"method.name": "dacs"}),
        trial(2, 0.5, params={"method.name": "source_only"}),
        trial(3, 0.4, params={"method.name": "source_only"}),
    ]
    assert [item.number for item in finalists_of(ranked, spec)] == [0, 2]
    assert [item.number for item in finalists_of(ranked, make_spec(finalists=3, seeds=[0, 1]))] == [0, 1, 2]
