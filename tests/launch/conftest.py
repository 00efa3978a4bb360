"""Programs that stand in for what a scheduler offers, and note how they were called."""

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Callable[[str, str], None]:
    """Put bash programs in front of PATH; each call of one is a line in `calls`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    path = [str(folder), str(Path(sys.executable).parent), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(path))

    def add(name: str, script: str) -> None:
        file = folder / name
        file.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> "$CALLS"\n{script}\n')
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    return add


@pytest.fixture
def calls(tmp_path) -> Callable[[], list[str]]:
    def read() -> list[str]:
        file = tmp_path / "calls"
        return file.read_text().splitlines() if file.exists() else []

    return read
