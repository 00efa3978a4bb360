"""From SYNTHIA to Cityscapes: 19 classes are learned, 16 are scored, and the means of the papers stand side by side."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from .datasets.conftest import build_cityscapes, build_synthia

SIXTEEN = {*range(9), 10, 11, 12, 13, 15, 17, 18}
THIRTEEN = SIXTEEN - {3, 4, 5}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segda) -> Path:
    monkeypatch.setenv("SEGDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SEGDA_SYNTHIA_ROOT", str(build_synthia(tmp_path / "synthia")))
    monkeypatch.setenv("SEGDA_CITYSCAPES_ROOT", str(build_cityscapes(tmp_path / "cityscapes")))
    domains = {"source": {"dataset": "synthia", "domain": "all"}, "target": {"dataset": "cityscapes", "domain": "all"}}
    plain = {"data": {**domains, "height": 64, "width": 64}, "model": {"name": "fast_scnn"}}
    plain |= {"method": {"name": "source_only"}, "steps": 1, "report_every": 1, "batch_size": 2, "precision": "fp32"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(plain))
    code, _, errors = segda("train", tmp_path / "run.yaml", "--folder", tmp_path / "run")
    assert code == 0, errors
    return tmp_path / "run"


def test_results_say_what_is_scored_and_give_all_means(run: Path, segda) -> None:
    result = json.loads((run / "result.json").read_text())
    assert result["unscored"] == ["terrain", "truck", "train"]
    for scored in result["splits"].values():
        confusion = np.array(scored["confusion"], dtype=np.float64)
        union = confusion.sum(axis=0) + confusion.sum(axis=1) - confusion.diagonal()
        iou = np.divide(confusion.diagonal(), union, out=np.full(19, np.nan), where=union > 0)
        assert scored["miou"] == scored["miou_16"] == pytest.approx(np.nanmean(iou[sorted(SIXTEEN)]))
        assert scored["miou_13"] == pytest.approx(np.nanmean(iou[sorted(THIRTEEN)]))
    code, output, _ = segda("evaluate", run / "checkpoint.pt")
    assert code == 0
    for text in ("terrain (unscored)", "mIoU 16", "mIoU 13"):
        assert text in output
