"""Shells complete commands, options, names and keys: asked of real ones, those that are installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.checks.makers import load_spec
from sweeps.commands.driving import begin
from sweeps.commands.places import open_ledger
from sweeps.store import Store

ROOT = Path(__file__).parents[1]
PROGRAMS = {"segda": "from segda.cli import main", "sweeps": "from sweeps.main import main"}
ASK = {
    # What readline does at a Tab: the words, cut at `=` as it cuts them, and the function that was told to it.
    "bash": """eval "$({program} completion bash)"
        COMP_WORDS=({words}); COMP_CWORD=$(({count} - 1)); compopt() {{ echo "$2"; }}
        _{program}_completion {program}; printf '%s\\n' "${{COMPREPLY[@]}}" """,
    # The helpers of zsh's completion tell what they are given.
    "zsh": """compdef() {{}}; compadd() {{ print -l -- "[$*]" $completions; }}; _path_files() {{}}
        _describe() {{ print -l -- ${{completions_with_descriptions%%:*}}; }}
        eval "$({program} completion zsh)"; words=({words}); CURRENT={count}; _{program}_completion""",
    "fish": "{program} completion fish | source; complete -C {line}",
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """A folder with both programs of this checkout."""
    folder = tmp_path_factory.mktemp("programs")
    for name, start in PROGRAMS.items():
        file = folder / name
        file.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{start}; main()" "$@"\n')
        file.chmod(0o755)
    return folder


@pytest.fixture
def ask(programs, tmp_path):
    """Ask a shell how a line goes on; it is in an empty folder."""

    def ask(shell, line):
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        parts = line.split(" ")
        words = [piece for part in parts for piece in _cut(part)] if shell == "bash" else parts
        quoted = " ".join(f"'{word}'" for word in words)
        script = ASK[shell].format(program=parts[0], words=quoted, count=len(words), line=f"'{line}'")
        quiet = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
        }
        done = subprocess.run(
            [shell, *quiet, "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.stderr == ""
        return [said.partition("\t")[0] for said in done.stdout.splitlines() if said]

    return ask


def _cut(word):
    """Cut a word as readline does: `a=b` is `a`, `=`, `b`; nothing follows a `=` at the end."""
    before, equals, after = word.partition("=")
    return [piece for piece in (before, equals, after) if piece] or [""]


def after_equals(shell, *values):
    """Return what a shell is told behind `key=`: Bash leaves the key as it is, others replace the whole word."""
    return [value.partition("=")[2] if shell == "bash" else value for value in values]


@pytest.mark.parametrize("shell", ASK)
def test_a_shell_completes_commands_files_options_keys_and_values(ask, shell):
    def found(line):
        return [said for said in ask(shell, line) if not said.startswith("[")]

    assert {"train", "teach"} <= set(found("segda t"))
    assert found("segda train sc") == ["scenes"]
    assert found("segda train scenes --fold") == ["--folder"]
    assert set(found("segda train scenes optimizer.l")) - {"nospace"} == {"optimizer.lr="}
    assert found("segda train scenes steps=3 method.name=adv") == after_equals(shell, "method.name=adversarial")
    assert found("segda profile --runtime onn") == ["onnxruntime"]


def test_no_space_follows_a_key_that_waits_for_its_value(ask):
    assert ask("bash", "segda train scenes optimizer.l") == ["nospace", "optimizer.lr="]
    assert ask("bash", "segda train scenes method.name=adv") == ["adversarial"]


def test_zsh_puts_no_space_behind_a_key(ask):
    assert any(said.startswith("[-S  ") for said in ask("zsh", "segda train scenes optimizer.l"))


@pytest.mark.timeout(600)
def test_sweeps_are_completed_by_the_names_that_a_store_has(ask, tmp_path):
    store = Store.at(tmp_path / "runs")
    demo = ROOT / "sweeps" / "configs" / "demo.yaml"
    with open_ledger(store, None) as ledger:
        for name in ("first", "fourth"):
            begin(load_spec(demo, changes={"name": name}), ledger=ledger, source="demo.yaml")
    assert ask("bash", "sweeps show f") == ["first", "fourth"]
    assert ask("bash", "sweeps resume --store elsewhere f") == []
    assert ask("bash", "sweeps run de") == ["demo"]
    assert ask("bash", "sweeps run demo budget.tr") == ["nospace", "budget.trials="]
    assert ask("bash", "sweeps check demo base.method.name=adv") == ["adversarial"]


def test_yaml_files_and_folders_of_the_working_folder_are_completed_too(ask, tmp_path):
    (tmp_path / "scenes_at_dusk.yaml").touch()
    (tmp_path / "scenes.png").touch()
    (tmp_path / "scans").mkdir()
    assert ask("bash", "segda train sc") == ["scenes", "scans/", "scenes_at_dusk.yaml"]
