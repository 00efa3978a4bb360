"""What is installed from a wheel, and that shipped configurations are found by name."""

import inspect
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from segda.cli import cli as segda_cli
from segda.errors import ConfigError
from segda.loading import load_config
from sweeps.checks.makers import load_spec
from sweeps.cli import sweeps as sweeps_cli

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def sources():
    """Return the names of the files that the packages are made of."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "segda", "sweeps"], cwd=REPOSITORY, capture_output=True, check=False
    )
    names = [name for name in listed.stdout.decode().split("\0") if name and (REPOSITORY / name).is_file()]
    if not names:
        pytest.skip("needs a checkout: which files belong to the sources is asked of git")
    return names


@pytest.fixture(scope="module")
def wheel(sources, tmp_path_factory):
    """Build a wheel of a copy of the sources, as anybody would."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in (*sources, "pyproject.toml", "README.md", "LICENSE"):
        (folder / "sources" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "sources" / name).write_bytes((REPOSITORY / name).read_bytes())
    words = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        folder / "built",
        folder / "sources",
    ]
    built = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = (folder / "built").glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Install the wheel into an empty environment that finds the other packages where they are; return where its commands lie."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=False)
    words = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--no-deps", "--no-index"]
    done = subprocess.run([*map(str, words), wheel.filename], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # A path file leads to the packages, and not to what path files among these lead to, such as a checkout.
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return folder / "bin"


def first_lines(program):
    """Return the lines of a program's help that are for the first minute."""
    block = re.search(r"^A first .*\n((?:  .*\n?)+)", inspect.cleandoc(program.help), flags=re.MULTILINE)
    return [shlex.split(line) for line in block[1].splitlines()]


def run_lines(lines, programs, folder):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for verb, *words in lines:
        done = subprocess.run(
            [programs / verb, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{verb} {shlex.join(words)}\n{done.stdout}\n{done.stderr}"


def test_a_wheel_has_everything_that_the_packages_hold(sources, wheel):
    there = set(wheel.namelist())
    assert [name for name in sources if name not in there and not name.endswith("ruff.toml")] == []


def test_a_wheel_gives_both_commands_and_mlflows_page(wheel):
    (entries,) = (wheel.read(name).decode() for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "segda = segda.cli:main" in entries
    assert "sweeps = sweeps.main:main" in entries
    assert "[mlflow.app]\nsweeps = sweeps.tracking.app:create_app" in entries


def test_an_installed_wheel_is_what_runs(installed, tmp_path):
    where = "import segda, sweeps; print(segda.__file__, sweeps.__file__)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    shown = subprocess.run(
        [installed / "python", "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert [Path(path).is_relative_to(installed.parent) for path in shown.stdout.split()] == [True, True], shown.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_first_example_of_segda_works_in_an_empty_folder_from_a_wheel(installed, tmp_path):
    lines = first_lines(segda_cli)
    assert [line[:2] for line in lines] == [["segda", "datasets"], ["segda", "train"], ["segda", "predict"]]
    run_lines([line + (["steps=12"] if line[1] == "train" else []) for line in lines], installed, tmp_path)
    assert (tmp_path / "runs" / "first" / "result.json").is_file()
    tiles = {path.stem for path in (tmp_path / "data" / "scenes" / "Val" / "Rural" / "images_png").iterdir()}
    assert {path.stem for path in (tmp_path / "classes").glob("*.png")} == tiles | {f"{name}_overlay" for name in tiles}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_first_example_of_sweeps_finds_its_file_and_data_from_a_wheel(installed, tmp_path):
    # The sweep itself takes minutes; tests/test_readme.py runs one of the same file.
    make, run = first_lines(sweeps_cli)
    assert run[:3] == ["sweeps", "run", "demo"]
    run_lines([make, ["sweeps", "check", *run[2:]]], installed, tmp_path)


def test_shipped_files_are_found_by_name_unless_one_of_that_name_is_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("scenes").data.source.dataset == load_config("scenes.yaml").data.source.dataset == "scenes"
    assert load_spec("demo").name == load_spec("demo.yaml").name == "demo"
    (tmp_path / "demo.yaml").write_text("name: [")
    with pytest.raises(ConfigError, match=r"^demo.yaml:1"):
        load_spec("demo.yaml")
    with pytest.raises(ConfigError, match=r"^configs/demo.yaml: there is no such file"):
        load_spec("configs/demo.yaml")
