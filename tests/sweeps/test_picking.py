"""`sweeps pick` on a small finished sweep: what it asks for, what it takes and refuses, what it says, and what a kill leaves."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import documented
import numpy as np
import pytest
import small_sweep
from PIL import Image

import sweeps
from segda.datasets.scenes import Scenes
from segda.errors import ConfigError
from sweeps.labelling import picking
from sweeps.labelling.folder import LabelFolder
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import Lease
from sweeps.ledger.records import LABEL_SPENT
from sweeps.metrics import is_oracle
from sweeps.store import Store

CLASSES = len(Scenes.classes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return small_sweep.finished_sweep(
        tmp_path_factory.mktemp("picking"),
        search={"optimizer.lr": [0.003, 0.01, 0.02, 0.03]},
        budget={"trials": 4, "concurrency": 1},
    )


@pytest.fixture
def copied(trained, tmp_path):
    shutil.copytree(trained.root, tmp_path / "runs")
    return Store.at(tmp_path / "runs")


@pytest.fixture
def masks(trained):
    """The data set's own labels of the target's training images."""
    return trained.root.parent / "scenes" / "Train" / "Rural" / "masks_png"


def silent(line):
    pass


def pick(store, **options):
    return sweeps.pick("demo", store=store.root, say=silent, **options)


def answer(found, names=None, label=None):
    """Put labels where they are expected: the upper half road, the lower half water."""
    for image in found.waiting:
        if names is None or image.name in names:
            made = np.full((image.height, image.width), 2, dtype=np.uint8)
            made[image.height // 2 :] = 3
            path = found.folder.answer(image.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(made if label is None else label).save(path)


def without(store, *names):
    """Return the content of the folder of labels, without some files."""
    folder = store.labels("demo")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in names
    }


def test_the_first_call_asks_for_five_random_images_and_reads_no_label(copied, monkeypatch):
    def opened(*_):
        raise AssertionError("a label was opened")

    monkeypatch.setattr(Scenes, "decode_label", opened)
    found = pick(copied, labels=7)
    assert [image.part for image in found.waiting] == ["random"] * 5
    assert found.pick is found.standing is None
    assert found.folder.path == copied.labels("demo")
    table = (found.folder.path / "images.csv").read_text().splitlines()
    assert len(table) == 6
    assert all(Path(image.path).is_file() for image in found.waiting)
    readme = (found.folder.path / "README.md").read_text()
    assert "| 2 | Road |" in readme
    assert "A draft is no label" in readme


def test_a_draft_is_indexed_of_the_images_size_and_counts_as_no_label(copied):
    found = pick(copied, labels=5)
    for image in found.waiting:
        with Image.open(found.folder.draft(image.name)) as draft:
            assert draft.mode == "P"
            assert draft.size == (image.width, image.height) == (64, 64)
            assert np.asarray(draft).max() < CLASSES
    assert pick(copied).counted == ()


def test_without_new_labels_it_says_the_same(copied):
    first = pick(copied, labels=8)
    before = without(copied)
    again = pick(copied)
    assert again.state == first.state
    assert without(copied) == before
    answer(first)
    said = pick(copied)
    before = without(copied)
    assert pick(copied).standing == said.standing
    assert without(copied) == before


def test_labels_that_came_choose_and_name_the_next_images(copied):
    found = pick(copied, labels=7)
    names = [image.name for image in found.waiting]
    answer(found, names[:2])
    part = pick(copied)
    assert part.counted == tuple(names[:2])
    assert [image.part for image in part.state.images] == ["random"] * 5 + ["disputed"] * 2
    answer(part)
    whole = pick(copied)
    assert len(whole.counted) == 7
    assert whole.waiting == ()
    figures = {item.trial: whole.standing.miou[place] for place, item in enumerate(whole.state.finalists)}
    assert whole.pick.trial == max(figures, key=figures.get)
    assert whole.standing.on_random[0].images == 5
    further = pick(copied, labels=8)
    assert [image.part for image in further.waiting] == ["disputed"]
    assert pick(copied, labels=50).available == 8
    assert len(pick(copied, labels=50).state.images) == 8


def test_figures_are_those_that_trainings_report_of_the_same_labels(copied, masks):
    found = pick(copied, labels=8, labels_from=masks)
    assert len(found.counted) == 8
    # An oracle over the very images, from the checkpoint itself.
    from segda.inference import score_split
    from segda.splits import open_split
    from segda.trained import make_ready

    with Ledger.to_read(copied.ledger) as ledger:
        trials = {trial.number: trial for trial in ledger.trials("demo")}
    for place, item in enumerate(found.state.finalists):
        network = make_ready(copied.trial(trials[item.trial]) / "checkpoint.pt", None, device="cpu", precision="auto")
        split = open_split(network.config, network.config.data.target, "train", with_labels=True)
        scored = score_split(
            network.segmenter,
            split,
            num_classes=CLASSES,
            unscored=network.config.data.unscored,
            device=network.device,
            dtype=network.dtype,
        )
        assert found.standing.miou[place] == pytest.approx(scored.miou, abs=1e-3)


def test_a_corrected_label_is_counted_anew_and_one_taken_away_stays(copied):
    found = pick(copied, labels=5)
    answer(found)
    before = pick(copied)
    name = found.state.images[0].name
    path = found.folder.answer(name)
    Image.fromarray(np.full((64, 64), 5, dtype=np.uint8)).save(path)
    after = pick(copied)
    assert after.standing != before.standing
    path.unlink()
    assert pick(copied).standing == after.standing


@pytest.mark.parametrize(
    ("label", "what"),
    [
        (np.zeros((10, 12), np.uint8), "is 12x10 pixels, expected the 64x64 of"),
        (np.full((64, 64), CLASSES, np.uint8), f"has the values {CLASSES}, expected train ids 0..{CLASSES - 1} or 255"),
        (np.full((64, 64), 255, np.uint8), "is void alone"),
        (np.zeros((64, 64, 3), np.uint8), "is in colors, expected one channel"),
    ],
)
def test_what_is_no_label_is_refused_in_one_line_and_the_others_are_kept(label, what, copied, call):
    found = pick(copied, labels=5)
    first, *_, last = found.waiting
    answer(found, [first.name])
    answer(found, [last.name], label)
    code, told, refused = call("pick", "demo", "--store", copied.root)
    assert (code, told) == (2, "")
    assert what in refused
    assert str(found.folder.answer(last.name)) in refused
    assert len(refused.strip().splitlines()) == 1
    assert LabelFolder(copied.labels("demo")).counted(first.name) is not None
    found.folder.answer(last.name).unlink()
    assert pick(copied).counted == (first.name,)


def test_a_damaged_file_and_one_of_no_image_are_refused(copied, call):
    found = pick(copied, labels=5)
    path = found.folder.answer(found.waiting[0].name)
    path.write_bytes(b"no picture")
    code, _, refused = call("pick", "demo", "--store", copied.root)
    assert (code, str(path) in refused) == (2, True)
    path.rename(path.with_name("typo.png"))
    code, _, refused = call("pick", "demo", "--store", copied.root)
    assert code == 2
    assert "typo.png is the label of no image that was asked for" in refused


def test_fewer_labels_than_were_asked_for_are_refused(copied, call):
    found = pick(copied, labels=8)
    answer(found)
    pick(copied)
    code, _, refused = call("pick", "demo", "--store", copied.root, "--labels", "6")
    assert code == 2
    assert "8 images have been asked for already; give --labels 8 or more" in refused
    assert call("pick", "demo", "--store", copied.root, "--labels", "4")[0] == 2


def test_labels_are_spent_in_ledger_and_report_and_the_search_sees_none(copied):
    found = pick(copied, labels=5)
    answer(found, [image.name for image in found.waiting[:3]])
    found = pick(copied)
    pick(copied)
    with Ledger.to_read(copied.ledger) as ledger:
        spent = [event.message for event in ledger.events("demo") if event.kind == LABEL_SPENT]
        trials = ledger.trials("demo")
    assert len(spent) == 3
    assert all(name in message for name, message in zip(found.counted, spent, strict=True))
    page = sweeps.report("demo", store=copied.root)
    sentence = f"Pick by labels: trial {found.pick.trial}, by the labels of 3 target training images"
    for text in (page.read_text(), page.with_suffix(".md").read_text()):
        assert sentence in text
        assert "no figure over these images is unbiased" in text
    told = sweeps.figures("demo", store=copied.root)
    assert told["by_labels"]["trial"] == found.pick.trial
    assert told["by_labels"]["images"] == list(found.counted)
    assert documented.differences(told) == []
    for trial in trials:
        assert not [name for name in trial.metrics if "label" in name and not is_oracle(name)]


def test_the_document_is_as_the_page_says_before_labels_and_after(copied, call):
    for counted in (0, 5):
        code, told, _ = call("pick", "demo", "--store", copied.root, "--labels", "6", "--json")
        document = json.loads(told)
        assert code == 0
        assert documented.differences(document) == []
        assert document["counted"] == counted
        assert document["reads_target_labels"] is (counted > 0)
        answer(pick(copied))


def test_the_program_shows_pick_loss_and_next_images(copied, call):
    code, told, _ = call("pick", "demo", "--store", copied.root, "--labels", "6")
    assert code == 0
    assert "5 images to label, of 6 in all" in told
    answer(pick(copied))
    code, told, _ = call("pick", "demo", "--store", copied.root)
    assert code == 0
    for words in (
        "★",
        "expected loss",
        "with 10 labels more",
        "these labels are spent",
        "1 image to label",
        "(disputed)",
    ):
        assert words in told
    answer(pick(copied))
    _, told, _ = call("pick", "demo", "--store", copied.root)
    assert "all 6 labels are there; `sweeps pick demo --labels N" in told


def test_labels_from_a_folder_of_ones_own(copied, tmp_path):
    found = pick(copied, labels=5)
    answer(found)
    shutil.move(found.folder.path / "answers", tmp_path / "mine")
    assert pick(copied).counted == ()
    assert len(pick(copied, labels_from=tmp_path / "mine").counted) == 5
    assert len(pick(copied).counted) == 5
    with pytest.raises(ConfigError, match="expects a folder of labels"):
        pick(copied, labels_from=tmp_path / "nothing")


def test_a_sweep_that_is_run_or_has_one_candidate_is_refused(copied, tmp_path):
    with (
        Ledger.open(copied.ledger, create=False) as ledger,
        Lease(ledger, "demo").held(lambda: 0.0),
        pytest.raises(ConfigError, match="is being run by"),
    ):
        pick(copied)
    lone = small_sweep.finished_sweep(
        tmp_path / "lone", search={"optimizer.lr": [0.01]}, budget={"trials": 1, "concurrency": 1}, base=_base(tmp_path)
    )
    with pytest.raises(ConfigError, match="labels choose among two candidates or more"):
        pick(lone)


def _base(folder):
    domain = {"dataset": "scenes", "root": str(folder / "lone" / "scenes")}
    return {
        "data": {
            "source": domain | {"domain": "urban"},
            "target": domain | {"domain": "rural"},
            "height": 64,
            "width": 64,
            "cache": str(folder / "cache"),
        },
        "model": {"name": "small_unet:SmallUNet", "width": 4},
        "method": {"name": "source_only"},
        "steps": 2,
        "report_every": 2,
        "batch_size": 2,
        "precision": "fp32",
        "device": "cpu",
    }


def test_cleaning_keeps_what_labels_compare_and_deletion_names_the_labels(copied):
    found = pick(copied, labels=5)
    answer(found)
    pick(copied)
    (cleaning,) = sweeps.clean("demo", store=copied.root, dry_run=True)
    assert set(cleaning.kept) >= {item.trial for item in found.state.finalists}
    notes = sweeps.delete("demo", store=copied.root, dry_run=True).notes
    assert any(str(found.folder.path / "answers") in note for note in notes)


def test_another_network_in_the_place_of_one_that_was_compared_is_refused(copied):
    found = pick(copied, labels=8)
    answer(found)
    one, other = (next(copied.root.glob(f"demo/trials/*-{item.key}")) for item in found.state.finalists[:2])
    shutil.copy(one / "checkpoint.pt", other / "checkpoint.pt")
    with pytest.raises(ConfigError, match="not the network that was compared"):
        pick(copied)


@pytest.mark.parametrize("broken", ["keep_state", "keep_counted", "keep_predictions", "keep_disagreement", "tell"])
def test_whatever_is_interrupted_is_done_again_to_the_same_end(broken, copied, tmp_path, monkeypatch):
    shutil.copytree(copied.root, tmp_path / "other")
    whole, hit = Store.at(tmp_path / "other"), copied
    answer(pick(whole, labels=8))
    expected = pick(whole)

    original, calls = getattr(LabelFolder, broken), []

    def interrupted(*args, **options):
        calls.append(broken)
        if len(calls) in (1, 4):
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(LabelFolder, broken, interrupted)

    def insisting(**options):
        for _ in range(3):
            with contextlib.suppress(KeyboardInterrupt):
                return pick(hit, **options)
        raise AssertionError("it never ends")

    answer(insisting(labels=8))
    found = insisting()
    assert found.standing == expected.standing
    assert found.state == expected.state
    monkeypatch.undo()
    assert pick(hit).standing == expected.standing


def test_a_kill_at_any_moment_loses_nothing(copied):
    words = [sys.executable, "-m", "sweeps", "pick", "demo", "--store", str(copied.root), "--labels", "8"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for seconds in (1.5, 2.5, 3.5):
        process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    answer(pick(copied, labels=8))
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(pick(copied).counted) == 5


def test_a_label_that_was_counted_before_a_kill_is_spent_once(copied, monkeypatch):
    answer(pick(copied, labels=5))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(picking, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            pick(copied)
    pick(copied)
    with Ledger.to_read(copied.ledger) as ledger:
        assert sum(event.kind == LABEL_SPENT for event in ledger.events("demo")) == 5
