"""Every command of docs/RESULTS.md is one that the programs take as it stands there; what takes hours is checked, not run."""

import os
import re
import shlex
import sys
from pathlib import Path

import forked
import pytest

from segda.cli.overrides import changes_of
from segda.cli.profile import profile_command
from segda.cli.prune_curve import prune_curve_command
from segda.cli.teach import teach_command
from segda.cli.train import train_command
from segda.loading import load_config, network_config
from sweeps.cli.deploy import deploy_command
from sweeps.deployment.budgets import budgets_of

REPOSITORY = Path(__file__).resolve().parents[1]
TEXT = (REPOSITORY / "docs" / "RESULTS.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]


@pytest.fixture
def folder(tmp_path, labels_of_students):
    """Return a folder in which the programs are started as from a clone, with labels for students."""
    for name in ("examples", "sweeps", "benchmarks"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "camvid").mkdir()
    (tmp_path / "demo" / "scenes").mkdir(parents=True)
    (tmp_path / "scenes").mkdir()
    return tmp_path


def done(words, folder):
    environment = {**os.environ, "SEGDA_CAMVID_ROOT": str(folder / "camvid"), "PYTHONPATH": str(REPOSITORY)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    words = [word.replace("$SEGDA_CAMVID_ROOT", str(folder / "camvid")) for word in words]
    return forked.checked(words, folder=folder, environment=environment)


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("sweeps run ")])
def test_its_sweeps_are_right(command, folder):
    words = shlex.split(command)
    where = words.index("--store")
    assert "trials:" in done(["sweeps", "check", *words[2:where], *words[where + 2 :]], folder)


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith(("segda train ", "segda teach "))])
def test_its_trainings_and_teachers_are_right(command, folder, monkeypatch):
    monkeypatch.chdir(folder)
    _, name, *words = shlex.split(command.replace("$SEGDA_CAMVID_ROOT", "camvid"), comments=True)
    command = {"train": train_command, "teach": teach_command}[name]
    options = command.make_context(name, words).params
    load_config(options["config_file"], changes=options["changes"])


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("segda prune-curve ")])
def test_its_curves_take_these_options(command):
    _, name, *words = shlex.split(command)
    prune_curve_command.make_context(name, words)


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("segda profile ")])
def test_its_profiles_take_these_options(command):
    _, name, *words = shlex.split(command)
    options = profile_command.make_context(name, words).params
    assert network_config(changes_of([f"model={{name: {options['models'][0]}}}"]))


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("sweeps deploy ")])
def test_its_deployments_take_these_options_and_name_a_sweep_of_this_page(command, monkeypatch, folder):
    monkeypatch.chdir(folder)
    _, name, *words = shlex.split(command.replace("$SEGDA_CAMVID_ROOT", "camvid"))
    options = deploy_command.make_context(name, words).params
    assert any(line.startswith(f"sweeps run sweeps/configs/{options['name']}.yaml ") for line in COMMANDS)
    assert budgets_of(options["budgets"])


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("python benchmarks/")])
def test_its_benchmarks_take_these_options(command, folder):
    _, script, *arguments = shlex.split(command)
    told = done([sys.executable, script, "--help"], folder)
    assert all(word in told for word in arguments if word.startswith("--"))


def test_there_is_no_other_kind_of_command():
    known = (
        "sweeps run ",
        "sweeps report ",
        "sweeps deploy ",
        "python benchmarks/",
        "segda datasets make ",
        "segda train ",
        "segda teach ",
        "segda prune-curve ",
        "segda profile ",
    )
    assert COMMANDS
    assert all(command.startswith(known) for command in COMMANDS)
