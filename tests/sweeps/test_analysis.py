import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import PROFILE, replicate, trial
from scipy import stats

from sweeps import labels
from sweeps.metrics import CRITERIA
from sweeps.reports import criteria, network_tables, tables
from sweeps.selection import analysis, seeds
from sweeps.selection.choice import select
from sweeps.trial import TrialKind, TrialState

figures = st.integers(0, 6).map(lambda value: value / 8)


def costed(number, quality, cost, **changes):
    return trial(number, quality, profile=PROFILE | {"macs": cost}, **changes)


def numbers(trials):
    return [trial.number for trial in trials]


def test_a_cost_that_was_measured_in_company_is_no_place_on_the_front():
    sure = PROFILE | {"latency_reliable": 1.0}
    trials = [
        trial(0, 0.5, profile=sure | {"latency_ms": 20.0}),
        trial(1, 0.6, profile=sure | {"latency_ms": 5.0, "latency_reliable": 0.0}),
        trial(2, 0.7, profile=sure | {"latency_ms": 30.0}),
    ]
    assert numbers(analysis.pareto_front(trials, metric="source/val/miou", cost="latency_ms")) == [0, 2]
    assert numbers(analysis.pareto_front(trials, metric="source/val/miou", cost="macs")) == [2]


@given(st.lists(st.tuples(figures, figures), max_size=12))
def test_the_front_is_what_brute_force_finds(points):
    trials = [costed(number, quality, cost) for number, (quality, cost) in enumerate(points)]
    front = analysis.pareto_front(trials, metric="source/val/miou", cost="macs")

    def is_beaten(number):
        quality, cost = points[number]
        return any(
            (q >= quality and c <= cost and (q > quality or c < cost)) or ((q, c) == (quality, cost) and other < number)
            for other, (q, c) in enumerate(points)
        )

    assert sorted(numbers(front)) == [number for number in range(len(points)) if not is_beaten(number)]
    assert [t.profile["macs"] for t in front] == sorted(t.profile["macs"] for t in front)
    assert [t.metrics["source/val/miou"] for t in front] == sorted(t.metrics["source/val/miou"] for t in front)


@pytest.mark.parametrize(
    "changes",
    [
        {"state": TrialState.PRUNED},
        {"state": TrialState.RUNNING},
        {"kind": TrialKind.REFERENCE},
        {"kind": TrialKind.REPLICATE},
        {"method": "target_only"},
        {"metrics": {"source/val/miou": math.nan}},
    ],
    ids=str,
)
def test_only_fully_trained_candidates_enter_the_front(changes):
    trials = [costed(0, 0.5, 5.0), costed(1, 0.9, 1.0, **changes), trial(2, 0.95, profile={})]
    assert numbers(analysis.pareto_front(trials, metric="source/val/miou", cost="macs")) == [0]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_mean_and_interval_agree_with_scipy(values):
    got = seeds.mean_interval(values)
    error = float(stats.sem(values))
    assert got.n == len(values)
    assert got.mean == pytest.approx(np.mean(values))
    assert got.std == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    half = stats.t.ppf(0.975, len(values) - 1) * error
    assert (got.low, got.high) == (
        pytest.approx(np.mean(values) - half, abs=1e-9),
        pytest.approx(np.mean(values) + half, abs=1e-9),
    )


def test_the_interval_of_two_values_has_the_closed_form():
    # One degree of freedom is the Cauchy distribution, whose 97.5 % point is tan(0.475 pi); std / sqrt(2) is half the gap.
    got = seeds.mean_interval([0.4, 0.5])
    assert got.high - got.mean == pytest.approx(math.tan(0.475 * math.pi) * 0.05)


def test_one_value_has_a_mean_and_no_interval():
    assert seeds.mean_interval([0.5]) == seeds.MeanInterval(n=1, mean=0.5, std=None, low=None, high=None)
    with pytest.raises(ValueError, match="at least one"):
        seeds.mean_interval([])


def test_further_seeds_are_summarized_without_the_one_that_chose_the_finalist():
    first, other = trial(0, 0.9, 0.9), trial(1, 0.5, 0.3)
    repeated = [replicate(2, first, 0.62, 0.5, seed=1), replicate(3, first, 0.64, 0.6, seed=2)]
    unfinished = replicate(4, other, 0.9, state=TrialState.RUNNING)
    (group,) = seeds.seed_groups([first, other, *repeated, unfinished], metric="source/val/miou")
    assert (group.trial, group.seeds, group.source.n) == (first, (1, 2), 2)
    assert group.source.mean == pytest.approx(0.63)
    assert group.target.mean == pytest.approx(0.55)
    assert group.target.std == pytest.approx(0.1 / math.sqrt(2))


def test_a_target_mean_needs_a_target_figure_of_every_seed():
    first = trial(0)
    trials = [first, replicate(1, first, 0.6), replicate(2, first, 0.6, seed=2, metrics={"oracle/target/miou": None})]
    (group,) = seeds.seed_groups(trials, metric="source/val/miou")
    assert group.target is None
    assert group.source.n == 2


def test_method_rows_count_the_budget_and_choose_by_source_validation():
    trials = [
        trial(0, 0.6, 0.3, discriminator="dwd"),
        trial(1, 0.5, 0.5, discriminator="dwd"),
        trial(2, 0.9, discriminator="dwd", state=TrialState.PRUNED, step=30),
        trial(3, discriminator="dwd", state=TrialState.INFEASIBLE, step=0),
        trial(4, discriminator="dwd", state=TrialState.FAILED, step=10),
        trial(5, 0.4, 0.2, method="source_only"),
        trial(6, 0.9, 0.9, discriminator="dwd", kind=TrialKind.REPLICATE),
        trial(7, 0.9, 0.9, method="target_only", kind=TrialKind.REFERENCE),
    ]
    adapted, plain = tables.methods_table(trials).records()
    assert plain["method"] == "source_only"
    assert adapted == {
        "method": "adversarial × dwd",
        **{"trials": 5, "complete": 2, "pruned": 1, "infeasible": 1, "failed": 1, "steps": 240},
        **{"best": 0, "source_miou": 0.6, "target_miou": 0.3, "best_target_miou": 0.5},
    }


def test_a_method_without_a_finished_trial_has_no_figures():
    (row,) = tables.methods_table([trial(0, state=TrialState.RUNNING)]).records()
    assert (row["trials"], row["complete"], row["best"], row["source_miou"]) == (1, 0, None, None)


def choices(trials, spec):
    return {criterion: select(trials, spec, criterion=criterion) for criterion in CRITERIA}


def test_regret_is_what_the_choice_loses_against_the_oracle(make_spec):
    trials = [trial(0, 0.6, 0.40, metrics={"target/validator/im": 0.1}), trial(1, 0.5, 0.47)]
    rows = {row.criterion: row for row in criteria.criterion_rows(trials, choices(trials, make_spec()))}
    assert rows["source_validation"].regret == pytest.approx(0.07)
    assert rows["source_validation"].target_miou == 0.40
    assert rows["oracle"].regret == 0.0
    assert (rows["im"].picked.number, rows["im"].figure) == (0, 0.1)
    assert rows["snd"].picked is None
    assert rows["snd"].regret is None


def test_regret_is_never_negative_although_further_seeds_promote_another_choice_of_the_oracle(make_spec):
    spec = make_spec(finalists=2, seeds=[0, 1, 2])
    best, other = trial(0, 0.80, 0.60), trial(1, 0.79, 0.50)
    trials = [best, other]
    for seed, target in ((1, 0.50), (2, 0.50)):
        trials += [replicate(0, best, 0.80, target, seed=seed), replicate(0, other, 0.60, target + 0.05, seed=seed)]
    rows = {row.criterion: row for row in criteria.criterion_rows(trials, choices(trials, spec))}
    assert (rows["source_validation"].picked, rows["source_validation"].regret) == (best, 0.0)
    assert (rows["oracle"].picked, rows["oracle"].regret) == (other, pytest.approx(0.1))


def test_regret_is_told_against_trials_that_could_have_been_picked(make_spec):
    collapsed = {"target/largest_class_share": 0.99}
    slow = PROFILE | {"fps": 1.0}
    trials = [
        trial(0, 0.6, 0.40),
        trial(1, 0.5, 0.45),
        trial(2, 0.5, 0.80, metrics=collapsed),
        trial(3, 0.5, 0.90, profile=slow),
        trial(4, 0.5, 0.95, method="target_only"),
        trial(5, 0.5, 0.99, state=TrialState.PRUNED),
    ]
    rows = {
        row.criterion: row
        for row in criteria.criterion_rows(trials, choices(trials, make_spec(constraints=["fps >= 30"])))
    }
    assert rows["source_validation"].regret == pytest.approx(0.05)
    # No guard keeps the oracle from a trial that could not have been picked.
    assert (rows["oracle"].picked.number, rows["oracle"].regret) == (2, None)


def test_each_criterion_is_correlated_with_the_target_over_what_qualifies(make_spec):
    figures = [(0.1, 0.5, 3.0), (0.2, 0.2, 2.0), (0.3, 0.9, 4.0)]
    trials = [
        trial(number, source, target, metrics={"target/validator/im": score})
        for number, (source, target, score) in enumerate(figures)
    ]
    trials.append(trial(3, 0.9, 0.0, metrics={"target/validator/im": 9.0, "target/largest_class_share": 1.0}))
    rows = {row.criterion: row for row in criteria.criterion_rows(trials, choices(trials, make_spec()))}
    assert rows["source_validation"].correlation == analysis.RankCorrelation(pytest.approx(0.5), 3)
    assert rows["im"].correlation.value == pytest.approx(1.0)
    # Of three nothing is shown but how many it takes.
    assert (rows["source_validation"].told, rows["source_validation"].needed) == (None, 18)
    assert rows["entropy"].correlation is None
    assert rows["oracle"].correlation is None


def test_rank_correlation_is_that_of_ranks_over_candidates_only():
    trials = [trial(n, source, target) for n, (source, target) in enumerate([(0.1, 0.5), (0.2, 0.2), (0.3, 0.9)])]
    got = analysis.rank_correlation(
        [*trials, trial(3, 0.9, 0.0, state=TrialState.PRUNED)],
        metric="source/val/miou",
        against="oracle/target/miou",
    )
    # 1 - 6 sum(d^2) / (n (n^2 - 1)) with ranks (1, 2, 3) and (2, 1, 3)
    assert got == analysis.RankCorrelation(pytest.approx(1 - 6 * 2 / 24), 3)


@pytest.mark.parametrize(("value", "n"), [(0.5, 30), (-0.5, 30), (0.2, 400), (0.95, 12)])
def test_the_interval_of_a_rank_correlation_holds_it_as_often_as_it_says(value, n):
    generator = np.random.default_rng(0)
    slope = 2 * math.sin(math.pi * value / 6)  # Pearson's, of two normal figures with this rank correlation
    hits, times = 0, 400
    for _ in range(times):
        first, noise = generator.standard_normal((2, n))
        found = stats.spearmanr(first, slope * first + math.sqrt(1 - slope**2) * noise).statistic
        low, high = analysis.RankCorrelation(float(found), n).interval
        hits += low <= value <= high
    assert 0.91 <= hits / times <= 0.99


@pytest.mark.parametrize("value", [0.9, 0.5, -0.5, 0.2])
def test_as_many_trials_as_are_needed_tell_a_rank_correlation_from_none_and_one_less_does_not(value):
    needed = analysis.RankCorrelation(value, 3).needed
    assert analysis.RankCorrelation(value, needed).is_told_from_none
    assert needed == analysis.MIN_RANKED or not analysis.RankCorrelation(value, needed - 1).is_told_from_none


def test_few_trials_say_nothing_of_an_order_even_if_it_is_perfect():
    perfect, none = analysis.RankCorrelation(1.0, 4), analysis.RankCorrelation(0.0, 50)
    assert (perfect.is_enough, perfect.interval, perfect.is_told_from_none, perfect.needed) == (
        False,
        (-1, 1),
        False,
        10,
    )
    assert (none.is_told_from_none, none.needed) == (False, None)
    low, high = analysis.RankCorrelation(1.0, 10).interval
    assert 0.9 < low < high < 1


@pytest.mark.parametrize("pairs", [[(0.1, 0.2), (0.3, 0.4)], [(0.1, 0.2), (0.1, 0.3), (0.1, 0.4)]])
def test_rank_correlation_needs_three_trials_and_different_figures(pairs):
    trials = [trial(n, *pair) for n, pair in enumerate(pairs)]
    assert analysis.rank_correlation(trials, metric="source/val/miou", against="oracle/target/miou") is None


def test_the_closed_share_is_zero_for_source_only_and_one_for_the_upper_bound():
    floor, ceiling = trial(0, 0.6, 0.4, method="source_only"), trial(1, 0.5, 0.6, method="target_only")
    networks = {"floor": floor, "ceiling": ceiling, "adapted": trial(2, 0.6, 0.45), "hurt": trial(3, 0.6, 0.3)}
    rows = network_tables.gaps_table(networks, source_only=floor, upper_bound=ceiling).records()
    assert [row["closed"] for row in rows] == [pytest.approx(value) for value in (0.0, 1.0, 0.25, -0.5)]
    assert [row["gap"] for row in rows] == [pytest.approx(value) for value in (0.2, -0.1, 0.15, 0.3)]


def test_the_closed_share_is_unknown_without_an_upper_bound():
    (row,) = network_tables.gaps_table({"a": trial(0)}, source_only=trial(0), upper_bound=None).records()
    assert row["closed"] is None
    unlabelled = {"a": trial(0, metrics={"oracle/target/miou": None})}
    assert network_tables.gaps_table(unlabelled, source_only=None, upper_bound=None).rows == []


def test_classes_keep_the_order_of_the_data_set_and_mark_absent_classes():
    first = {
        "classes": ["Sky", "Car", "Road"],
        "splits": {"source/val": {"iou": {"Road": 0.9, "Sky": 0.8, "Car": None}}},
    }
    values = network_tables.class_values([(first, "source/val"), (None, "source/val"), (first, "oracle/target")])
    assert list(values.items()) == [
        ("Sky", (0.8, None, None)),
        ("Car", (None, None, None)),
        ("Road", (0.9, None, None)),
    ]
    assert network_tables.class_values([(None, "source/val")]) == {}


def test_an_architecture_is_listed_once_with_all_its_trials():
    heavy = PROFILE | {"macs": 9e9}
    rows = network_tables.architectures([trial(0, profile=heavy), trial(1), trial(2), trial(3, profile={})])
    assert [(row.trials, row.profile["macs"]) for row in rows] == [((1, 2), 3e9), ((0,), 9e9)]
    assert (rows[0].model, rows[0].size) == ("bisenet_v1 (resnet18)", (32, 64))


def test_a_trial_row_shows_what_is_known_and_none_for_the_rest():
    unmeasured = {"oracle/target/miou": None, "source/val/miou": math.nan}
    table = tables.trials_table([trial(4, metrics=unmeasured, profile={"macs": 3e9}, step=40)])
    (row,) = table.records("number", "method", "params", "steps", "source_miou", "target_miou", "fps", "macs")
    assert row == {
        **{"number": 4, "method": "adversarial × fcd", "params": "lr 0.05", "steps": 40},
        **{"source_miou": None, "target_miou": None, "fps": None, "macs": 3e9},
    }


def test_rows_say_why_a_trial_exists():
    rows = tables.trials_table(
        [trial(2, kind=TrialKind.REPLICATE, parent=0), trial(0), trial(1, kind=TrialKind.REFERENCE, name="bound")]
    ).records("kind")
    assert [row["kind"] for row in rows] == ["search", "reference: bound", "replicate of 0"]


def test_names_that_would_be_alike_keep_their_path():
    assert labels.short_params({"optimizer.lr": 0.1, "discriminator_optimizer.lr": 0.2, "loss.name": "focal"}) == (
        "optimizer.lr 0.1, discriminator_optimizer.lr 0.2, loss focal"
    )


def test_upper_bounds_are_known_by_the_supervision_of_their_method():
    assert analysis.uses_target_labels(trial(0, method="target_only"))
    assert not analysis.uses_target_labels(trial(0, method="adversarial"))
