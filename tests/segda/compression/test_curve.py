"""Curves of a trained network: each point by hand, an end in the middle, and what cannot be asked for."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from segda.checkpoint import load_segmenter
from segda.compression import curve as module
from segda.compression.curve import LEVELS, prune_curve
from segda.compression.weights import segmenter_weights
from segda.errors import ConfigError
from segda.evaluation import evaluate
from segda.inference import score_split


@pytest.fixture(autouse=True)
def _cache(trained, monkeypatch):
    monkeypatch.setenv("SEGDA_CACHE", str(trained.cache))


def curve_of(small, folder, **options):
    asked = {"levels": (0.0, 0.5, 0.8), "scopes": ("global", "module", "coarse.4-5"), **options}
    return prune_curve(small, folder, device="cpu", **asked)  # its configuration knows where the data are


@pytest.fixture(scope="module")
def found(trained, small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("curve")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGDA_CACHE", str(trained.cache))
        return folder, curve_of(small, folder)


def test_the_levels_are_the_reports():
    assert list(LEVELS) == pytest.approx([0.05 * number for number in range(18)])


def test_every_scope_has_every_level_with_old_and_with_new_statistics(found):
    _, curve = found
    for scope in ("global", "module", "coarse.4-5"):
        for recalibrated in (False, True):
            points = curve.of(scope, recalibrated=recalibrated)
            assert [point.level for point in points] == [0.0, 0.5, 0.8]
            assert points[0].scope == "dense"
            assert points[0].sparsity == 0
    total = curve.scopes["global"]
    assert total == curve.scopes["module"]
    alone = curve.of("coarse.4-5", recalibrated=False)[-1]
    assert alone.sparsity == pytest.approx(0.8 * curve.scopes["coarse.4-5"] / total, abs=1e-5)
    assert curve.of("global", recalibrated=True)[-1].sparsity == pytest.approx(0.8, abs=1e-6)


def test_points_are_the_scores_of_a_network_that_was_pruned_by_hand(found, small):
    _, curve = found
    segmenter, config = load_segmenter(small)
    weights = segmenter_weights(segmenter)
    together = torch.cat([weight.detach().abs().flatten() for weight in weights.values()])
    threshold = together.kthvalue(round(0.8 * len(together))).values
    with torch.no_grad():
        for weight in weights.values():
            weight[weight.abs() <= threshold] = 0
    scores = evaluate(segmenter, config, device="cpu")
    point = curve.of("global", recalibrated=False)[-1]
    assert point.source_val_miou == scores["source/val"].miou
    assert point.oracle_target_miou == scores["target/val"].miou
    dense = evaluate(small, device="cpu")
    assert curve.of("global", recalibrated=False)[0].source_val_miou == dense["source/val"].miou


def test_new_statistics_are_told_apart_and_change_the_scores(found):
    _, curve = found
    old, new = (curve.of("module", recalibrated=each) for each in (False, True))
    assert [point.source_val_pixel_accuracy for point in old] != [point.source_val_pixel_accuracy for point in new]


def test_table_and_pictures_are_written(found):
    folder, curve = found
    with (folder / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["source_val_miou"]) for row in rows] == [point.source_val_miou for point in curve.points]
    for name in ("global.png", "modules.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300
            assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 20


def test_an_interrupted_call_goes_on_and_ends_the_same(found, small, tmp_path, monkeypatch):
    _, curve = found
    scored = 0

    def dying(*arguments, **options):
        nonlocal scored
        scored += 1
        if scored == 8:
            raise KeyboardInterrupt
        return score_split(*arguments, **options)

    monkeypatch.setattr(module, "score_split", dying)
    with pytest.raises(KeyboardInterrupt):
        curve_of(small, tmp_path)
    kept = json.loads((tmp_path / "curve.json").read_text())["points"]
    assert 0 < len(kept) < len(curve.points)
    scored = 100
    resumed = curve_of(small, tmp_path)
    assert resumed == curve
    assert (scored - 100) == 2 * (len(curve.points) - len(kept))  # nothing was scored twice


def test_a_folder_of_another_curve_and_a_damaged_one_are_refused(found, small, tmp_path):
    folder, _ = found
    with pytest.raises(ConfigError, match=r"was made with other levels; delete it to begin anew"):
        curve_of(small, folder, levels=(0.3,))
    (tmp_path / "curve.json").write_text("{")
    with pytest.raises(ConfigError, match="is damaged; delete it"):
        curve_of(small, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": (1.0,)}, r"shares of the weights in \[0, 1\)"),
        ({"scopes": ("coarse.99",)}, "no module with weights that may become zero; give one or more of: global"),
    ],
)
def test_what_there_is_not_is_refused(small, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        curve_of(small, tmp_path, **options)


def test_the_command_prints_the_table_and_marks_the_oracle(segda, small, tmp_path):
    words = ["prune-curve", small, tmp_path]
    end = segda(*words, "--level", 0.5, "--scope", "global", "--recalibrate", "none")
    assert end.code == 0
    assert "for reading, not for choosing" in end.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.csv", "curve.json", "global.png"]
    again = segda(*words, "--level", 2, "--scope", "global")
    assert (again.code, again.errors.count("\n")) == (2, 1)


def test_target_labels_are_not_read_where_nobody_wants_the_oracle(small, tmp_path):
    curve = curve_of(small, tmp_path, levels=(0.5,), scopes=("global",), recalibration="target", oracle=False)
    assert all(point.oracle_target_miou is None for point in curve.points)
    assert list(curve.job["splits"]) == ["source/val"]
