"""What a person can get wrong: one line that says what to do, exit code 2, and nothing half-written."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import rasterio
import torch
import yaml
from PIL import Image

from segda.cli import cli
from segda.cli_errors import run_cli
from segda.datasets import DATASETS

# conftest.py writes these trees; a case damages one of them.
IMAGE = Path("Train/Urban/images_png/1.png")
LABEL = Path("Train/Urban/masks_png/1.png")


class Place(NamedTuple):
    """Where a case happens."""

    base: Path
    loveda: Path
    camvid: Path
    config: Path
    camvid_config: Path
    folder: Path
    cache: Path

    def train(self, *words: str) -> list[str]:
        return [
            *("train", str(self.config), "--folder", str(self.folder)),
            *("--data-root", f"loveda={self.loveda}", *words),
        ]

    def train_camvid(self, *words: str) -> list[str]:
        return [
            *("train", str(self.camvid_config), "--folder", str(self.folder)),
            *("--data-root", f"camvid={self.camvid}", *words),
        ]

    def edit(self, text: str, replacement: str) -> None:
        before = self.config.read_text()
        assert text in before
        self.config.write_text(before.replace(text, replacement))


@pytest.fixture
def place(tmp_path, monkeypatch, miniatures) -> Place:
    for dataset in DATASETS:
        monkeypatch.delenv(f"SEGDA_{dataset.upper()}_ROOT", raising=False)
    cache = tmp_path / "cache"
    monkeypatch.setenv("SEGDA_CACHE", str(cache))
    return Place(
        tmp_path,
        miniatures.loveda(tmp_path / "loveda"),
        miniatures.camvid(tmp_path / "camvid"),
        miniatures.config(tmp_path / "tiny.yaml"),
        miniatures.config(tmp_path / "camvid.yaml", dataset="camvid", source="day", target="dusk"),
        tmp_path / "run",
        cache,
    )


def missing_root(place):
    return [
        "train",
        str(place.config),
        "--folder",
        str(place.folder),
        "--data-root",
        f"loveda={place.base / 'nowhere'}",
    ]


def root_not_given(place):
    return ["train", str(place.config), "--folder", str(place.folder)]


def root_of_another_data_set(place):
    return place.train("--data-root", f"lovda={place.loveda}")


def unknown_domain(place):
    place.edit("domain: rural", "domain: rurall")
    return place.train()


def unknown_data_set(place):
    place.edit("dataset: loveda", "dataset: lovda")
    return place.train()


def missing_split(place):
    (place.loveda / "Val").rename(place.base / "elsewhere")
    return place.train()


def image_without_label(place):
    (place.loveda / LABEL).unlink()
    return place.train()


def camvid_image_without_label(place):
    (place.camvid / "trainannot" / "0016E5_000001.png").unlink()
    return place.train_camvid()


def image_behind_a_dangling_link(place):
    (place.loveda / IMAGE).unlink()
    (place.loveda / IMAGE).symlink_to("/nowhere/annex/1.png")
    return place.train()


def label_without_image(place):
    (place.loveda / IMAGE).unlink()
    return place.train()


def truncated_image(place):
    content = (place.loveda / IMAGE).read_bytes()
    (place.loveda / IMAGE).write_bytes(content[: len(content) // 2])
    return place.train()


def truncated_label(place):
    content = (place.loveda / LABEL).read_bytes()
    (place.loveda / LABEL).write_bytes(content[: len(content) // 2])
    return place.train()


def empty_image(place):
    (place.loveda / IMAGE).write_bytes(b"")
    return place.train()


def label_id_out_of_range(place):
    Image.fromarray(np.full((64, 64), 8, np.uint8)).save(place.loveda / LABEL)
    return place.train()


def camvid_label_id_out_of_range(place):
    Image.fromarray(np.full((64, 64), 12, np.uint8)).save(place.camvid / "trainannot" / "0006R0_000001.png")
    return place.train_camvid()


def sizes_that_differ(place):
    Image.fromarray(np.ones((64, 63), np.uint8)).save(place.loveda / LABEL)
    return place.train()


def void_everywhere(place):
    for label in (place.loveda / LABEL).parent.glob("*.png"):
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(label)
    return place.train()


def class_that_is_not_there(place):
    place.edit("name: source_only", "name: pixda\n  frequent_class: 99")
    return place.train("data.few_shot.images=1")


def class_of_a_host_that_is_not_there(place):
    place.edit("name: source_only", "name: mic\n  host: {name: pixda, frequent_class: 7}")
    return place.train("data.few_shot.images=1")


def gray_image(place):
    Image.fromarray(np.ones((64, 64), np.uint8)).save(place.loveda / IMAGE)
    return place.train()


def unknown_key(place):
    place.edit("batch_size: 2", "batchsize: 2")
    return place.train()


def unknown_nested_key(place):
    place.edit("  pretrained: none", "  pretrained: none\n  backbne: resnet18")
    return place.train()


def negative_learning_rate(place):
    place.config.write_text(place.config.read_text() + "optimizer: {lr: -1}\n")
    return place.train()


def words_for_a_number(place):
    place.edit("steps: 2", "steps: many")
    return place.train()


def truth_for_a_number(place):
    place.edit("batch_size: 2", "batch_size: true")
    return place.train()


def truth_for_a_setting(place):
    place.edit("name: source_only", "name: adversarial\n  lambda_adv: true")
    return place.train()


def unknown_method(place):
    place.edit("name: source_only", "name: source_onyl")
    return place.train()


def setting_of_another_method(place):
    place.edit("name: source_only", "name: source_only\n  lambda_adv: 0.1")
    return place.train()


def not_yaml(place):
    place.config.write_text("data: {source: [\n")
    return place.train()


def missing_configuration(place):
    place.config.unlink()
    return place.train()


def unknown_gpu(place):
    place.edit("device: cpu", "device: cuda:7")
    return place.train()


def unknown_device(place):
    return place.train("device=gpu")


def assignment_to_an_unknown_key(place):
    return place.train("optimizer.learning_rate=0.1")


def assignment_to_a_key_far_from_any(place):
    return place.train("space.lamda_adv=0.1")


def assignment_to_an_end_of_several_keys(place):
    return place.train("lr=0.1")


def assignment_below_a_value(place):
    return place.train("steps.max=3")


def assignment_without_a_value(place):
    return place.train("steps")


def misspelled_option(place):
    return place.train("--foldr", "3")


BAD_RUNS: list[tuple[Callable[[Place], list[str]], str]] = [
    (missing_root, r"nowhere is not a folder.*SEGDA_LOVEDA_ROOT"),
    (root_not_given, r"`?root`?.*SEGDA_LOVEDA_ROOT"),
    (root_of_another_data_set, r"'lovda' \(did you mean 'loveda'\?\)"),
    (unknown_domain, r"tiny\.yaml:\d+: data\.target.*'rurall' \(did you mean 'rural'\?\)"),
    (unknown_data_set, r"tiny\.yaml:\d+: .*'lovda' \(did you mean 'loveda'\?\)"),
    (missing_split, r"Val/Urban/images_png is missing"),
    (image_without_label, r"Train/Urban/images_png/1\.png has no label: expected .*masks_png/1\.png"),
    (camvid_image_without_label, r"0016E5_000001"),
    (image_behind_a_dangling_link, r"Train/Urban/images_png/1\.png is a link to what is missing"),
    (label_without_image, r"Train/Urban/masks_png/1\.png has no image"),
    (truncated_image, r"Train/Urban/images_png/1\.png"),
    (truncated_label, r"Train/Urban/masks_png/1\.png"),
    (empty_image, r"Train/Urban/images_png/1\.png"),
    (label_id_out_of_range, r"Train/Urban/masks_png/1\.png: unknown id 8; allowed are 0\.\.7"),
    (camvid_label_id_out_of_range, r"0006R0_000001\.png: unknown id 12; allowed are 0\.\.11"),
    (sizes_that_differ, r"64x64 pixels but its label .* 63x64"),
    (void_everywhere, r"split train of urban in loveda: the labels of all \d+ images are void, expected classes"),
    (class_that_is_not_there, r"tiny\.yaml.*: method\.frequent_class: must be a train id from 0 to 6, got 99"),
    (class_of_a_host_that_is_not_there, r"method\.host\.frequent_class: must be a train id from 0 to 6, got 7"),
    (gray_image, r"Train/Urban/images_png/1\.png.*RGB"),
    (unknown_key, r"tiny\.yaml:\d+: batchsize: unknown key \(did you mean 'batch_size'\?\)"),
    (unknown_nested_key, r"tiny\.yaml:\d+: model\.backbne: unknown key \(did you mean 'backbone'\?\)"),
    (negative_learning_rate, r"tiny\.yaml:\d+: optimizer\.lr: must be greater than 0, got -1"),
    (words_for_a_number, r"tiny\.yaml:\d+: steps: .*'many'"),
    (truth_for_a_number, r"tiny\.yaml:\d+: batch_size: must be a whole number, got true"),
    (truth_for_a_setting, r"tiny\.yaml:\d+: method\.lambda_adv: must be a number, got true"),
    (unknown_method, r"'source_onyl' \(did you mean 'source_only'\?\)"),
    (setting_of_another_method, r"tiny\.yaml:\d+: method\.lambda_adv: unknown key"),
    (not_yaml, r"tiny\.yaml:\d+: not valid YAML"),
    (missing_configuration, r"tiny\.yaml: there is no such file"),
    (unknown_gpu, r"cuda:7 .*this machine has \d+ CUDA device"),
    (unknown_device, r"auto, cpu, cuda or cuda:<n>, got 'gpu'"),
    (
        assignment_to_an_unknown_key,
        r"tiny\.yaml with optimizer\.learning_rate=0\.1: optimizer\.learning_rate: unknown key",
    ),
    (
        assignment_to_a_key_far_from_any,
        r"unknown key 'space\.lamda_adv'; did you mean method\.lambda_adv or method\.host\.lambda_adv\?",
    ),
    (
        assignment_to_an_end_of_several_keys,
        r"key 'lr' may be optimizer\.lr or discriminator_optimizer\.lr; write the one",
    ),
    (assignment_below_a_value, r"steps is a value, not a group"),
    (assignment_without_a_value, r"KEY=VALUE.*got 'steps'"),
    (misspelled_option, r"--foldr.*--folder"),
]


def _files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def _assert_no_leftovers(place: Place) -> None:
    """The run folder has no checkpoint and no temporary file; every entry of the cache is complete."""
    written = {path.name for path in place.folder.rglob("*")} if place.folder.exists() else set()
    assert "checkpoint.pt" not in written
    assert not [name for name in written if name.startswith(".")]
    entries = [path for path in place.cache.glob("*/*") if path.is_dir()]
    assert all((entry / "entry.json").is_file() for entry in entries), entries


@pytest.mark.parametrize(("spoil", "message"), BAD_RUNS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mistake_is_told_in_one_line_and_leaves_nothing_behind(segda, place, spoil, message):
    words = spoil(place)
    code, _, errors = segda(*words)
    assert (code, errors.count("\n")) == (2, 1), errors
    assert errors.startswith("Error: ")
    assert re.search(message, errors), errors
    _assert_no_leftovers(place)


def _write_raster(path: Path, bands: np.ndarray) -> Path:
    height, width = bands.shape[1:]
    transform = rasterio.Affine(2, 0, 0, 0, -2, 0)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(bands), height=height, width=width, dtype=bands.dtype, transform=transform
    ) as writer:
        writer.write(bands)
    return path


def _damaged_checkpoint(trained, base):
    damaged = base / "checkpoint.pt"
    damaged.write_bytes(trained.checkpoint.read_bytes()[:100_000])
    return ["predict", damaged, trained.root / IMAGE, base / "out.png"]


def _turned_bit_in_a_weight(trained, base):
    content = bytearray(trained.checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    (base / "checkpoint.pt").write_bytes(content)
    return ["evaluate", base / "checkpoint.pt", "--data-root", f"loveda={trained.root}"]


def _weights_alone(trained, base):
    torch.save(torch.load(trained.checkpoint, weights_only=True)["method"], base / "checkpoint.pt")
    return ["evaluate", base / "checkpoint.pt", "--data-root", f"loveda={trained.root}"]


def _whole_network(trained, base):
    torch.save(torch.nn.Linear(2, 2), base / "checkpoint.pt")
    return ["predict", base / "checkpoint.pt", trained.root / IMAGE, base / "out.png"]


def _missing_checkpoint(trained, base):
    return ["predict", base / "nowhere.pt", trained.root / IMAGE, base / "out.png"]


def _picture_for_a_checkpoint(trained, base):
    return ["predict", trained.root / IMAGE, trained.root / IMAGE, base / "out.png"]


def _missing_input(trained, base):
    return ["predict", trained.checkpoint, base / "nowhere.png", base / "out.png"]


def _truncated_input(trained, base):
    (base / "half.png").write_bytes((trained.root / IMAGE).read_bytes()[:100])
    return ["predict", trained.checkpoint, base / "half.png", base / "out.png"]


def _output_of_another_kind(trained, base):
    return ["predict", trained.checkpoint, trained.root / IMAGE, base / "out.jpg"]


def _one_band(trained, base):
    source = _write_raster(base / "gray.tif", np.ones((1, 40, 40), np.uint8))
    return ["predict", trained.checkpoint, source, base / "out.tif"]


def _sixteen_bits(trained, base):
    source = _write_raster(base / "deep.tif", np.ones((3, 40, 40), np.uint16))
    return ["predict", trained.checkpoint, source, base / "out.tif"]


def _window_that_does_not_fit(trained, base):
    source = _write_raster(base / "a.tif", np.ones((3, 40, 40), np.uint8))
    return ["predict", trained.checkpoint, source, base / "out.tif", "--window", 64, "--overlap", 64]


def _overlay_of_a_raster(trained, base):
    source = _write_raster(base / "a.tif", np.ones((3, 40, 40), np.uint8))
    return ["predict", trained.checkpoint, source, base / "out.tif", "--overlay"]


def _bands_of_a_raster(trained, base, *words):
    source = _write_raster(base / "a.tif", np.ones((3, 40, 40), np.uint8))
    return ["predict", trained.checkpoint, source, base / "out.tif", *words]


def _bands_that_are_names(trained, base):
    return _bands_of_a_raster(trained, base, "--bands", "red,green,blue")


def _bands_that_are_two(trained, base):
    return _bands_of_a_raster(trained, base, "--bands", "1,2")


def _bands_that_are_not_there(trained, base):
    return _bands_of_a_raster(trained, base, "--bands", "3,4,5")


def _stretch_from_high_to_low(trained, base):
    return _bands_of_a_raster(trained, base, "--stretch", "3000", "0")


def _stretch_of_a_picture(trained, base):
    return [
        "predict",
        trained.checkpoint,
        trained.root / IMAGE,
        base / "out.png",
        "--stretch",
        "0",
        "9",
        "--confidence",
    ]


def _folder_for_one_raster(trained, base):
    return [*_bands_of_a_raster(trained, base)[:3], base / "out"]


def _impossible_size(trained, base):
    return ["predict", trained.checkpoint, trained.root / IMAGE, base / "out.png", "--size", "64"]


def _empty_folder(trained, base):
    (base / "empty").mkdir()
    return ["predict", trained.checkpoint, base / "empty", base / "out"]


def _half_precision_on_cpu(trained, base):
    words = ["--device", "cpu", "--precision", "fp16"]
    return ["predict", trained.checkpoint, trained.root / IMAGE, base / "out.png", *words]


def _unknown_split(trained, base):
    return ["evaluate", trained.checkpoint, "--split", "source/vall"]


def _unknown_role(trained, base):
    return ["evaluate", trained.checkpoint, "--split", "urban/val"]


def _split_without_labels(trained, base):
    return ["evaluate", trained.checkpoint, "--split", "target/test"]


def _profile_of_nothing(trained, base):
    return ["profile", "--model", "bisenet_v1"]


def _profile_of_an_unknown_network(trained, base):
    return ["profile", "--model", "bisenet", "--classes", 7, "--height", 64, "--width", 64]


def _verifying_an_unknown_data_set(trained, base):
    return ["datasets", "verify", "camvd", "--root", base]


def _verifying_an_empty_folder(trained, base):
    return ["datasets", "verify", "loveda", "--root", base]


def _scenes_over_other_files(trained, base):
    (base / "mine").mkdir()
    (base / "mine" / "thesis.txt").write_text("irreplaceable")
    return ["datasets", "make", "scenes", base / "mine", "--size", 32, "--train", 1, "--val", 1]


BAD_USES = [
    (_damaged_checkpoint, r"checkpoint\.pt cannot be read as a checkpoint"),
    (_turned_bit_in_a_weight, r"checkpoint\.pt cannot be read as a checkpoint \(Bad CRC-32"),
    (_weights_alone, r"checkpoint\.pt is not a checkpoint of segda"),
    (_whole_network, r"checkpoint\.pt cannot .*it holds other things than tensors and plain data"),
    (_missing_checkpoint, r"no checkpoint at .*nowhere\.pt"),
    (_picture_for_a_checkpoint, r"1\.png (cannot be read as|is not) a checkpoint"),
    (_missing_input, r"nowhere\.png' does not exist"),
    (_truncated_input, r"half\.png"),
    (_output_of_another_kind, r"must end in \.png, got .*out\.jpg"),
    (_one_band, r"1 band"),
    (_sixteen_bits, r"deep\.tif: expected bands of uint8, got uint16; .*--stretch"),
    (_bands_that_are_names, r"--bands expects numbers such as 4,3,2, got 'red,green,blue'"),
    (_bands_that_are_two, r"bands are three numbers from 1, or one for all three, got 1, 2"),
    (_bands_that_are_not_there, r"a\.tif: expected a band 5, got 3 band"),
    (_stretch_from_high_to_low, r"a stretch is two values .* got 3000 0"),
    (_stretch_of_a_picture, r"stretch and confidence is for TIFF files, and there is none; leave it out"),
    (_folder_for_one_raster, r"must end in \.tif or \.tiff, got .*out"),
    (_window_that_does_not_fit, r"overlap must be .*smaller than the window of 64"),
    (_overlay_of_a_raster, r"overlay is for images"),
    (_impossible_size, r"--size expects HEIGHTxWIDTH"),
    (_empty_folder, r"empty holds no image"),
    (_half_precision_on_cpu, r"fp16 needs a CUDA device"),
    (_unknown_split, r"no split 'vall' \(did you mean 'val'\?\)"),
    (_unknown_role, r"source/<split> or target/<split>.*'urban/val'"),
    (_split_without_labels, r"Test/Rural"),
    (_profile_of_nothing, r"CONFIG\.yaml or all of --classes, --height and --width"),
    (
        _profile_of_an_unknown_network,
        r"with model=\{name: bisenet\}: model\.name: unknown network 'bisenet' \(did you mean 'bisenet_v2'\?\)",
    ),
    (_verifying_an_unknown_data_set, r"'camvd' \(did you mean 'camvid'\?\)"),
    (_verifying_an_empty_folder, r"loveda|images_png"),
    (_scenes_over_other_files, r"mine"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD_USES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mistake_with_a_trained_network_is_told_in_one_line(segda, trained, tmp_path, monkeypatch, spoil, message):
    monkeypatch.setenv("SEGDA_CACHE", str(tmp_path / "cache"))
    words = spoil(trained, tmp_path)
    before = _files(tmp_path)
    code, output, errors = segda(*words)
    assert (code, errors.count("\n"), output) == (2, 1, ""), errors
    assert errors.startswith("Error: ")
    assert re.search(message, errors), errors
    assert {path for path in _files(tmp_path) if path.parts[0] != "cache"} == before


def test_a_prediction_that_exists_is_not_replaced_unasked(segda, trained, tmp_path):
    (tmp_path / "out.png").write_bytes(b"mine")
    words = ["predict", trained.checkpoint, trained.root / IMAGE, tmp_path / "out.png"]
    code, _, errors = segda(*words)
    assert (code, errors.count("\n")) == (2, 1)
    assert "overwrite" in errors
    assert (tmp_path / "out.png").read_bytes() == b"mine"
    assert segda(*words, "--overwrite").code == 0


def test_a_run_folder_of_another_configuration_is_not_touched(segda, trained):
    before = {path: path.stat().st_mtime_ns for path in trained.folder.iterdir()}
    words = ["--folder", trained.folder, "--data-root", f"loveda={trained.root}", "seed=5"]
    code, _, errors = segda("train", trained.config, *words)
    assert (code, errors.count("\n")) == (2, 1)
    assert "another configuration" in errors
    assert {path: path.stat().st_mtime_ns for path in trained.folder.iterdir()} == before


def hear_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_with_130_keeps_the_last_checkpoint_whole(segda, place):
    plain = yaml.safe_load(place.config.read_text())
    place.config.write_text(yaml.safe_dump(plain | {"steps": 100_000, "report_every": 1}))
    environment = os.environ | {"SEGDA_CACHE": str(place.cache), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "segda", *place.train()]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    # Tests in the background of a shell ignore Ctrl-C, and what they start inherits that.
    with subprocess.Popen(words, **pipes, env=environment, preexec_fn=hear_ctrl_c) as process:
        try:
            deadline = time.monotonic() + 120
            while not (place.folder / "metrics.jsonl").exists() and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, errors.count("\n"), output) == (130, 1, ""), errors
    assert "same command" in errors
    assert not [path for path in place.folder.iterdir() if path.name.startswith(".")]
    assert segda("evaluate", place.folder / "checkpoint.pt", "--split", "source/val").code == 0


def test_ctrl_c_while_images_are_decoded_leaves_no_entry_in_the_cache(place, monkeypatch, capsys):
    dataset = DATASETS["loveda"]
    read = type(dataset).read

    def interrupted(self, sample, *, with_label):
        if sample.name == "1":
            raise KeyboardInterrupt
        return read(self, sample, with_label=with_label)

    monkeypatch.setattr(type(dataset), "read", interrupted)
    with pytest.raises(SystemExit) as ended:
        run_cli(cli, place.train())
    assert ended.value.code == 130
    assert capsys.readouterr().err.count("\n") == 1
    _assert_no_leftovers(place)
