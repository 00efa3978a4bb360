import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import rasterio
from PIL import Image

from segda.cli import cli
from segda.cli.output import data_root_option, parse_size
from segda.cli_errors import run_cli
from segda.datasets import DATASETS
from segda.errors import ConfigError, SegdaError
from segda.transforms.recipes import RECIPES

LOVEDA = DATASETS["loveda"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")


def _commands(command, path=()):
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from _commands(child, (*path, name))


def _row(output, name):
    """Return the numbers of a table's row."""
    line = next(line for line in output.splitlines() if re.match(rf"[│|]\s*{re.escape(name)}\s*[│|]", line))
    return [cell.strip() for cell in re.split(r"[│|]", line)[2:-1]]


@pytest.mark.parametrize("path", [path for path, _ in _commands(cli)], ids=" ".join)
def test_every_help_teaches_with_an_example(segda, path):
    code, output, _ = segda(*path, "--help")
    assert code == 0
    lines = [line.strip() for line in output.splitlines()]
    examples = [line for line in lines if re.match(r"(\w+=\S+ )?segda [a-z]", line)]
    assert any(line.startswith(" ".join(("segda", *path))) for line in examples)


def test_every_example_of_the_help_names_options_that_exist():
    for path, command in _commands(cli):
        for line in (command.help or "").splitlines():
            words = line.split()
            if words[:1] != ["segda"]:
                continue
            here = cli
            rest = words[1:]
            while isinstance(here, click.Group):
                here = here.commands[rest.pop(0)]
            known = {option for parameter in here.params for option in parameter.opts}
            assert {word for word in rest if word.startswith("--")} <= known, (path, line)


def test_help_needs_neither_torch_nor_albumentations():
    check = "import sys, segda.cli; sys.exit(bool({'torch', 'albumentations', 'rasterio', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_training_writes_the_run_folder_and_prints_every_split(segda, trained):
    code, output, errors = segda(
        "train", trained.config, "--folder", trained.folder, "--data-root", f"loveda={trained.root}"
    )
    result = json.loads((trained.folder / "result.json").read_text())
    assert (code, errors) == (0, "")
    assert result["step"] == 2
    for split, name in (("source/val", "source/val"), ("oracle/target", "oracle/target (*)")):
        assert _row(output, name)[0] == f"{100 * result['splits'][split]['miou']:.2f}"
    assert "target labels" in output


def test_a_discriminator_without_a_signal_is_told_of_at_the_end(segda, trained, tmp_path):
    words = ["method.name=adversarial", "method.discriminator=light_light"]
    words += ["discriminator_optimizer.lr=1e-12", "--folder", tmp_path / "run"]
    code, output, _ = segda("train", trained.config, *words, "--data-root", f"loveda={trained.root}")
    assert code == 0
    assert "The discriminator was at chance at its only report and never better" in output


def test_a_finished_run_is_not_trained_again(segda, trained):
    before = trained.checkpoint.stat().st_mtime_ns
    assert segda("train", trained.config, "--folder", trained.folder, "--data-root", f"loveda={trained.root}").code == 0
    assert trained.checkpoint.stat().st_mtime_ns == before


def test_assignments_change_the_configuration_that_is_trained(segda, trained, tmp_path):
    folder = tmp_path / "run"
    words = ["optimizer.lr=1e-3", "steps=7", "warmup_steps=0", "steps=1", "--folder", folder]
    assert segda("train", trained.config, *words, "--data-root", f"loveda={trained.root}").code == 0
    config = json.loads((folder / "config.json").read_text())
    assert (config["optimizer"]["lr"], config["steps"]) == (0.001, 1)


def test_the_default_run_folder_tells_configurations_apart(segda, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in ([], ["seed=1"]):
        assert segda("train", trained.config, *words, "steps=1", "--data-root", f"loveda={trained.root}").code == 0
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == 2
    assert all(re.fullmatch(r"tiny-[0-9a-f]{16}", folder.name) for folder in folders)


def test_evaluation_repeats_the_scores_of_training(segda, trained):
    code, output, _ = segda("evaluate", trained.checkpoint, "--precision", "fp32")
    result = json.loads((trained.folder / "result.json").read_text())["splits"]
    assert code == 0
    for name in LOVEDA.classes:
        expected = [result[split]["iou"][name] for split in ("source/val", "oracle/target")]
        assert _row(output, name) == ["-" if iou is None else f"{100 * iou:.2f}" for iou in expected]
    assert _row(output, "mIoU") == [f"{100 * result[split]['miou']:.2f}" for split in ("source/val", "oracle/target")]
    assert "target/val (*)" in output


def test_evaluation_of_a_chosen_split_scores_that_one_only(segda, trained):
    code, output, _ = segda("evaluate", trained.checkpoint, "--split", "source/train")
    assert code == 0
    assert _row(output, "images") == ["3"]
    assert "target labels" not in output


def test_an_image_is_predicted_at_its_own_size_with_the_palette_of_the_data_set(segda, trained, tmp_path):
    source = trained.root / "Val" / "Rural" / "images_png" / "0.png"
    destination = tmp_path / "classes.png"
    assert segda("predict", trained.checkpoint, source, destination, "--overlay").code == 0
    with Image.open(destination) as written:
        assert written.size == (64, 64)
        assert np.asarray(written).max() < len(LOVEDA.classes)
        assert tuple(written.getpalette()[:6]) == (*LOVEDA.palette[0], *LOVEDA.palette[1])
    assert (tmp_path / "classes_overlay.png").exists()


def test_a_folder_is_predicted_and_a_second_run_skips_it(segda, trained, tmp_path):
    source = trained.root / "Val" / "Rural" / "images_png"
    assert "2 predicted, 0 were there" in segda("predict", trained.checkpoint, source, tmp_path / "out").output
    assert "0 predicted, 2 were there" in segda("predict", trained.checkpoint, source, tmp_path / "out").output
    again = segda("predict", trained.checkpoint, source, tmp_path / "out", "--overwrite", "--size", "32x48")
    assert "2 predicted, 0 were there" in again.output


def test_what_a_folder_has_beside_its_images_is_told(segda, trained, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(trained.root / "Val" / "Rural" / "images_png", source)
    (source / "[b].png").symlink_to("/nowhere")
    told = segda("predict", trained.checkpoint, source, tmp_path / "out").output
    assert "2 predicted, 0 were there, 1 left alone ([b].png: is a link to what is missing)\n" in told


def test_a_geotiff_is_predicted_in_windows_and_keeps_its_coordinates(segda, trained, tmp_path):
    source = tmp_path / "city.tif"
    transform = rasterio.Affine(0.3, 0, 5000, 0, -0.3, 9000)
    bands = np.random.default_rng(0).integers(1, 256, (3, 90, 150), dtype=np.uint8)
    with rasterio.open(
        source, "w", driver="GTiff", count=3, height=90, width=150, dtype="uint8", crs="EPSG:32650", transform=transform
    ) as writer:
        writer.write(bands)
    words = ["--window", 64, "--overlap", 32, "--precision", "fp32"]
    assert segda("predict", trained.checkpoint, source, tmp_path / "out.tif", *words).code == 0
    with rasterio.open(tmp_path / "out.tif") as reader:
        assert (reader.shape, reader.transform) == ((90, 150), transform)
        assert reader.tags(1)["CLASS_6"] == "Agriculture"
        assert reader.read(1).max() < 7


def _write_geotiff(path, bands):
    path.parent.mkdir(parents=True, exist_ok=True)
    size = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    with rasterio.open(path, "w", driver="GTiff", transform=rasterio.Affine(1, 0, 9, 0, -1, 9), **size) as writer:
        writer.write(bands)
    return path


def test_files_and_folders_are_predicted_together(segda, trained, tmp_path):
    bands = np.random.default_rng(0).integers(1, 256, (3, 70, 80), dtype=np.uint8)
    north, south = (_write_geotiff(tmp_path / "in" / f"{name}.tif", bands) for name in ("north", "south"))
    images = trained.root / "Val" / "Rural" / "images_png"
    words = ["predict", trained.checkpoint, north, images, south, tmp_path / "out", "--confidence"]
    assert "4 predicted, 0 were there" in segda(*words).output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    rasters = {f"{name}{end}" for name in ("north", "south") for end in (".tif", ".tif.aux.xml", "_confidence.tif")}
    assert names == {"0.png", "1.png"} | rasters
    (tmp_path / "out" / "south_confidence.tif").unlink()
    assert "1 predicted, 3 were there" in segda(*words).output
    with rasterio.open(tmp_path / "out" / "north.tif") as reader:
        tags = reader.tags()
        assert tags["SEGDA_CHECKPOINT"] == "checkpoint.pt"
        assert tags["SEGDA_SOFTWARE"].startswith("segda ")
        assert tags["SEGDA_MODEL"].startswith("bisenet_v1")
        assert json.loads(tags["SEGDA_CLASSES"]) == list(LOVEDA.classes)


def test_predictions_that_would_meet_are_refused(segda, trained, tmp_path):
    bands = np.ones((3, 40, 40), np.uint8)
    first, second = (_write_geotiff(tmp_path / name / "a.tif", bands) for name in ("one", "two"))
    code, _, errors = segda("predict", trained.checkpoint, first, second, tmp_path / "out")
    assert (code, errors.count("\n")) == (2, 1)
    assert "have one name" in errors
    code, _, errors = segda("predict", trained.checkpoint, first, tmp_path / "one", tmp_path / "one")
    assert code == 2
    beside = _write_geotiff(tmp_path / "one" / "a_confidence.tif", bands)
    words = ["predict", trained.checkpoint, first, beside]
    code, _, errors = segda(*words, tmp_path / "out", "--confidence")
    assert (code, "a_confidence have one name" in errors) == (2, True), errors
    code, _, errors = segda(*words, tmp_path / "one")
    assert (code, "would replace the images" in errors) == (2, True), errors
    assert not (tmp_path / "out").exists()


def test_bands_and_values_of_a_raster_can_be_told(segda, trained, tmp_path):
    bands = np.random.default_rng(0).integers(0, 256, (3, 70, 80), dtype=np.uint8)
    plain = _write_geotiff(tmp_path / "plain.tif", bands)
    deep = _write_geotiff(tmp_path / "deep.tif", np.stack([bands[0], *bands[::-1]]).astype(np.int16) * 10 - 300)
    assert segda("predict", trained.checkpoint, plain, tmp_path / "a.tif").code == 0
    told = ["--bands", "4,3,2", "--stretch", "-300", "2250"]
    done = segda("predict", trained.checkpoint, deep, tmp_path / "b.tif", *told)
    assert done.code == 0, done.errors
    told[-2:] = ["0%", "100%"]
    assert segda("predict", trained.checkpoint, deep, tmp_path / "c.tif", *told).code == 0
    found = []
    for name in "abc":
        with rasterio.open(tmp_path / f"{name}.tif") as reader:
            found.append(reader.read(1))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2]), "bands of 0..255 have the percentiles 0 and 255"


def test_a_profile_shows_costs_and_their_conditions(segda, trained):
    code, output, _ = segda("profile", trained.config, "--runs", "5", "--width", "96", "--precision", "fp32")
    assert code == 0
    assert "7 classes" in output
    assert "1x3x64x96" in output
    assert float(_row(output, "parameters")[0].split()[0]) > 1
    assert "fp32" in output


def test_the_list_names_classes_domains_and_terms_of_every_data_set(segda):
    output = segda("datasets", "list").output
    for dataset in DATASETS.values():
        for text in (*dataset.classes, *dataset.domains, dataset.terms, dataset.url):
            assert text in output


def test_verifying_a_data_set_counts_images_ids_and_class_shares(segda, trained):
    code, output, errors = segda("datasets", "verify", "loveda", "--root", trained.root)
    assert code == 2
    assert "wrong: domain urban, split train: 3 images, 1,156 are published; complete it" in output
    assert "absent: data set loveda" not in output.splitlines()[0]
    assert f"{trained.root}: 4 thing(s) wrong, as told above" in errors
    assert _row(output, "urban/train") == ["3", "1,156", "3", "64x64 (3)"]
    assert _row(output, "rural/val") == ["2", "992", "2", "64x64 (2)"]
    assert _row(output, "rural/test") == ["-", "-", "-", "-"]
    stored = [
        np.asarray(Image.open(path))
        for split in ("Train", "Val")
        for path in (trained.root / split / "Rural" / "masks_png").iterdir()
    ]
    counts = np.bincount(np.concatenate(stored).ravel(), minlength=8)
    for index, name in enumerate(LOVEDA.classes, start=1):
        assert _row(output, name)[1] == f"{100 * counts[index] / counts[1:].sum():.2f}"
    assert _row(output, "void, of all")[1] == f"{100 * counts[0] / counts.sum():.2f}"
    assert _row(output, "0")[0] == "void"
    assert _row(output, "7")[0] == "Agriculture"


def test_scenes_are_made_and_nothing_is_wrong_with_them(segda, tmp_path):
    root = tmp_path / "scenes"
    assert (
        segda("datasets", "make", "scenes", root, "--size", 32, "--train", 2, "--val", 1, "--format", "tif").code == 0
    )
    code, output, _ = segda("datasets", "verify", "scenes", "--root", root)
    assert code == 0
    assert _row(output, "urban/train") == ["2", "-", "2", "32x32 (2)"]
    assert output.splitlines()[-1] == "nothing is wrong"


def test_verifying_quickly_opens_no_file(segda, tmp_path):
    root = tmp_path / "scenes"
    segda("datasets", "make", "scenes", root, "--size", 32, "--train", 2, "--val", 1)
    for path in root.rglob("*.png"):
        path.write_bytes(b"no image")
    code, output, _ = segda("datasets", "verify", "scenes", "--root", root, "--quick")
    assert code == 0
    assert _row(output, "rural/val") == ["1", "-", "1", "-"]
    code, output, _ = segda("datasets", "verify", "scenes", "--root", root)
    assert code == 2
    assert output.count("cannot be decoded") == 6


def test_what_is_wrong_is_told_for_each_file(segda, tmp_path):
    root = tmp_path / "scenes"
    segda("datasets", "make", "scenes", root, "--size", 32, "--train", 4, "--val", 1)
    masks = sorted((root / "Train" / "Rural" / "masks_png").iterdir())
    masks[0].unlink()
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(masks[1])
    Image.fromarray(np.ones((16, 32), np.uint8)).save(masks[2])
    code, output, errors = segda("datasets", "verify", "scenes", "--root", root)
    assert code == 2
    assert "3 thing(s) wrong" in errors
    for mask, reason in zip(
        masks, ("has no label: expected", "unknown id 9; allowed are 0..7", "is 32x16; replace"), strict=False
    ):
        assert re.search(rf"wrong: .*{mask.name}.*{reason}", output), output
    assert _row(output, "rural/train") == ["4", "-", "3", "32x32 (1)"]


def test_a_description_is_verified_like_one_of_ours(segda, tmp_path):
    root = tmp_path / "scenes"
    segda("datasets", "make", "scenes", root, "--size", 32, "--train", 2, "--val", 1)
    example = Path(__file__).parents[2] / "examples" / "described.yaml"
    code, output, _ = segda("datasets", "verify", example, "--root", root)
    assert code == 0
    assert _row(output, "plants")
    assert {_row(output, number)[0] for number in ("6", "7")} == {"plants"}


@pytest.mark.parametrize("name", [*DATASETS, str(Path(__file__).parents[2] / "examples" / "described.yaml")])
def test_how_to_get_a_data_set_is_told_with_address_terms_and_layout(segda, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    code, output, _ = segda("datasets", "get", name)
    assert code == 0
    dataset = DATASETS[name]
    for text in (dataset.url, dataset.terms, dataset.layout, *dataset.steps, f"segda datasets verify {name} --root"):
        assert text in output


def test_all_recipes_are_listed(segda):
    output = segda("datasets", "recipes").output
    assert all(name in output for name in RECIPES)


@pytest.mark.parametrize("text", ["64", "64x", "x64", "64x16", "-64x64", "64x64x64", "large"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="HEIGHTxWIDTH"):
        parse_size(text, option="--size", smallest=32)


def _command(body):
    @click.command()
    @data_root_option
    def command(roots):
        body(roots)

    return command


def _fails_with(error):
    def body(_roots):
        raise error

    return _command(body)


def test_a_user_error_of_many_lines_is_told_on_one(capsys):
    with pytest.raises(SystemExit) as ended:
        run_cli(_fails_with(SegdaError("first\n  second")), [])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "Error: first second\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_cli(_fails_with(ZeroDivisionError()), [])


def test_an_interrupt_ends_with_130_and_says_how_to_go_on(capsys):
    with pytest.raises(SystemExit) as ended:
        run_cli(_fails_with(KeyboardInterrupt()), [])
    assert ended.value.code == 130
    message = capsys.readouterr().err
    assert message.startswith("Interrupted")
    assert message.count("\n") == 1
    assert "same command" in message


def test_a_click_usage_error_is_one_line_with_code_2(capsys):
    with pytest.raises(SystemExit) as ended:
        run_cli(_command(lambda roots: None), ["--data-rot", "a=b"])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("Error: No such option")
    assert "--data-root" in message
    assert message.count("\n") == 1


def test_data_roots_are_read_as_name_and_path(capsys):
    seen = {}
    with pytest.raises(SystemExit) as ended:
        run_cli(_command(seen.update), ["--data-root", "camvid=a/b", "--data-root", "loveda=c=d"])
    assert ended.value.code == 0
    assert seen == {"camvid": Path("a/b"), "loveda": Path("c=d")}


def test_a_data_root_without_a_name_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        run_cli(_command(lambda roots: None), ["--data-root", "data/camvid"])
    assert ended.value.code == 2
    assert "NAME=PATH" in capsys.readouterr().err
