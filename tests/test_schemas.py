"""The JSON schemas are those of the code; shipped files name them and keep them, and wrong files do not."""

import copy
import json
import re
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
import yaml

from segda import catalog
from segda.cli_errors import run_cli
from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.discriminators import DISCRIMINATORS
from segda.methods import METHODS
from segda.models import MODELS
from segda.schema import schema_of
from segda.schema_keys import keys_of
from segda.transforms import RECIPES
from sweeps.cli import sweeps
from sweeps.file.schema import sweep_schema

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("segda", "sweeps", "examples") for path in (ROOT / folder).rglob("*.yaml"))
SWEEP = yaml.safe_load((ROOT / "sweeps" / "configs" / "demo.yaml").read_text())
TRAINING = yaml.safe_load((ROOT / "segda" / "configs" / "scenes.yaml").read_text())
COMMANDS = {
    "segda/schemas/training.json": ("segda", "schema"),
    "segda/schemas/dataset.json": ("segda", "schema", "dataset"),
    "sweeps/schemas/sweep.json": ("sweeps", "schema"),
}


def problems(schema, content):
    return list(jsonschema.Draft202012Validator(schema).iter_errors(content))


def changed(content, path, value):
    content = copy.deepcopy(content)
    place = content
    for key in path[:-1]:
        place = place.setdefault(key, {})
    place[path[-1]] = value
    return content


@pytest.mark.parametrize("file", COMMANDS)
def test_a_committed_schema_is_what_the_command_prints_without_plugins(file, capsys, monkeypatch):
    from segda.cli import cli

    monkeypatch.setattr(catalog, "all_entry_points", lambda: SimpleNamespace(select=lambda group: ()))
    program, *words = COMMANDS[file]
    with pytest.raises(SystemExit) as ended:
        run_cli({"segda": cli, "sweeps": sweeps}[program], words)
    assert ended.value.code == 0
    printed, committed = capsys.readouterr().out, (ROOT / file).read_text(encoding="utf-8")
    assert printed == committed, f"{file} is out of date; run `make schema`"
    jsonschema.Draft202012Validator.check_schema(json.loads(committed))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_shipped_file_names_its_schema_and_keeps_it(path):
    text = path.read_text(encoding="utf-8")
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert named, "the first line names no schema"
    file = (path.parent / named[1]).resolve()
    assert str(file.relative_to(ROOT)) in COMMANDS
    assert problems(json.loads(file.read_text(encoding="utf-8")), yaml.safe_load(text)) == []


def test_there_are_shipped_files_of_each_kind():
    assert {path.read_text().partition("\n")[0].rpartition("/")[2] for path in FILES} == {
        "training.json",
        "dataset.json",
        "sweep.json",
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("optimizer", "learning_rate"), 0.1),
        (("batch_size",), "four"),
        (("batch_size",), 1),
        (("steps",), 1.5),
        (("method", "name"), "adversary"),
        (("method", "discriminator"), "fdc"),
        (("model",), {"name": "bisenet_v3"}),
        (("model",), {"name": "bisenet_v1", "variant": "stdc1"}),
        (("method", "lambda_ent"), 0.1),
        (("data", "source", "dataset"), "camvod"),
        (("data", "augmentation"), "colors"),
        (("validators",), ["entropie"]),
    ],
)
def test_a_wrong_training_file_is_refused(path, value):
    schema = json.loads((ROOT / "segda/schemas/training.json").read_text())
    assert not problems(schema, TRAINING)
    assert problems(schema, changed(TRAINING, path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("budgt",), {"trials": 3}),
        (("budget", "trials"), "many"),
        (("budget", "trials"), 0),
        (("base", "optimizer", "learning_rate"), 0.1),
        (("base", "method", "name"), "adversary"),
        (("base", "method", "lamda_adv"), 0.1),
        (("search", "method.lamda_adv"), [0.1]),
        (("search", "method.lambda_adv"), ["much"]),
        (("search", "model.name"), ["bisenet_v3"]),
        (("search", "optimizer.lr"), {"min": 0.1, "max": 0.2}),
        (("search", "steps"), [10, 20]),
        (("search", "optimizer.beta1"), "default"),
        (("references", "again"), {"optimizer.learning_rate": 0.1}),
        (("sampler", "name"), "annealing"),
        (("sampler", "first"), [{"model.nam": "fast_scnn"}]),
        (("scheduler",), {"name": "hyperband"}),
        (("scheduler",), {"name": "asha", "grace": 3}),
        (("objectives",), [{"metric": "macs", "direction": "down"}]),
        (("selection",), "best"),
    ],
)
def test_a_wrong_sweep_file_is_refused(path, value):
    schema = json.loads((ROOT / "sweeps/schemas/sweep.json").read_text())
    assert not problems(schema, SWEEP)
    assert problems(schema, changed(SWEEP, path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("base", "method", "lambda_adv"), 0.1),
        (("search", "method.lambda_adv"), "default"),
        (("search", "method.name"), ["source_only", "max_squares:MaxSquares"]),
        (("search", "batch_size"), {"low": 2, "high": 8, "when": {"model.name": "fast_scnn"}}),
        (("scheduler",), {"name": "asha", "reduction_factor": 3}),
        (("selection",), "my_own:score"),
        (("constraints",), ["fps >= 30"]),
    ],
)
def test_what_else_a_sweep_file_may_say_is_taken(path, value):
    schema = json.loads((ROOT / "sweeps/schemas/sweep.json").read_text())
    assert not problems(schema, changed(SWEEP, path, value))


def test_settings_beside_a_guest_are_open_and_others_stay_closed():
    schema = json.loads((ROOT / "sweeps/schemas/sweep.json").read_text())
    guest = changed(SWEEP, ("search", "method.name"), ["source_only", "max_squares:MaxSquares"])
    assert not problems(schema, changed(guest, ("search", "method.lambda_squares"), {"low": 0.1, "high": 1}))
    assert problems(schema, changed(SWEEP, ("search", "method.lambda_squares"), {"low": 0.1, "high": 1}))
    assert problems(schema, changed(guest, ("search", "optimzer.lr"), [0.1]))


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("method.name", METHODS),
        ("model.name", MODELS),
        ("method.discriminator", DISCRIMINATORS),
        ("data.source.dataset", DATASETS),
        ("data.augmentation", RECIPES),
    ],
)
def test_a_schema_lists_every_name_of_a_catalog_with_what_it_is(key, names):
    said = keys_of(schema_of(TrainConfig, title=""))[key][0]
    listed = {case["const"]: case["description"] for case in said["anyOf"] if "const" in case}
    assert listed.keys() == set(names)
    assert all(listed.values())


def test_a_key_has_what_it_means_its_bounds_and_its_range():
    (lr,) = keys_of(schema_of(TrainConfig, title=""))["discriminator_optimizer.lr"]
    assert (lr["type"], lr["exclusiveMinimum"], lr["default"]) == ("number", 0, 1e-4)
    assert "1e-05 to 0.001, log" in lr["description"]
    (trials,) = keys_of(sweep_schema())["budget.trials"]
    assert trials["description"].startswith("proposals to train")
    assert (trials["minimum"], trials["maximum"]) == (1, 10**6)
