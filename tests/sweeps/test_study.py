import dataclasses
import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
from records import trial

from segda.target_prediction import TARGET_PREDICTION, TargetPrediction, write_target_prediction
from sweeps.metrics import ENSV, TARGET_MIOU
from sweeps.selection.analysis import weighted_rank_correlation
from sweeps.selection.study import CriterionScore, SweepScores, leave_one_task_out, mean_regrets, sweep_scores


def by_the_formula(scores, quality):
    """Dense ranks over their maximum, weights max(a, b)^2, and Pearson's correlation with these weights."""
    finite = [value for value in scores if math.isfinite(value)]
    scores = [value if math.isfinite(value) else min(finite) for value in scores]
    first, second = (
        [(sorted(set(values)).index(value) + 1) / len(set(values)) for value in values] for values in (scores, quality)
    )
    weights = [max(pair) ** 2 for pair in zip(first, second, strict=True)]

    def mean(values):
        return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)

    def covariance(one, other):
        return mean([(a - mean(one)) * (b - mean(other)) for a, b in zip(one, other, strict=True)])

    return covariance(first, second) / math.sqrt(covariance(first, first) * covariance(second, second))


@pytest.mark.parametrize("seed", range(5))
def test_the_weighted_correlation_is_the_formula(seed):
    rng = np.random.default_rng(seed)
    scores, quality = rng.normal(size=12).round(1).tolist(), rng.normal(size=12).round(1).tolist()
    assert weighted_rank_correlation(scores, quality) == pytest.approx(by_the_formula(scores, quality))
    scores[3], scores[5] = math.nan, math.inf
    assert weighted_rank_correlation(scores, quality) == pytest.approx(by_the_formula(scores, quality))


def test_a_poor_network_that_is_ranked_high_counts_more_than_the_order_of_poor_ones():
    quality = [1, 2, 3, 4, 5, 6]
    assert weighted_rank_correlation(quality, quality) == pytest.approx(1)
    assert weighted_rank_correlation([-value for value in quality], quality) < -0.5
    poor_swapped = weighted_rank_correlation([2, 1, 3, 4, 5, 6], quality)
    good_swapped = weighted_rank_correlation([1, 2, 3, 4, 6, 5], quality)
    poor_on_top = weighted_rank_correlation([7, 2, 3, 4, 5, 6], quality)
    assert poor_on_top < good_swapped < poor_swapped


def test_too_few_networks_or_equal_ones_have_no_correlation():
    assert weighted_rank_correlation([1, 2], [1, 2]) is None
    assert weighted_rank_correlation([1, 1, 1], [1, 2, 3]) is None
    assert weighted_rank_correlation([1, 2, 3], [1, 1, 1]) is None
    assert weighted_rank_correlation([math.nan] * 3, [1, 2, 3]) is None


def figures(im, ensv):
    return {"target/validator/im": im, ENSV: ensv, "target/pool/largest_class_share": 0.4}


def test_a_sweep_is_scored_within_methods_and_across_and_collapsed_candidates_do_not_count(make_spec):
    trials = [
        trial(number, 0.9 - target, target, method=method, metrics=figures(im, target))
        for number, (method, target, im) in enumerate(
            [
                ("source_only", 0.30, 1.0),
                ("source_only", 0.31, 1.1),
                ("source_only", 0.32, 1.2),
                # Surer, and worse.
                ("adversarial", 0.20, 2.0),
                ("adversarial", 0.21, 2.1),
                ("adversarial", 0.22, 2.2),
            ]
        )
    ]
    trials.append(trial(6, 0.95, 0.9, metrics=figures(9.0, 0.1) | {"target/largest_class_share": 1.0}))
    # A source floor would reject half of them; here it is about the criteria.
    trials = [
        dataclasses.replace(one, metrics=one.metrics | {"source/val/miou": 0.6 - one.number / 1000}) for one in trials
    ]
    found = sweep_scores(trials, make_spec())
    scores = {score.criterion: score for score in found.scores}
    assert (found.candidates, found.best, found.task) == (6, 0.32, "camvid/day -> camvid/dusk")
    assert "oracle" not in scores
    assert scores["im"].within == pytest.approx(1)
    assert scores["im"].across < 0
    assert scores["im"].regret == pytest.approx(0.10)
    assert scores["ensv"].across == pytest.approx(1)
    assert scores["ensv"].regret == 0
    assert scores["source_validation"].regret == pytest.approx(0.02)
    assert (scores["bnm"].regret, scores["bnm"].across) == (None, None)  # its trials do not have it


def test_a_refused_criterion_has_the_regret_of_what_chose_instead(make_spec):
    trials = [trial(number, 0.6 - number / 100, 0.4 + number / 100) for number in range(3)]
    score = next(score for score in sweep_scores(trials, make_spec()).scores if score.criterion == "ensv")
    assert (score.used, score.regret, score.across) == ("source_validation", pytest.approx(0.02), None)
    assert sweep_scores([trial(0, metrics={TARGET_MIOU: None})], make_spec()) is None


def scored(sweep, task, **regrets):
    scores = tuple(CriterionScore(name, name, None, None, regret) for name, regret in regrets.items())
    return SweepScores(sweep, task, 9, 0.5, scores)


def test_the_default_is_chosen_by_the_other_tasks():
    sweeps = [
        scored("one", "a", ensv=0.00, im=0.05),
        scored("two", "a", ensv=0.02, im=0.05),
        scored("three", "b", ensv=0.03, im=0.01),
        scored("four", "c", ensv=0.01, im=0.06),
    ]
    # Tasks count alike, however many sweeps they have.
    assert mean_regrets(sweeps) == pytest.approx({"ensv": 0.05 / 3, "im": 0.12 / 3})
    held = {item.task: (item.default, item.regret) for item in leave_one_task_out(sweeps)}
    assert held == {"a": ("ensv", 0.01), "b": ("ensv", 0.03), "c": ("ensv", 0.01)}
    assert leave_one_task_out(sweeps[:2]) == []


def test_a_criterion_that_is_missing_somewhere_is_no_default():
    sweeps = [
        scored("one", "a", ensv=0.02, dev=None),
        scored("two", "b", ensv=0.02, dev=0.0),
        scored("three", "c", ensv=0.0),
    ]
    assert set(mean_regrets(sweeps)) == {"ensv"}
    assert {item.default for item in leave_one_task_out(sweeps)} == {"ensv"}


def test_the_benchmark_reads_any_list_of_stores(tmp_path, make_spec, capsys):
    from sweeps.ledger.database import Ledger
    from sweeps.store import Store

    path = Path(__file__).parents[2] / "benchmarks" / "criteria.py"
    module = importlib.util.spec_from_file_location("criteria", path)
    criteria = importlib.util.module_from_spec(module)
    module.loader.exec_module(criteria)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 500)
    for name, domain in (("first", "dusk"), ("second", "day")):
        store, spec = Store.at(tmp_path / name), make_spec(name=name)
        with Ledger.open(store.ledger) as ledger:
            ledger.create_sweep(name, spec=spec.canonical())
            for number in range(4):
                one = trial(number, 0.6, 0.40 + number / 100, sweep=name)
                one.config["data"]["target"]["domain"] = domain
                ledger.add_trial(one)
                classes = np.where(rng.random(500) < 0.2 * (number + 1), labels, rng.integers(0, 7, 500))
                store.trial(one).mkdir(parents=True)
                prediction = TargetPrediction(classes.astype(np.uint8), 7, "same")
                write_target_prediction(store.trial(one) / TARGET_PREDICTION, prediction)
    criteria.main([str(tmp_path / "first"), f"{tmp_path / 'second'}:second", "--json", str(tmp_path / "found.json")])
    text = capsys.readouterr().out
    assert "first: camvid/day -> camvid/dusk, 4 candidates, best 43.0 %" in text
    found = json.loads((tmp_path / "found.json").read_text())
    assert [sweep["sweep"] for sweep in found["sweeps"]] == ["first", "second"]
    ensv = next(score for score in found["sweeps"][0]["scores"] if score["criterion"] == "ensv")
    assert (ensv["used"], ensv["regret"]) == ("ensv", 0)
    assert ensv["across"] > 0.9
    assert {item["task"] for item in found["left_out"]} == {"camvid/day -> camvid/dusk", "camvid/day -> camvid/day"}
    # What was written once is read again, alone or beside a store.
    again = str(tmp_path / "again.json")
    criteria.main([str(tmp_path / "found.json"), "--json", again])
    assert json.loads(Path(again).read_text()) == found
    with pytest.raises(SystemExit, match="error: "):
        criteria.main([str(tmp_path / "none")])
    Path(again).write_text('{"sweeps": [{"sweep": "first"}]}')
    with pytest.raises(SystemExit, match=r"error: .*again\.json is no file of this program"):
        criteria.main([again])
