"""A user's own method, data set, loss, recipe and discriminator in a training configuration."""

import hashlib
import importlib
import json
import sys
import textwrap

import pytest
import torch
import yaml

from segda.config import TrainConfig
from segda.datasets.base import resolve_root
from segda.environment import code_fingerprint, describe_guests
from segda.errors import ConfigError, DatasetNotFoundError, GuestError
from segda.guests import make_importable
from segda.loading import load_config
from segda.losses import SegmentationLoss
from segda.transforms import RECIPES, build_recipe
from segda.tunable import Range, tunables

SHY = """
    from typing import Annotated

    from pydantic import Field

    from segda.datasets.loveda import LoveDA
    from segda.discriminators import FCD
    from segda.losses.cross_entropy import cross_entropy
    from segda.methods import MethodConfig
    from segda.methods.source_only import SourceOnly
    from segda.transforms import Recipe, Step
    from segda.tunable import Range

    class ShyConfig(MethodConfig):
        lambda_shy: Annotated[float, Range(0.1, 0.9)] = Field(0.5, ge=0, description="weight of nothing")

    class Shy(SourceOnly):
        Config = ShyConfig

    class Tiles(LoveDA):
        name = "tiles"

    class Doubtful(FCD):
        pass

    def half(logits, label, *weight):
        return 0.5 * cross_entropy(logits, label, *weight)

    def surest(evidence):
        return evidence.target.max(dim=-1).values.mean()

    mirrored = Recipe("left is right", (Step("horizontal flip", "HorizontalFlip"),))
"""

FILE = """\
data:
  source: {dataset: "shy:Tiles", domain: urban}
  target: {dataset: "shy:Tiles", domain: rural}
  height: 64
  width: 64
  augmentation: shy:mirrored
method:
  name: shy:Shy
  lambda_shy: 0.25
loss: {name: "shy:half"}
steps: 2
"""


@pytest.fixture
def write(guest_folder, tmp_path):
    """Write the guests and a configuration that names them, with a replacement in it."""
    (guest_folder / "shy.py").write_text(textwrap.dedent(SHY))

    def write(old: str = "", new: str = ""):
        path = tmp_path / "shy.yaml"
        path.write_text(FILE.replace(old, new))
        return path

    return write


def test_guests_stand_where_ours_do(write):
    config = load_config(write())
    assert config.method.model_dump() == {"name": "shy:Shy", "lambda_shy": 0.25}
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config
    assert ("lambda_shy", Range(0.1, 0.9), 0.5) in list(tunables(type(config.method)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lambda_shy: 0.25", "lambda_shi: 1", "9: method.lambda_shi: unknown key (did you mean 'lambda_shy'?)"),
        ("lambda_shy: 0.25", "lambda_shy: -1", "9: method.lambda_shy: must be at least 0, got -1"),
        ("shy:Shy", "shy:Sly", "8: method.name: method 'shy:Sly': module shy ("),
        ("shy:Shy", "shy:ShyConfig", "8: method.name: method 'shy:ShyConfig' must be a subclass of segda.methods.base.Method, is"),
        ("shy:Shy", "sly:Shy", "8: method.name: method 'sly:Shy': there is no module 'sly'; put sly.py into "),
        ("shy:half", "shy:Shy", "10: loss.name: loss 'shy:Shy' must be a function or a subclass of segda.losses.SupervisedLoss"),
        ("steps: 2", "steps: 2\nvalidators: [im, entropie]", "12: validators: unknown validator 'entropie' (did you mean"),
        ("steps: 2", "validators: ['shy:Shy']", "11: validators: validator 'shy:Shy' must be a function, is the class Shy"),
        ("shy:mirrored", "shy:mirror", "6: data.augmentation: augmentation recipe 'shy:mirror': module shy ("),
        ("urban", "urbane", "2: data.source: data set shy:Tiles has no domain 'urbane' (did you mean 'urban'?)"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_guest_is_told_with_file_and_line(write, old, new, message):
    path = write(old, new)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(error.value).startswith(f"{path}:{message}")


def test_a_guest_that_cannot_be_imported_ends_the_program_with_one_line_and_code_2(write, guest_folder, segda):
    path = write()
    (guest_folder / "shy.py").write_text("import segda.nothing_of_this_name\n")
    code, _, errors = segda("train", path)
    assert code == 2
    assert len(errors.strip().splitlines()) == 1
    assert "importing shy failed with ModuleNotFoundError: No module named 'segda.nothing_of_this_name'" in errors


def test_the_folder_of_a_guest_data_set_comes_from_a_variable_too(write, tmp_path, monkeypatch):
    with pytest.raises(DatasetNotFoundError, match="SEGDA_SHY_TILES_ROOT"):
        resolve_root("shy:Tiles", None)
    monkeypatch.setenv("SEGDA_SHY_TILES_ROOT", str(tmp_path))
    assert resolve_root("shy:Tiles", None) == tmp_path


def test_a_recipe_and_a_loss_of_guests_do_what_they_say(write):
    rng = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (8, 6, 3), generator=rng, dtype=torch.uint8).numpy()
    mirrored, _ = build_recipe("shy:mirrored", height=8, width=6)(image, None, seed=0)
    assert (mirrored == image[:, ::-1]).all()
    SegmentationLoss("shy:half")
    with pytest.raises(GuestError, match="must be a function"):
        SegmentationLoss("shy:Tiles")


def test_a_guest_discriminator_is_a_choice_of_the_adversarial_method(write, tmp_path):
    path = write("shy:Shy\n  lambda_shy: 0.25", "adversarial\n  discriminator: shy:Doubtful")
    assert load_config(path).method.discriminator == "shy:Doubtful"
    plain = yaml.safe_load(path.read_text()) | {"method": {"name": "adversarial", "discriminator": "shy:Shy"}}
    path.write_text(yaml.safe_dump(plain))
    with pytest.raises(ConfigError, match=r"method.discriminator: discriminator 'shy:Shy' must be a subclass of segda"):
        load_config(path)


def test_what_is_not_ours_is_described_with_the_hash_of_its_file(write, guest_folder):
    described = describe_guests(load_config(write()))
    digest = hashlib.sha256((guest_folder / "shy.py").read_bytes()).hexdigest()
    names = ("shy:Tiles", "shy:mirrored", "shy:Shy", "shy:half")
    assert described == {
        f"guest/{name}/{key}": value
        for name in names
        for key, value in (("module", "shy"), ("package", None), ("sha256", digest))
    }


def test_an_installed_guest_is_described_with_its_package(write, guest_folder, install):
    (guest_folder / "front.py").write_text("from shy import Shy\n")
    install("shyness", "[segda.methods]\nshy = front:Shy\n")
    described = describe_guests(load_config(write("shy:Shy", "shy")))
    assert described["guest/shy/package"] == "shyness 1.2"
    assert described["guest/shy/module"] == "shy"  # where it is defined, not where it is offered


def test_what_is_ours_is_not_described(write):
    path = write("shy:Shy\n  lambda_shy: 0.25", "source_only")
    assert not any(key.startswith("guest/source_only") for key in describe_guests(load_config(path)))


def test_the_code_of_a_run_is_another_one_when_the_file_of_a_guest_has_changed(write, guest_folder):
    config = load_config(write())
    before = code_fingerprint(config)
    file = guest_folder / "shy.py"
    file.write_text(file.read_text() + "\n# changed\n")
    assert code_fingerprint(config) == before  # what was imported is what computes
    importlib.reload(sys.modules["shy"])
    assert code_fingerprint(config) != before


@pytest.fixture
def beside(tmp_path, guest_folder, miniatures, monkeypatch):
    """A configuration with its guests in a folder of its own, which nobody was told of yet; returns the file."""
    monkeypatch.setenv("SEGDA_CACHE", str(tmp_path / "cache"))
    (guest_folder / "settings").mkdir()
    (guest_folder / "settings" / "shy_beside.py").write_text(textwrap.dedent(SHY))
    path = miniatures.config(guest_folder / "settings" / "tiny.yaml")
    plain = yaml.safe_load(path.read_text())
    for side in ("source", "target"):
        plain["data"][side] |= {"dataset": "shy_beside:Tiles", "root": str(miniatures.loveda(tmp_path / side))}
    plain["method"] = {"name": "shy_beside:Shy"}
    plain["validators"] = ["entropy", "shy_beside:surest"]
    path.write_text(yaml.safe_dump(plain))
    return path


@pytest.mark.slow  # a second process starts
def test_guests_beside_the_configuration_train_on_several_processes_and_are_recorded(beside, segda, tmp_path, caplog):
    folder = tmp_path / "run"
    code, _, errors = segda("train", beside, "--folder", folder, "--processes", 2, "batch_size=4", "steps=1")
    assert code == 0, errors
    recorded = json.loads((folder / "environment.json").read_text())
    file = beside.parent / "shy_beside.py"
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    assert recorded["guest/shy_beside:Shy/sha256"] == before
    assert recorded["guest/shy_beside:Tiles/module"] == "shy_beside"
    metrics = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["metrics"]
    assert {name for name in metrics if "/validator/" in name} == {
        "target/validator/entropy",
        "target/validator/shy_beside:surest",
    }
    assert 1 / 7 < metrics["target/validator/shy_beside:surest"] < 1
    code, _, errors = segda("evaluate", folder / "checkpoint.pt")
    assert code == 0, errors

    file.rename(tmp_path / file.name)
    del sys.modules["shy_beside"]
    image = next((tmp_path / "source").rglob("*.png"))
    code, _, errors = segda("predict", folder / "checkpoint.pt", image, tmp_path / "predicted.png")
    assert code == 2
    assert len(errors.strip().splitlines()) == 1
    assert "checkpoint.pt: data.source.dataset: data set 'shy_beside:Tiles': there is no module 'shy_beside'" in errors
    (tmp_path / file.name).rename(file)

    importlib.invalidate_caches()
    file.write_text(file.read_text() + "\n# changed\n")
    segda("train", beside, "--folder", folder, "batch_size=4", "steps=1")
    assert "guest/shy_beside:Shy/sha256 was" in caplog.text
    assert json.loads((folder / "environment.json").read_text())["guest/shy_beside:Shy/sha256"] == before


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("class Odd(BaseException): pass\nraise Odd('no')", r"failed with Odd: no \("),
        ("raise GeneratorExit", "failed with GeneratorExit"),
        ("raise ValueError('x' * 100_000)", r"failed with ValueError: x+\.\.\.x+ "),
        (
            "class Mute(Exception):\n    def __str__(self): raise RuntimeError\nraise Mute",
            r"Mute: \(what it says cannot be read\)",
        ),
        ("import sys\ndel sys.modules[__name__]", "failed with KeyError"),
        ("def __getattr__(name): raise RuntimeError('not ' + name)", r"failed with RuntimeError: not (X|__)"),
        (
            "from segda.transforms import Recipe\nclass X(Recipe):\n    def __init__(self): raise OSError('no')",
            "cannot be made: OSError: no",
        ),
    ],
    ids=["BaseException", "GeneratorExit", "long", "mute", "gone", "attributes", "constructor"],
)
def test_whatever_a_module_of_somebody_else_raises_is_one_line(tmp_path, body, said):
    name = f"odd_{hashlib.sha256(body.encode()).hexdigest()[:8]}"
    (tmp_path / f"{name}.py").write_text(body)
    make_importable([tmp_path])
    with pytest.raises(GuestError, match=said) as error:
        RECIPES[f"{name}:X"]
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700
