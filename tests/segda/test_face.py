"""`import segda`: what a notebook finds there."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segda
from segda.errors import ConfigError
from segda.progress import NotebookBar, Output


def test_a_name_that_is_not_exported_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'segda' has no attribute 'trane'"):
        segda.trane  # noqa: B018


def test_single_values_and_folders_are_put_over_a_file(miniatures, tmp_path):
    file = miniatures.config(tmp_path / "tiny.yaml")
    config = segda.load_config(
        str(file), changes={"optimizer.lr": 0.5, "model": {"name": "bisenet_v1"}}, data_roots={"loveda": "here"}
    )
    assert (config.optimizer.lr, config.steps) == (0.5, 2)
    assert config.data.source.root == config.data.target.root == Path("here")


def test_a_configuration_of_plain_data_is_that_of_the_file_and_errors_name_the_key(miniatures, tmp_path):
    read = segda.load_config(miniatures.config(tmp_path / "tiny.yaml"))
    plain = json.loads(read.model_dump_json())
    assert segda.load_config(plain) == read
    with pytest.raises(ConfigError, match=r"^configuration with method\.lambda_adv=1: method\.lambda_adv: unknown key"):
        segda.load_config(plain, changes={"method.lambda_adv": 1})
    assert "lambda_adv" not in plain["method"]


def test_data_of_another_data_set_are_refused(miniatures, tmp_path):
    with pytest.raises(ConfigError, match=r"'lovda' \(did you mean 'loveda'\?\)"):
        segda.load_config(miniatures.config(tmp_path / "tiny.yaml"), data_roots={"lovda": tmp_path})


def test_training_scoring_and_predicting_in_three_calls_give_what_the_run_recorded(
    miniatures, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("SEGDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    root = miniatures.loveda(tmp_path / "loveda")
    config = segda.load_config(miniatures.config(tmp_path / "tiny.yaml"), data_roots={"loveda": root})

    result = segda.train(config)
    assert result.folder == Path("runs") / config.fingerprint()
    assert capsys.readouterr() == ("", "")  # nobody watches
    recorded = json.loads((result.folder / "result.json").read_text())["splits"]

    scored = segda.evaluate(result.checkpoint, precision="fp32")
    assert list(scored) == ["source/val", "target/val"]
    assert scored["source/val"].miou == recorded["source/val"]["miou"]
    assert scored["target/val"].miou == recorded["oracle/target"]["miou"]
    frame = scored.frame()
    assert frame.loc["mIoU", "target/val"] == scored["target/val"].miou
    assert list(frame.index[:7]) == list(segda.DATASETS["loveda"].classes)

    segmenter, own = segda.load_segmenter(result.checkpoint)
    again = segda.evaluate(segmenter, own, splits=["target/val"], precision="fp32")
    assert (again["target/val"].confusion == scored["target/val"].confusion).all()

    image = root / "Val" / "Rural" / "images_png" / "0.png"
    prediction = segda.predict(segmenter, np.asarray(Image.open(image)), config=own, precision="fp32")
    segda.predict_files(result.checkpoint, image, tmp_path / "out.png", precision="fp32")
    with Image.open(tmp_path / "out.png") as written:
        assert np.array_equal(np.asarray(written), prediction)
    assert np.array_equal(segda.predict(str(result.checkpoint), str(image), precision="fp32"), prediction)


def test_a_network_without_its_configuration_is_refused(trained):
    segmenter, config = segda.load_segmenter(trained.checkpoint)
    with pytest.raises(ConfigError, match="give `config` too"):
        segda.evaluate(segmenter)
    other = config.model_copy(
        update={
            "data": config.data.model_copy(
                update={
                    side: getattr(config.data, side).model_copy(update={"dataset": "camvid", "domain": domain})
                    for side, domain in (("source", "day"), ("target", "dusk"))
                }
            )
        }
    )
    with pytest.raises(ConfigError, match=r"knows the classes .*Agriculture, the configuration has"):
        segda.evaluate(trained.checkpoint, other)


class _Page(Output):
    """Keeps what a notebook would be shown."""

    def __init__(self):
        super().__init__()
        self.pages = []

    def show(self, page, *, is_last=False):
        self.pages.append((page, is_last))


def test_a_notebook_shows_a_bar_that_moves_and_always_its_end():
    page = _Page()
    bar = NotebookBar("decoding", total=None, output=page)
    bar(1, 4)
    bar(2, text="a < b")
    bar(4)
    assert page.pages == [
        ("<progress></progress> decoding", False),
        ('<progress value="1" max="4"></progress> 1/4 decoding', False),
        ('<progress value="2" max="4"></progress> 2/4 a &lt; b', False),
        ('<progress value="4" max="4"></progress> 4/4 a &lt; b', True),
    ]
