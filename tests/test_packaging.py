"""What is installed from a wheel, and that shipped configurations are found by name."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from segda.errors import ConfigError
from segda.loading import load_config
from sweeps.checks.makers import load_spec

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


def test_a_wheel_has_everything_that_the_packages_hold(sources, wheel):
    there = set(wheel.namelist())
    assert [name for name in sources if name not in there and not name.endswith("ruff.toml")] == []


def test_a_wheel_gives_both_commands_and_mlflows_page(wheel):
    (entries,) = (wheel.read(name).decode() for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "segda = segda.cli:main" in entries
    assert "sweeps = sweeps.main:main" in entries
    assert "[mlflow.app]\nsweeps = sweeps.tracking.app:create_app" in entries


def test_shipped_files_are_found_by_name_unless_one_of_that_name_is_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("scenes").data.source.dataset == load_config("scenes.yaml").data.source.dataset == "scenes"
    assert load_spec("demo").name == load_spec("demo.yaml").name == "demo"
    (tmp_path / "demo.yaml").write_text("name: [")
    with pytest.raises(ConfigError, match=r"^demo.yaml:1"):
        load_spec("demo.yaml")
    with pytest.raises(ConfigError, match=r"^configs/demo.yaml: there is no such file"):
        load_spec("configs/demo.yaml")
