"""The loop on real parts: procedural scenes on disk, the real network, the real checkpoint."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segda.checkpoint import load_segmenter, read_checkpoint
from segda.config import TrainConfig
from segda.datasets.scenes import generate_scenes
from segda.errors import DamagedCheckpointError, TrainingDivergedError, WeightsError
from segda.files import claiming
from segda.image_confusions import ORACLE_CONFUSIONS, SOURCE_CONFUSIONS, read_image_confusions
from segda.splits import data_fingerprint
from segda.training import train

SIZE = 64


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return generate_scenes(tmp_path_factory.mktemp("data") / "scenes", size=SIZE, train=6, val=3, seed=1)


def configure(root: Path, cache: Path, **changes: Any) -> TrainConfig:
    plain: dict[str, Any] = {
        "data": {
            "source": {"dataset": "scenes", "domain": "urban", "root": root},
            "target": {"dataset": "scenes", "domain": "rural", "root": root},
            "height": SIZE,
            "width": SIZE,
            "augmentation": "nadir_color",
            "cache": cache,
        },
        "model": {"pretrained": "none", "width": 0.25},
        "method": {"name": "source_only"},
        "steps": 4,
        "report_every": 2,
        "batch_size": 2,
        "precision": "fp32",
        "optimizer": {"lr": 0.01},
    }
    for path, value in changes.items():
        *parents, leaf = path.split("__")
        place = plain
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return TrainConfig.model_validate(plain)


class Reports(list):
    def __call__(self, step, metrics, checkpoint):
        assert checkpoint.is_file()
        self.append((step, dict(metrics)))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "checkpoint.pt")["method"]


@pytest.fixture(scope="module")
def finished(scenes, tmp_path_factory) -> tuple[Path, Reports, TrainConfig]:
    folder = tmp_path_factory.mktemp("run")
    reports = Reports()
    config = configure(scenes, folder / "cache", method={"name": "adversarial", "discriminator": "dwd"})
    train(config, reports, folder=folder / "run")
    return folder / "run", reports, config


def test_reports_come_every_report_every_steps_with_stable_names(finished):
    _, reports, _ = finished
    assert [step for step, _ in reports] == [2, 4]
    assert {"train/loss_seg", "train/loss_adv", "train/loss_discriminator", "source/val/miou"} <= set(reports[0][1])
    assert not any(name.startswith("oracle/") for name in reports[0][1])
    assert "oracle/target/miou" in reports[1][1]
    of_target = {"target/largest_class_share", "target/missing_classes", "target/validator/soft_iou"}
    assert all(of_target <= set(metrics) for _, metrics in reports)
    last = [0.01 * (1 - step / 4) ** 0.9 for step in (1, 3)]  # of the last update before each report
    assert [metrics["train/lr"] for _, metrics in reports] == pytest.approx(last)


def test_a_finished_run_leaves_a_complete_folder(finished):
    folder, reports, config = finished
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "checkpoint.pt",
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "result.json",
        "examples_source.png",
        "examples_target.png",
        "target_prediction.npz",
        "source_confusions.npz",
        "oracle_confusions.npz",
    }
    result = json.loads((folder / "result.json").read_text())
    assert result["splits"]["oracle/target"]["miou"] == reports[-1][1]["oracle/target/miou"]
    assert result["data_fingerprint"] == data_fingerprint(config)
    assert result["uses_target_labels"] is False
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]


@pytest.mark.parametrize(("split", "name"), [("source/val", SOURCE_CONFUSIONS), ("oracle/target", ORACLE_CONFUSIONS)])
def test_confusions_of_images_add_up_to_that_of_the_split(finished, split, name):
    folder, _, _ = finished
    expected = json.loads((folder / "result.json").read_text())["splits"][split]
    kept = read_image_confusions(folder / name)
    assert len(kept.counts) == expected["num_images"]
    assert kept.counts.sum(axis=0).tolist() == expected["confusion"]
    assert (folder / name).stat().st_size < 20_000


def test_the_confusion_matrix_of_the_result_gives_its_miou(finished):
    folder, _, _ = finished
    split = json.loads((folder / "result.json").read_text())["splits"]["source/val"]
    matrix = np.array(split["confusion"], dtype=np.float64)
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    iou = matrix.diagonal()[union > 0] / union[union > 0]
    assert split["miou"] == pytest.approx(iou.mean())
    assert split["num_images"] == 3


def test_a_finished_run_asked_again_reports_only_what_was_not_acknowledged(finished):
    folder, reports, config = finished
    again = Reports()
    (folder / ".checkpoint.pt.dead.partial").write_bytes(b"of a save that was killed")
    result = train(config, again, folder=folder, acknowledged=2)
    assert again == reports[1:]
    assert result.metrics == reports[-1][1]
    assert list(folder.glob(".*.partial")) == []


@pytest.mark.parametrize("content", ["", "[]", "{", '{"python'])
def test_a_damaged_record_of_the_machine_is_written_anew_and_loses_no_run(finished, caplog, content):
    folder, reports, config = finished
    (folder / "environment.json").write_text(content)
    assert train(config, Reports(), folder=folder, acknowledged=4).metrics == reports[-1][1]
    assert "python" in json.loads((folder / "environment.json").read_text())
    assert caplog.text.count("environment.json is damaged") == 1


def test_a_run_on_the_processor_leaves_the_machine_s_gpus_alone(scenes, tmp_path, monkeypatch):
    def touched(*_):
        pytest.fail("a GPU was touched")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("get_rng_state", "get_rng_state_all", "set_rng_state", "set_rng_state_all"):
        monkeypatch.setattr(torch.cuda, name, touched)
    config = configure(scenes, tmp_path / "cache", device="cpu", steps=2)
    # Page-locked memory cannot be had on a machine without GPUs.
    train(config, Reports(), folder=tmp_path / "run")
    assert read_checkpoint(tmp_path / "run" / "checkpoint.pt")["random"]["cuda"] == []


def test_the_trained_segmenter_is_read_back(finished):
    folder, _, config = finished
    segmenter, read = load_segmenter(folder / "checkpoint.pt")
    assert read == config
    assert not segmenter.training
    assert torch.equal(segmenter.state_dict()["classifier.weight"], weights(folder)["segmenter.classifier.weight"])


@pytest.mark.usefixtures("narrow_discriminator")
@pytest.mark.parametrize("method", [{"name": "source_only"}, {"name": "adversarial", "levels": "multi"}])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(scenes, tmp_path, method):
    config = configure(scenes, tmp_path / "cache", method=method, report_every=1)
    whole = Reports()
    train(config, whole, folder=tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop_at_two(step, metrics, checkpoint):
        if step == 2:
            raise Stop

    with pytest.raises(Stop):
        train(config, stop_at_two, folder=tmp_path / "parts")
    rest = Reports()
    train(config, rest, folder=tmp_path / "parts", acknowledged=2)

    assert [step for step, _ in rest] == [3, 4]
    resumed = weights(tmp_path / "parts")
    for name, value in weights(tmp_path / "whole").items():
        assert torch.equal(value, resumed[name]), name
    # Times differ from run to run; everything else must not.
    for (_, one), (_, other) in zip(whole[2:], rest, strict=True):
        for name in one.keys() - {"train/seconds_per_step", "train/images_per_second"}:
            assert one[name] == other[name], name


def test_a_run_that_ended_right_after_its_checkpoint_writes_down_its_report_when_it_goes_on(
    scenes, tmp_path, monkeypatch
):
    config = configure(scenes, tmp_path / "cache", report_every=1)

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("segda.training._write_reports", killed)
        with pytest.raises(Killed):
            train(config, Reports(), folder=tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()

    class Stop(Exception):
        pass

    def stop(step, metrics, checkpoint):
        raise Stop

    with pytest.raises(Stop):  # as a scheduler does when it hears of the report
        train(config, stop, folder=tmp_path / "run")
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 1


@pytest.mark.parametrize("left", [None, "", "[]"])
def test_a_run_whose_result_was_lost_after_its_end_writes_it_again(scenes, tmp_path, left):
    config = configure(scenes, tmp_path / "cache", steps=1)
    train(config, Reports(), folder=tmp_path / "run")
    result = tmp_path / "run" / "result.json"
    whole = json.loads(result.read_text())
    result.unlink() if left is None else result.write_text(left)
    train(config, Reports(), folder=tmp_path / "run", acknowledged=1)
    assert json.loads(result.read_text()) == whole


def test_target_training_labels_filled_with_garbage_change_nothing(scenes, tmp_path):
    """The wall: adaptation never opens them, so even unreadable files do no harm."""
    copy = generate_scenes(tmp_path / "scenes", size=SIZE, train=6, val=3, seed=1)
    for label in (copy / "Train" / "Rural" / "masks_png").iterdir():
        label.write_bytes(b"garbage")
    method = {"name": "adversarial", "discriminator": "dwd"}
    for root, folder in ((scenes, "clean"), (copy, "poisoned")):
        config = configure(root, tmp_path / f"cache-{folder}", method=method, oracle="never")
        train(config, Reports(), folder=tmp_path / folder)
    poisoned = weights(tmp_path / "poisoned")
    for name, value in weights(tmp_path / "clean").items():
        assert torch.equal(value, poisoned[name]), name


def test_the_upper_bound_says_that_it_used_target_labels(scenes, tmp_path):
    train(configure(scenes, tmp_path / "cache", method={"name": "target_only"}), Reports(), folder=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["uses_target_labels"] is True


def test_a_diverging_run_ends_with_a_named_error(scenes, tmp_path):
    config = configure(scenes, tmp_path / "cache", optimizer__lr=1e30, steps=40, report_every=40)
    with pytest.raises(TrainingDivergedError, match=r"NaN or infinite at step \d+ of 40"):
        train(config, Reports(), folder=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_folder_with_a_run_of_another_configuration_is_left_alone(finished, scenes):
    folder, _, config = finished
    before = (folder / "checkpoint.pt").read_bytes()
    other = configure(scenes, config.data.cache, optimizer__lr=0.02)
    with pytest.raises(WeightsError, match="another configuration"):
        train(other, Reports(), folder=folder)
    assert (folder / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:5000],
        lambda content: b"garbage",
        lambda content: bytes(100) + content,
    ],
)
def test_a_damaged_checkpoint_is_one_clear_error_and_stays(finished, tmp_path, damage):
    folder, _, config = finished
    broken = tmp_path / "checkpoint.pt"
    content = damage((folder / "checkpoint.pt").read_bytes())
    broken.write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match=r"checkpoint\.pt cannot be read as a checkpoint"):
        read_checkpoint(broken)
    with pytest.raises(DamagedCheckpointError, match="delete it to train again"):
        train(config, Reports(), folder=tmp_path)
    assert broken.read_bytes() == content


def test_a_disk_that_fails_is_no_damage_to_the_checkpoint(tmp_path, monkeypatch):
    torch.save({}, tmp_path / "checkpoint.pt")

    def load(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(WeightsError, match="see to the disk") as caught:
        read_checkpoint(tmp_path / "checkpoint.pt")
    assert not isinstance(caught.value, DamagedCheckpointError)


@pytest.mark.parametrize("taken_at", [4, 6])
def test_a_run_whose_folder_was_taken_over_replaces_nothing_in_it(scenes, tmp_path, taken_at):
    """At step 4 the checkpoint would be next, at step 6 the result."""
    folder = tmp_path / "run"
    left = {}

    class Taken(Exception):
        pass

    def on_step(step, loss):
        if step == taken_at:
            left.update({path.name: path.read_bytes() for path in folder.iterdir()})

    def check_claim():
        if left:
            raise Taken

    config = configure(scenes, tmp_path / "cache", steps=6)
    with pytest.raises(Taken), claiming(folder, check_claim):
        train(config, Reports(), folder=folder, on_step=on_step)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == left


def test_what_a_report_speaks_of_is_on_the_disk_before_it_is_told(scenes, tmp_path, monkeypatch):
    """A file and its name: without either, a loss of power would leave less than was reported."""
    flushed, renamed = [], []
    fsync, replace = os.fsync, Path.replace

    def note_flush(descriptor):
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    def note_rename(self, target):
        renamed.append((self, Path(target), list(flushed)))
        flushed.clear()
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_flush)
    monkeypatch.setattr(Path, "replace", note_rename)
    folder = tmp_path / "run"

    def report(step, metrics, checkpoint):
        assert flushed == [folder]
        durable = {target.name for partial, target, before in renamed if partial in before}
        assert durable >= {"checkpoint.pt", "metrics.jsonl"}

    train(configure(scenes, tmp_path / "cache", steps=2), report, folder=folder)


def test_example_pictures_show_one_row_per_image(finished):
    folder, _, _ = finished
    with Image.open(folder / "examples_target.png") as picture:
        assert picture.width >= 3 * SIZE
        assert picture.height >= 3 * SIZE


def test_fingerprint_ignores_places_but_not_what_is_computed(scenes, tmp_path):
    config = configure(scenes, tmp_path / "cache")
    moved = configure(tmp_path / "elsewhere", tmp_path / "other-cache", data__workers=3, device="cpu")
    assert config.fingerprint() == moved.fingerprint()
    assert config.fingerprint() != configure(scenes, tmp_path / "cache", seed=1).fingerprint()
    assert config.fingerprint() != configure(scenes, tmp_path / "cache", optimizer__lr=0.011).fingerprint()
