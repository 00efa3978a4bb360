"""Every command and the program of docs/automation.md run, in their order, in an empty folder, and print what the page says."""

import json
import os
import re
import shlex
import sys
from pathlib import Path

import forked
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "sweeps"))  # documented.py

from documented import PAGE, differences  # noqa: E402 - it lies beside the tests of sweeps

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def run(words: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "SEGDA_CACHE": str(folder / "cache")}
    environment["PATH"] = f"{forked.programs()}{os.pathsep}{environment['PATH']}"
    return forked.checked(words, folder=folder, environment=environment)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_everything_on_the_page_runs(tmp_path):
    seen = set()
    for language, text in BLOCKS:
        if language == "yaml":
            (tmp_path / "one.yaml").write_text(text)
        elif language == "python":
            (tmp_path / "drive.py").write_text(text)
            told = run([sys.executable, "drive.py"], tmp_path)
            assert "0 complete {'optimizer.lr': 0.01}" in told
        for line in text.splitlines() if language == "sh" else ():
            told = run(shlex.split(line), tmp_path)
            if "--json" in line:
                found = json.loads(told)
                assert differences(found) == [], line
                seen.add(found["schema"])
            else:
                assert told, line
    assert seen >= {
        "sweeps.plan/1",
        "sweeps.status/1",
        "sweeps.trial/1",
        "sweeps.report/1",
        "sweeps.audit/1",
        "sweeps.profile/1",
    }


def test_readme_leads_to_the_page():
    assert "](docs/automation.md)" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
