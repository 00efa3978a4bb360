"""Sweeps over students of one teacher: all trials keep to the labels that were there when the sweep was read."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from segda.datasets.external_labels import digest_in
from segda.datasets.scenes import generate_scenes
from segda.errors import ConfigError, CorruptSampleError
from segda.loading import load_data
from segda.splits import data_fingerprint, open_target
from segda.teaching import teach
from sweeps.checks.changes import Effect, changes_between
from sweeps.checks.makers import load_spec, spec_from

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "students.yaml"
SIDE = 64


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return generate_scenes(tmp_path_factory.mktemp("data") / "scenes", size=SIDE, train=2, val=1, seed=1)


@pytest.fixture
def plain(scenes, tmp_path) -> dict:
    """The example as plain data, its images small and its labels in a folder of this test."""
    found = yaml.safe_load(EXAMPLE.read_text())
    found["base"]["data"] |= {
        "height": SIDE,
        "width": SIDE,
        "cache": str(tmp_path / "cache"),
        "external_labels": {"folder": str(tmp_path / "labels")},
    }
    for domain in ("source", "target"):
        found["base"]["data"][domain]["root"] = str(scenes)
    return found


@pytest.fixture
def say(plain, tmp_path):
    """Write labels, drawn by a seed."""

    def say(seed: int = 0, name: str = "labels") -> Path:
        said = tmp_path / f"said {seed}"
        said.mkdir()
        generator = np.random.default_rng(seed)
        for image in open_target(load_data(plain["base"])).names:
            np.save(said / f"{image}.npy", generator.dirichlet(np.ones(7), (4, 4)).transpose(2, 0, 1))
        teach(plain["base"], tmp_path / name, predictions=said)
        return tmp_path / name

    return say


def test_the_example_s_trials_keep_to_the_labels_that_were_there(plain, say, tmp_path):
    digest = digest_in(say())
    path = tmp_path / "students.yaml"
    path.write_text(yaml.safe_dump(plain))
    spec = load_spec(path)
    config = spec.train_config({}, seed=3)
    assert config.data.external_labels.digest == digest
    assert data_fingerprint(config)
    stored = spec.canonical()
    # Somebody writes other labels into the folder while the sweep runs, or before it is resumed.
    (tmp_path / "labels").rename(tmp_path / "first")
    other = digest_in(say(1))
    again = spec_from(stored, where="sweep").train_config({"method.refine": False}, seed=4)
    assert again.data.external_labels.digest == digest != other
    with pytest.raises(CorruptSampleError, match="are others than those that were configured") as told:
        data_fingerprint(again)
    assert "\n" not in str(told.value)
    # Under the file as it reads now the sweep would be another one.
    changed = load_spec(path)
    found = {change.path: change.effect for change in changes_between(spec, changed)}
    assert found == {"base.data.external_labels.digest": Effect.RESULTS}
    assert changed.fingerprint() != spec.fingerprint()


def test_labels_may_be_moved(plain, say, tmp_path):
    say()
    spec = load_spec(plain)
    (tmp_path / "labels").rename(tmp_path / "moved")
    plain["base"]["data"]["external_labels"]["folder"] = str(tmp_path / "moved")
    moved = load_spec(plain)
    assert moved.fingerprint() == spec.fingerprint()
    assert moved.train_config({}, seed=0).fingerprint() == spec.train_config({}, seed=0).fingerprint()


def test_methods_without_external_labels_do_not_see_them(plain, say):
    say()
    spec = load_spec(plain)
    assert spec.train_config({"method.name": "source_only"}, seed=0).data.external_labels is None


def test_absent_labels_are_told_with_their_line(plain, tmp_path):
    path = tmp_path / "students.yaml"
    path.write_text(yaml.safe_dump(plain))
    with pytest.raises(
        ConfigError, match=r"students\.yaml:\d+: base\.data\.external_labels\.folder: no external labels in"
    ) as told:
        load_spec(path)
    number = int(str(told.value).split(":")[1])
    assert "folder:" in path.read_text().splitlines()[number - 1]


def test_students_are_a_default_once_the_base_says_where_labels_are(make_spec, say):
    base = make_spec().base
    labels = {"folder": str(say())}
    search = {"method.name": "default", "optimizer.lr": {"low": 1e-3, "high": 1e-1, "log": True}}
    without, with_labels = (
        set(make_spec(base=base | {"data": base["data"] | more}, search=search).search["method.name"].choices)
        for more in ({}, {"external_labels": labels})
    )
    assert with_labels - without == {"external_labels", "corte"}


def test_students_without_labels_and_labels_without_students_are_refused(make_spec, say):
    base = make_spec().base
    with pytest.raises(ValueError, match=r"corte learns from labels that something else has made.*`segda teach`"):
        make_spec(search={"method.name": ["source_only", "corte"]})
    labels = {"external_labels": {"folder": str(say())}}
    with pytest.raises(ValueError, match="no method of this sweep uses external labels; leave it out"):
        make_spec(base=base | {"data": base["data"] | labels})
    with pytest.raises(ValueError, match="students are compared on the labels of one teacher"):
        make_spec(search={"data.external_labels": ["a", "b"]})
