"""Sweeps whose trials start from a checkpoint, or learn from one: all keep to the file that was there when the sweep was read."""

import shutil
from pathlib import Path

import pytest
import yaml

from segda.datasets.scenes import generate_scenes
from segda.errors import ConfigError
from segda.files import sha256_of
from segda.testing.runs import SIDE, RunCase
from segda.training import train
from sweeps.checks.makers import load_spec, spec_from
from sweeps.planning.profiles import reachable


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("predecessors")
    root = generate_scenes(base / "scenes", size=SIDE, train=4, val=1, seed=1)
    for name, model in {"small": "fast_scnn", "large": "ddrnet_23_slim"}.items():
        case = RunCase("source_only", fields={"steps": 1, "model": {"name": model}})
        train(case.config(root, base / "cache"), lambda *_: None, folder=base / name)
    return base


@pytest.fixture
def plain(place, tmp_path) -> dict:
    for name in ("small", "large"):
        shutil.copy(place / name / "checkpoint.pt", tmp_path / f"{name}.pt")
    return {
        "name": "going_on",
        "base": {
            "data": {
                "source": {"dataset": "scenes", "domain": "urban", "root": str(place / "scenes")},
                "target": {"dataset": "scenes", "domain": "rural", "root": str(place / "scenes")},
                "height": SIDE,
                "width": SIDE,
            },
            "method": {"name": "source_only"},
            "steps": 4,
            "report_every": 2,
        },
        "search": {"optimizer.lr": "default"},
        "budget": {"trials": 2},
    }


def test_trials_keep_to_the_checkpoints_that_were_there(plain, tmp_path):
    plain["base"]["start"] = {"checkpoint": str(tmp_path / "small.pt")}
    plain["base"]["distillation"] = {"checkpoint": str(tmp_path / "large.pt")}
    plain["search"] |= {"distillation.weight": "default", "distillation.images": "default"}
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(plain))
    digest = sha256_of(tmp_path / "large.pt")
    spec = load_spec(path)
    config = spec.train_config({"distillation.weight": 0.3, "distillation.images": "target"}, seed=1)
    assert (config.distillation.weight, config.distillation.images) == (0.3, "target")
    assert config.model.name == "fast_scnn"  # the start's
    assert [architecture.model.name for architecture in reachable(spec)] == ["fast_scnn"]
    # Somebody puts another file there while the sweep runs.
    stored = spec.canonical()
    with (tmp_path / "large.pt").open("ab") as file:
        file.write(b" ")
    again = spec_from(stored, where="sweep").train_config({}, seed=1)
    assert again.distillation.digest == digest != sha256_of(tmp_path / "large.pt")
    assert load_spec(path).fingerprint() != spec.fingerprint()


def test_what_is_learned_of_a_teacher_can_be_searched(plain, tmp_path):
    """Plain data leave out predictions, and features have a temperature of their own, also in a sweep that was stored."""
    plain["base"] |= {"model": {"name": "sctnet"}, "distillation": {"checkpoint": str(tmp_path / "large.pt")}}
    plain["search"] |= {"distillation.learned": "default"}
    for spec in (
        spec_from(plain, where="sweep"),
        spec_from(spec_from(plain, where="sweep").canonical(), where="sweep"),
    ):
        found = [
            spec.train_config({"distillation.learned": learned}, seed=1).distillation
            for learned in ("predictions", "features")
        ]
        assert [(each.learned, each.temperature) for each in found] == [("predictions", 2.0), ("features", 4.0)]


def test_features_are_not_searched_for_a_network_that_cannot_learn_them(plain, tmp_path):
    plain["base"] |= {"model": {"name": "fast_scnn"}, "distillation": {"checkpoint": str(tmp_path / "large.pt")}}
    plain["search"] |= {"distillation.learned": "default"}
    with pytest.raises(ConfigError, match=r"search\.distillation\.learned.*fast_scnn cannot learn the features"):
        spec_from(plain, where="sweep")


def test_where_a_trial_starts_can_be_searched(plain, tmp_path):
    paths = [str(tmp_path / f"{name}.pt") for name in ("small", "large")]
    plain["search"] |= {"start.checkpoint": paths}
    spec = spec_from(plain, where="sweep")
    configs = [spec.train_config({"start.checkpoint": path}, seed=1) for path in paths]
    assert [config.model.name for config in configs] == ["fast_scnn", "ddrnet_23_slim"]
    assert [config.start.digest for config in configs] == [sha256_of(Path(path)) for path in paths]
    assert {architecture.model.name for architecture in reachable(spec)} == {"fast_scnn", "ddrnet_23_slim"}


@pytest.mark.parametrize(
    ("path", "message"), [("start.digest", "follows from the checkpoint"), ("model.widths", "search start.checkpoint")]
)
def test_what_follows_from_a_checkpoint_cannot_be_searched(plain, path, message):
    plain["search"] |= {path: ["a", "b"]}
    with pytest.raises(ConfigError, match=message):
        spec_from(plain, where="sweep")
