"""The pick and its rivals on the same images: which images and networks, what is drawn, what is kept, and why there are none."""

import base64
import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
import small_sweep
from PIL import Image

from segda.datasets import DATASETS
from segda.datasets.scenes import Scenes
from segda.pictures import color_table, colorize
from segda.prediction import predict
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import Lease
from sweeps.reports import plots, rival_pictures
from sweeps.reports.rival_pictures import FILE, MOST_IMAGES, rivals_of
from sweeps.reports.sweep_report import write_report
from sweeps.reports.view import load_view
from sweeps.store import Store


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return small_sweep.finished_sweep(
        tmp_path_factory.mktemp("rivals"),
        search={"optimizer.lr": [0.003, 0.01, 0.02, 0.03, 0.05]},
        budget={"trials": 5, "concurrency": 1},
    )


@pytest.fixture
def copied(trained, tmp_path):
    shutil.copytree(trained.root, tmp_path / "runs")
    return Store.at(tmp_path / "runs")


@pytest.fixture
def view(copied):
    with Ledger.to_read(copied.ledger) as opened:
        yield load_view(opened, copied, "demo")


def pixels(tile):
    content = base64.b64decode(tile.uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def image_file(trained, name, split):
    (found,) = [
        sample.image
        for sample in DATASETS["scenes"].samples(trained.root.parent / "scenes", domain="rural", split=split)
        if sample.name == name
    ]
    return found


def drawn(view, store, **options):
    return rival_pictures.rival_pictures(view, store, **{"draws": True} | options)


def test_the_pick_and_the_next_three_are_on_the_worst_images_without_any_label(view, copied, trained, monkeypatch):
    def refuse(*_):
        raise AssertionError("a label was opened")

    monkeypatch.setattr(Scenes, "decode_label", refuse)
    found = drawn(view, copied)
    assert found.notes == ()
    assert [trial.number for trial in rivals_of(view)] == list(view.selection.ranked[:4])
    assert rivals_of(view)[0] is view.picked
    assert len(found.images) == MOST_IMAGES
    amounts = [image.disagreement for image in found.images]
    assert amounts == sorted(amounts, reverse=True)
    assert amounts[0] > 0
    for image in found.images:
        captions = [tile.caption for tile in image.tiles]
        assert captions == ["image", f"disagreement, mean {100 * image.disagreement:.1f} %"]
        numbers = [pair[0].caption.removeprefix("picked: ").split(",")[0] for pair in image.networks]
        assert numbers == [f"trial {trial.number}" for trial in rivals_of(view)]
    assert found.split == "8 evenly spaced images of scenes / rural train"
    image = found.images[0]
    for pair, trial in zip(image.networks, rivals_of(view), strict=True):
        path = image_file(trained, image.name, "train")
        own = predict(copied.trial(trial) / "checkpoint.pt", path, size="train", precision="fp32")
        assert np.array_equal(pixels(pair[0]), colorize(own, Scenes.palette))
        gray = pixels(pair[1])[..., 0].mean() / 255
        assert f"mean {100 * image.confidences[numbers.index(f'trial {trial.number}')]:.1f} %" in pair[1].caption
        assert gray == pytest.approx(image.confidences[numbers.index(f"trial {trial.number}")], abs=0.02)


def test_labels_are_shown_by_a_sweep_that_chooses_by_them_and_of_that_split_alone(view, copied, trained):
    oracle = replace(view, spec=view.spec.model_copy(update={"selection": "oracle"}))
    found = drawn(oracle, copied)
    assert found.notes == ()
    assert found.split == "2 evenly spaced images of scenes / rural val"
    assert [image.tiles[1].caption for image in found.images] == ["label (oracle)"] * 2
    sample = next(
        sample
        for sample in DATASETS["scenes"].samples(trained.root.parent / "scenes", domain="rural", split="val")
        if sample.name == found.images[0].name
    )
    label = Scenes().decode_label(sample.label)
    assert np.array_equal(pixels(found.images[0].tiles[1]), color_table(Scenes.palette)[label])


def test_pictures_are_made_once_for_the_same_networks(view, copied, monkeypatch):
    first = drawn(view, copied)

    def refuse(*_):
        raise RuntimeError("networks were run")

    monkeypatch.setattr(rival_pictures, "seen_by", refuse)
    assert drawn(view, copied) == first
    assert drawn(view, copied, draws=False) == first
    (copied.sweep("demo") / FILE).write_text("{")
    assert drawn(view, copied).notes == ("No pictures: networks were run.",)


def test_another_checkpoint_is_drawn_anew(view, copied):
    first = drawn(view, copied)
    picked, rival = rivals_of(view)[:2]
    shutil.copy(copied.trial(rival) / "checkpoint.pt", copied.trial(picked) / "checkpoint.pt")
    second = drawn(view, copied)
    both = [(image.networks[0][0].uri, image.networks[1][0].uri) for image in second.images]
    assert [own == other for own, other in both] == [True] * len(both)
    assert second.images != first.images


def test_why_there_are_none_is_said(view, copied, monkeypatch):
    assert (
        drawn(view, copied, draws=False).notes[0].startswith("No pictures: the sweep ended early; `sweeps report demo")
    )
    assert "when the sweep has ended" in drawn(replace(view, is_driven=True), copied).notes[0]
    assert drawn(replace(view, trials=[]), copied).notes == ("No pictures: there is no pick yet.",)
    with monkeypatch.context() as patch:
        patch.setattr(DATASETS["scenes"].__class__, "samples", lambda *_, **__: (_ for _ in ()).throw(OSError("gone")))
        assert drawn(view, copied).notes == ("No pictures: gone.",)
    picked, *others = rivals_of(view)
    (copied.trial(others[1]) / "checkpoint.pt").unlink()
    found = drawn(view, copied)
    assert found.notes == (f"Left out: trials {others[1].number}, whose checkpoints are not in {copied.root}.",)
    assert [len(image.networks) for image in found.images] == [3] * MOST_IMAGES
    (copied.trial(picked) / "checkpoint.pt").unlink()
    assert f"the checkpoint of the picked trial {picked.number} is not in" in drawn(view, copied).notes[0]


def test_both_files_have_the_section_and_a_driven_sweep_says_when_it_comes(copied, monkeypatch):
    monkeypatch.setattr(plots, "plotly_script", lambda: "/* plotly.js v0 */")
    with Ledger.open(copied.ledger) as ledger:
        with Lease(ledger, "demo").held(lambda: 0.0):
            page = write_report(ledger, copied, "demo").html.read_text(encoding="utf-8")
            assert "they are made when the sweep has ended" in page
        paths = write_report(ledger, copied, "demo")
    page, text = paths.html.read_text(encoding="utf-8"), paths.markdown.read_text(encoding="utf-8")
    assert page.count('<section class="rivals">') == MOST_IMAGES
    assert "No label of the target was opened." in page
    assert "label (oracle)" not in page
    assert "| image | disagreement % | picked: trial" in text
    assert (copied.sweep("demo") / FILE).stat().st_size < 1_000_000
