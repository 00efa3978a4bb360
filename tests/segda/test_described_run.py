"""A described data set is trained on, scored, predicted with and searched like one of ours."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from PIL import Image

from segda import guests
from segda.datasets.scenes import generate_scenes
from segda.loading import load_config

EXAMPLES = Path(__file__).parents[2] / "examples"
NAME = "described.yaml"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_scenes(tmp_path_factory.mktemp("scenes") / "root", size=64, train=4, val=2)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the example and a configuration that names it; where else things lie is not known."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(guests, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("SEGDA_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "configs"
    folder.mkdir()
    shutil.copy(EXAMPLES / NAME, folder)
    plain = yaml.safe_load((EXAMPLES.parent / "segda" / "configs" / "scenes.yaml").read_text())
    plain["data"] |= {"height": 64, "width": 64, "augmentation": "none"}
    for domain in ("source", "target"):
        plain["data"][domain]["dataset"] = NAME
    plain |= {"method": {"name": "source_only"}, "steps": 2, "report_every": 1, "schedule": {}, "precision": "fp32"}
    (folder / "run.yaml").write_text(yaml.safe_dump(plain))
    return folder


@pytest.fixture
def run(home: Path, scenes: Path, segda) -> Path:
    code, _, errors = segda("train", home / "run.yaml", "--folder", home / "run", "--data-root", f"{NAME}={scenes}")
    assert code == 0, errors
    return home / "run"


def test_training_scoring_and_predicting(run: Path, home: Path, scenes: Path, segda) -> None:
    result = json.loads((run / "result.json").read_text())
    assert result["classes"] == ["ground", "building", "road", "water", "barren", "plants"]
    assert result["unscored"] == ["barren"]
    recorded = json.loads((run / "environment.json").read_text())
    assert recorded[f"guest/{NAME}/module"] == "my_scenes"
    assert len(recorded[f"guest/{NAME}/sha256"]) == 64
    guests._folders.clear()
    done = segda("evaluate", run / "checkpoint.pt", "--data-root", f"{NAME}={scenes}")
    assert done.code == 2, "the description lies beside the configuration, which nobody named"
    assert f"unknown data set '{NAME}': there is no such file" in done.errors
    shutil.copy(home / NAME, NAME)
    done = segda("evaluate", run / "checkpoint.pt", "--data-root", f"{NAME}={scenes}")
    assert done.code == 0, done.errors
    assert "barren (unscored)" in done.output
    image = next((scenes / "Val" / "Rural" / "images_png").iterdir())
    assert segda("predict", run / "checkpoint.pt", image, "out.png").code == 0
    with Image.open("out.png") as predicted:
        assert np.asarray(predicted).max() < 6


def test_a_raster_is_predicted_from_the_bands_that_the_description_names(
    run: Path, home: Path, scenes: Path, segda
) -> None:
    said = yaml.safe_load((home / NAME).read_text())
    Path(NAME).write_text(yaml.safe_dump(said | {"bands": {"numbers": [4, 3, 2], "low": 1000, "high": 1510}}))
    (home / NAME).unlink()
    image = next((scenes / "Val" / "Rural" / "images_png").iterdir())
    with Image.open(image) as opened:
        pixels = np.asarray(opened)
    deep = np.zeros((4, *pixels.shape[:2]), dtype=np.uint16)
    deep[1:] = pixels.transpose(2, 0, 1)[::-1].astype(np.uint16) * 2 + 1000
    for name, bands in (("deep.tif", deep), ("plain.tif", np.moveaxis(pixels, 2, 0))):
        with rasterio.open(
            name,
            "w",
            driver="GTiff",
            count=len(bands),
            height=64,
            width=64,
            dtype=bands.dtype,
            crs="EPSG:32632",
            transform=rasterio.Affine(1, 0, 500_000, 0, -1, 5_300_000),
        ) as writer:
            writer.write(bands)
    done = segda("predict", run / "checkpoint.pt", "deep.tif", "deep_out.tif")
    assert done.code == 0, done.errors
    Path(NAME).write_text(yaml.safe_dump(said))
    assert segda("predict", run / "checkpoint.pt", "plain.tif", "plain_out.tif").code == 0
    found = []
    for name in ("deep_out.tif", "plain_out.tif"):
        with rasterio.open(name) as reader:
            found.append(reader.read(1))
    assert (found[0] == found[1]).all()


def test_a_run_whose_description_has_changed_is_refused(run: Path, home: Path, scenes: Path, segda) -> None:
    before = load_config(home / "run.yaml").fingerprint()
    text = (home / NAME).read_text()
    words = ("train", home / "run.yaml", "--folder", run, "--data-root", f"{NAME}={scenes}")
    (home / NAME).write_text(f"# a remark\n{text}")
    assert segda(*words).code == 0
    (home / NAME).write_text(text.replace("ids: [6, 7]", "ids: [6]").replace("void: [0]", "void: [0, 7]"))
    done = segda(*words)
    assert done.code == 2
    assert "checkpoint of a data set that was described in another way (my_scenes-" in done.errors
    assert load_config(home / "run.yaml").fingerprint() != before


@pytest.mark.parametrize("others", [["evaluate"], ["predict", "images", "out"]], ids=lambda words: words[0])
@pytest.mark.parametrize("change", ["order", "name", "ids"])
def test_a_network_is_not_used_for_classes_that_have_changed_since(
    run: Path, home: Path, scenes: Path, segda, caplog, change: str, others: list[str]
) -> None:
    path = home / NAME
    plain = yaml.safe_load(path.read_text())
    first, second = plain["classes"][:2]
    if change == "order":
        plain["classes"].reverse()
    elif change == "name":
        first["name"] = "soil"
    else:
        first["ids"], second["ids"] = second["ids"], first["ids"]
    path.write_text(yaml.safe_dump(plain))
    command, *places = others
    words = [scenes / "Val/Rural/images_png", home / "out"] if places else ["--data-root", f"{NAME}={scenes}"]
    code, _, errors = segda(command, run / "checkpoint.pt", *words)
    if change == "ids":  # the outputs are called as they were; the labels to compare them with may mean something else
        assert code == 0
        assert "described in another way" in caplog.text
    else:
        assert (code, errors.count("\n")) == (2, 1), errors
        assert "checkpoint.pt was trained for the classes ground, building, road" in errors


def test_a_process_elsewhere_finds_it_in_the_folders_that_it_is_told(home: Path) -> None:
    load_config(home / "run.yaml")
    program = (
        "import sys; from segda.guests import make_importable; make_importable(sys.argv[1:]); "
        f"from segda.datasets import DATASETS; print(DATASETS['{NAME}'].name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *guests.importable_folders()],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "my_scenes", done.stderr


def test_a_sweep_notes_what_it_says_and_where_it_lies(home: Path, scenes: Path) -> None:
    from sweeps.checks.makers import load_spec
    from sweeps.execution.guests import guests_of

    base = yaml.safe_load((home / "run.yaml").read_text())
    sweep = {"name": "described", "base": base, "search": {"optimizer.lr": [0.01, 0.02]}, "budget": {"trials": 1}}
    (home / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    spec = load_spec(home / "sweep.yaml", data_roots={NAME: scenes})
    found = guests_of(spec)
    assert found[f"guest/{NAME}/module"] == "my_scenes"
    assert str(home) in guests.importable_folders()
