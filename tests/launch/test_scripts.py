import shutil
import subprocess

import pytest

from .conftest import REPOSITORY

SCRIPTS = sorted(
    path
    for folder in ("docker", "launch")
    for path in (REPOSITORY / folder).rglob("*")
    if path.is_file() and "secrets" not in path.parts and "bash" in path.read_text().split("\n")[0]
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_is_valid_bash(script):
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    done = subprocess.run(
        ["shellcheck", "-x", *map(str, SCRIPTS)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert len(SCRIPTS) >= 8
    assert done.returncode == 0, done.stdout
