"""The parts of one's own in `examples/own` keep the contracts, train, and are searched by a sweep."""

import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segda import guests
from segda.cli_errors import run_cli
from segda.datasets import DATASETS
from segda.datasets.scenes import generate_scene
from segda.loading import load_config
from segda.methods import METHODS
from segda.models import MODELS
from segda.testing.datasets import DATASET_CHECKS, DatasetCase
from segda.testing.losses import LOSS_CHECKS, LossCase
from segda.testing.methods import METHOD_CHECKS, MethodCase
from segda.testing.models import check_segmenter, configurations
from segda.testing.runs import RUN_CHECKS, RunCase
from segda.transforms import build_recipe

OWN = Path(__file__).resolve().parents[1] / "examples" / "own"
SIDE = 64  # pixels


@pytest.fixture(autouse=True)
def _as_in_a_new_program(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the examples be found as their users find them, and by nobody afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(guests, "_folders", [])
    guests.make_importable([OWN])
    yield
    for path in OWN.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture(scope="session")
def two_towns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few scenes in the layout of the example's data set."""
    root = tmp_path_factory.mktemp("two_towns")
    for town, kind in (("old_town", "urban"), ("new_town", "rural")):
        for split, count in (("train", 4), ("val", 2)):
            folder = root / town / split
            for part in ("images", "labels"):
                (folder / part).mkdir(parents=True)
            for number in range(count):
                scene = generate_scene(kind, np.random.default_rng((number, len(split))), SIDE)
                Image.fromarray(scene.image).save(folder / "images" / f"{number}.png")
                Image.fromarray(scene.label_raw - np.uint8(1)).save(folder / "labels" / f"{number}.png")
    return root


@pytest.mark.parametrize("check", METHOD_CHECKS)
def test_the_method_keeps_the_contract(check: str) -> None:
    METHOD_CHECKS[check](MethodCase(METHODS["max_squares:MaxSquares"]))


@pytest.mark.slow  # whole trainings
@pytest.mark.parametrize("check", RUN_CHECKS)
def test_the_method_keeps_the_contract_in_whole_trainings(check: str, tmp_path: Path) -> None:
    RUN_CHECKS[check](RunCase("max_squares:MaxSquares"), tmp_path)


def test_the_loss_of_the_method_is_smaller_where_the_target_is_surer() -> None:
    method = MethodCase(METHODS["max_squares:MaxSquares"], {"lambda_squares": 1.0}).build()
    step = MethodCase(METHODS["max_squares:MaxSquares"]).step()
    before = method.training_step(step).logs["loss_squares"].value.item()
    with torch.no_grad():
        method.segmenter.head.weight *= 10
    after = method.training_step(step).logs["loss_squares"].value.item()
    assert -0.5 <= after < before <= -0.5 / method.num_classes


def test_the_network_keeps_the_contract() -> None:
    kind = MODELS["small_unet:SmallUNet"]
    found = list(configurations(kind, name="small_unet:SmallUNet"))
    assert [config.width for config in found] == [16, 8, 32]
    for config in found:
        check_segmenter(kind, config)


@pytest.mark.parametrize("check", DATASET_CHECKS)
def test_the_data_set_keeps_the_contract(check: str, two_towns: Path, tmp_path: Path) -> None:
    DATASET_CHECKS[check](DatasetCase(DATASETS["two_towns:TwoTowns"], two_towns), tmp_path)


@pytest.mark.parametrize("check", LOSS_CHECKS)
def test_the_loss_keeps_the_contract(check: str) -> None:
    LOSS_CHECKS[check](LossCase("focal:focal"))


def test_the_loss_is_that_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(2, 5, 4, 3)), rng.integers(0, 5, (2, 4, 3))
    label[0, 0] = 255
    weight = rng.uniform(size=(2, 4, 3))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    p = np.take_along_axis(probs, np.where(label == 255, 0, label)[:, None], axis=1)[:, 0]
    pixels = np.where(label == 255, 0.0, -((1 - p) ** 2) * np.log(p))
    case = LossCase("focal:focal")
    given = torch.tensor(logits, dtype=torch.float32), torch.tensor(label)
    assert case.of(*given).value.item() == pytest.approx(pixels.sum() / (label != 255).sum(), rel=1e-5)
    expected = (pixels * weight).sum() / (label != 255).sum()
    assert case.of(*given, weight=torch.tensor(weight)).value.item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_has_a_finite_gradient_where_a_pixel_is_sure_or_void() -> None:
    logits = torch.tensor([[50.0, -50.0, 0.0], [-50.0, 50.0, 0.0]]).reshape(1, 2, 1, 3).requires_grad_()
    label = torch.tensor([[[0, 0, 255]]])
    LossCase("focal:focal").of(logits, label).value.backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 0, 0, 1] < 0  # towards the labelled class
    assert (logits.grad[..., 2] == 0).all()


def test_the_recipe_darkens_lights_lamps_and_draws_the_same_for_the_same_seed() -> None:
    image = np.full((SIDE, SIDE, 3), 100, np.uint8)
    label = np.arange(SIDE, dtype=np.uint8)[None].repeat(SIDE, 0)
    augmentation = build_recipe("dusk:DUSK", height=SIDE, width=SIDE)
    results = [augmentation(image, label, seed=seed) for seed in range(20)]
    again = augmentation(image, label, seed=3)
    assert (again[0] == results[3][0]).all()
    assert (again[1] == results[3][1]).all()
    darker = [np.median(result[..., 0]) < 100 for result, _ in results]
    assert sum(darker) > 10
    lamps = [result.max() - np.median(result) > 40 for result, _ in results]
    assert 0 < sum(lamps) < 20
    flipped = [bool((mask == label[:, ::-1]).all()) for _, mask in results]
    assert 0 < sum(flipped) < 20


@pytest.fixture
def given(two_towns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Say where the data lie; return the option of both command lines."""
    monkeypatch.setenv("SEGDA_CACHE", str(tmp_path / "cache"))
    return f"two_towns:TwoTowns={two_towns}"


def test_everything_of_ones_own_trains_together(given: str, tmp_path: Path) -> None:
    from segda.cli import cli

    config = load_config(OWN / "train.yaml")
    assert config.steps == 100
    words = ["train", OWN / "train.yaml", "--folder", tmp_path / "run", "--data-root", given, "steps=4"]
    words += ["device=cpu", "precision=fp32", "report_every=2"]
    with pytest.raises(SystemExit) as ended:
        run_cli(cli, [str(word) for word in words])
    assert ended.value.code == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["method"] == "max_squares:MaxSquares"
    assert set(result["splits"]) == {"source/val", "oracle/target"}
    recorded = json.loads((tmp_path / "run" / "environment.json").read_text())
    names = {key.split("/")[1] for key in recorded if key.startswith("guest/")}
    assert names == {
        *(
            "two_towns:TwoTowns",
            "dusk:DUSK",
            "small_unet:SmallUNet",
            "max_squares:MaxSquares",
            "focal:focal",
            "margins:margins",
        ),
    }
    with pytest.raises(SystemExit) as ended:
        run_cli(cli, ["predict", str(tmp_path / "run" / "checkpoint.pt"), *_one_image(given, tmp_path)])
    assert ended.value.code == 0


def _one_image(given: str, tmp_path: Path) -> tuple[str, str]:
    image = Path(given.partition("=")[2]) / "new_town" / "val" / "images" / "0.png"
    return str(image), str(tmp_path / "classes.png")


@pytest.mark.slow  # a cluster starts, and processes that measure
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")
def test_a_sweep_searches_what_is_ones_own_on_a_real_cluster(given: str, tmp_path: Path) -> None:
    from sweeps.cli import sweeps
    from sweeps.exit_codes import DONE, FELL_SHORT
    from sweeps.ledger.database import Ledger
    from sweeps.store import Store

    plain = yaml.safe_load((OWN / "sweep.yaml").read_text())
    plain["base"] |= {"steps": 2, "report_every": 1, "batch_size": 2, "precision": "fp32", "device": "cpu"}
    plain["search"]["method.name"] = ["max_squares:MaxSquares"]
    plain["search"]["loss.name"] = ["focal:focal"]
    plain["search"]["model.width"] = [8]
    plain["constraints"] = ["macs <= 1e12"]
    # The parts lie beside this file, not where the program runs.
    folder = tmp_path / "settings"
    folder.mkdir()
    for path in OWN.glob("*.py"):
        (folder / path.name).write_text(path.read_text())
    (folder / "sweep.yaml").write_text(yaml.safe_dump(plain))
    guests._folders.clear()
    sys.path.remove(str(OWN))
    words = ["run", folder / "sweep.yaml", "--store", tmp_path / "runs", "--trials", 2, "--data-root", given]
    with pytest.raises(SystemExit) as ended:
        run_cli(sweeps, [str(word) for word in words])
    assert ended.value.code in (DONE, FELL_SHORT)  # after two steps networks may see a single class
    store = Store.at(tmp_path / "runs")
    with Ledger.open(store.ledger) as ledger:
        trials = ledger.trials("own")
        info = ledger.sweep("own").info
    assert [(str(trial.state), trial.step) for trial in trials] == [("complete", 2)] * 2
    assert all(trial.profile["macs"] > 0 for trial in trials)
    assert str(folder) in info.folders
    assert {key.split("/")[1] for key in info.guests} >= {"small_unet:SmallUNet", "max_squares:MaxSquares"}


ENTRY_POINTS = """
[segda.methods]
max_squares = seaside.max_squares:MaxSquares
[segda.models]
small_unet = seaside.small_unet:SmallUNet
[segda.datasets]
two_towns = seaside.two_towns:TwoTowns
[segda.losses]
focal = seaside.focal:focal
[segda.recipes]
dusk = seaside.dusk:DUSK
[segda.validators]
margins = seaside.margins:margins
"""


@pytest.mark.slow  # new processes
def test_an_installed_package_offers_the_same_parts_under_short_names(given: str, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "seaside").mkdir(parents=True)
    (site / "seaside" / "__init__.py").touch()
    for path in OWN.glob("*.py"):
        (site / "seaside" / path.name).write_text(path.read_text().replace('"dusk:Lamps"', '"seaside.dusk:Lamps"'))
    (site / "seaside-0.4.dist-info").mkdir()
    (site / "seaside-0.4.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: seaside\nVersion: 0.4\n")
    (site / "seaside-0.4.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    plain = yaml.safe_load((OWN / "train.yaml").read_text())
    plain["data"]["source"]["dataset"] = plain["data"]["target"]["dataset"] = "two_towns"
    plain["data"] |= {"augmentation": "dusk", "workers": 1}
    plain |= {"model": {"name": "small_unet"}, "method": {"name": "max_squares"}, "loss": {"name": "focal"}}
    plain |= {"validators": ["margins"]}
    plain |= {"steps": 2, "report_every": 1, "device": "cpu", "precision": "fp32"}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(plain))

    def segda(*words: object) -> str:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(OWN.parents[1]), str(site)])}
        command = [sys.executable, "-m", "segda", *map(str, words)]
        return forked.checked(command, folder=tmp_path, environment=environment)

    assert "two_towns, 7 classes" in segda("datasets", "list")
    assert "the light of dusk" in segda("datasets", "recipes")
    segda("train", "train.yaml", "--folder", "run", "--data-root", given.replace("two_towns:TwoTowns", "two_towns"))
    recorded = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert recorded["guest/max_squares/package"] == "seaside 0.4"
    assert recorded["guest/dusk/module"] == "seaside.dusk"


@pytest.mark.slow  # a cluster starts
def test_the_notebook_runs_a_sweep_and_draws_its_front(tmp_path: Path) -> None:
    cells = (OWN.parent / "notebook.py").read_text()
    sizes = "SIZE, TILES, STEPS, TRIALS = 128, 32, 80, 6"
    assert sizes in cells
    tiny = cells.replace(sizes, "SIZE, TILES, STEPS, TRIALS = 64, 4, 2, 3")
    check = """
import json
drawn = {"trained": trained.to_dict("records"), "front": list(best.index), "traces": len(figure.data)}
Path("drawn.json").write_text(json.dumps(drawn))
"""
    (tmp_path / "notebook.py").write_text(tiny + check)
    environment = os.environ | {"PYTHONPATH": str(OWN.parents[1]), "SEGDA_CACHE": str(tmp_path / "cache")}
    environment.pop("SWEEPS_LEDGER", None)
    told = forked.checked([sys.executable, "notebook.py"], folder=tmp_path, environment=environment)
    assert "3/3 trials" in told  # a line per event, where nobody watches
    drawn = json.loads((tmp_path / "drawn.json").read_text())
    trained = drawn["trained"]
    assert [trial["state"] for trial in trained] == ["complete"] * 3
    assert sum(trial["picked"] for trial in trained) == 1
    assert not any(name.startswith("oracle/") for trial in trained for name in trial)
    quality: dict[float, float] = {}
    for trial in trained:
        quality[trial["macs"]] = max(trial["source/val/miou"], quality.get(trial["macs"], 0.0))
    better = [cost for cost in sorted(quality) if all(quality[cost] > quality[less] for less in quality if less < cost)]
    assert drawn["front"] == better
    assert drawn["traces"] == len({trial["model.backbone"] for trial in trained}) + 1
    assert (tmp_path / "demo" / "front.html").stat().st_size > 1000
    assert (tmp_path / "demo" / "runs" / "notebook" / "report.html").is_file()


QUESTIONS = sorted((OWN.parent / "questions").glob("*.yaml"))


@pytest.mark.parametrize("path", QUESTIONS, ids=lambda path: path.stem)
def test_a_sweep_for_a_question_is_right_and_says_commands_that_work(path: Path) -> None:
    from sweeps.checks.makers import load_spec
    from sweeps.cli.deploy import deploy_command
    from sweeps.cli.report import report_command
    from sweeps.cli.run import run_command

    spec = load_spec(path)
    assert spec.name == path.stem
    assert spec.question.endswith("?")
    kinds = {"run": run_command, "deploy": deploy_command, "report": report_command}
    names = {spec.name}
    commands = [
        line.removeprefix("#   sweeps ") for line in path.read_text().splitlines() if line.startswith("#   sweeps ")
    ]
    assert commands[0].startswith(f"run examples/questions/{path.name} ")
    for command in commands:
        kind, *words = shlex.split(command)
        options = kinds[kind].make_context(kind, words).params
        if kind == "run":
            names.add(load_spec(OWN.parents[1] / options["file"], changes=options["changes"]).name)
        else:
            assert {options["name"]} if kind == "deploy" else {*options["names"]} <= names
