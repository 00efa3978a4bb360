"""What both command lines share: they answer at once, and what they tell to type works."""

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from segda import exit_codes as segda_codes
from segda.cli import cli as segda_cli
from segda.cli_command import Command
from segda.lazy import imported
from sweeps import exit_codes as sweeps_codes
from sweeps.cli import sweeps as sweeps_cli

REPOSITORY = Path(__file__).resolve().parents[1]
PROGRAMS = {"segda": segda_cli, "sweeps": sweeps_cli}


def commands(command, words=()):
    """Yield the commands under one, with the words that call them."""
    yield words, command
    if isinstance(command, click.Group):
        for name, part in command.commands.items():
            yield from commands(part, (*words, name))


COMMANDS = {
    " ".join((program, *words)): command for program, group in PROGRAMS.items() for words, command in commands(group)
}
WORKING = {name: command for name, command in COMMANDS.items() if not isinstance(command, click.Group)}
MISTAKES = {
    "segda": (
        "trian",
        "train --stepz 3",
        "train x.yaml --data-root camvid",
        "predict",
        "export a.pt b.onnx --size large",
        "export a.pt b.onnx --batch none",
        "profile --model stdc",
        "datasets verfy",
        "predict a.pt {here} out.zip --submission loveda --overlay",
        "predict a.pt {here} out.tif --bands red",
    ),
    "sweeps": (
        "rum",
        "run my_sweep.yaml --trails 3",
        "run my_sweep.yaml --trials none",
        "run my_sweep.yaml --data-root camvid",
        "run my_sweep.yaml steps",
        "stop",
        "status --watch never",
        "status --json --watch 3",
        "show demo --config",
        "export demo",
        "report demo --oracle",
    ),
}
HEAVY = (
    "torch",
    "numpy",
    "pandas",
    "sklearn",
    "scipy",
    "matplotlib",
    "optuna",
    "ray",
    "mlflow",
    "sqlalchemy",
    "rasterio",
)

# Gives each line of words to a program, and writes what was imported after it, and how it ended.
ANSWER = """
import json, shlex, sys
from segda.cli_errors import run_cli
from segda.lazy import imported
program, heavy, lines = json.loads(sys.argv[1])
program, seen = imported(program), []
for line in lines:
    try:
        run_cli(program, shlex.split(line))
    except SystemExit as ended:
        seen.append([line, ended.code, [name for name in heavy if name in sys.modules]])
print(json.dumps(seen), file=sys.__stderr__)
"""


def python(*words, folder):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "SEGDA_CACHE": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.parametrize(("program", "group"), [("segda", "segda.cli:cli"), ("sweeps", "sweeps.cli:sweeps")])
def test_help_and_mistakes_are_answered_without_what_takes_seconds_to_import(program, group, tmp_path):
    helps = [" ".join((*name.split()[1:], "--help")) for name in COMMANDS if name.split()[0] == program]
    mistakes = [line.format(here=shlex.quote(str(tmp_path))) for line in MISTAKES[program]]
    words = json.dumps([group, HEAVY, ["--version", *helps, *mistakes]])
    done = python("-c", ANSWER, words, folder=tmp_path)
    seen = json.loads(done.stderr.splitlines()[-1])
    assert [line for line, _, modules in seen if modules] == []
    codes = [code for _, code, _ in seen]
    assert codes == [0] * (1 + len(helps)) + [2] * len(mistakes), done.stderr


# Completion is answered by the module that describes it, which is all that a Tab imports.
@pytest.mark.parametrize("name", [name for name in WORKING if not name.endswith(" completion")])
def test_what_a_command_does_takes_the_arguments_that_it_describes(name):
    command = WORKING[name]
    assert isinstance(command, Command)
    described = {parameter.name for parameter in command.params}
    assert set(inspect.signature(imported(command.action)).parameters) == described
    checked = inspect.signature(command.callback).parameters.values()
    assert {item.name for item in checked if item.kind is not item.VAR_KEYWORD} <= described


def test_arguments_are_checked_before_the_action_is_imported():
    @click.command("join", cls=Command, action="no_such_module:join")
    @click.argument("words", nargs=-1)
    def join_command(words):
        if not words:
            raise click.UsageError("nothing to join")

    with pytest.raises(click.UsageError, match="nothing to join"):
        join_command.main([], standalone_mode=False)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        join_command.main(["a"], standalone_mode=False)


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3)])
def test_what_an_action_returns_is_the_exit_code(returned, code, monkeypatch):
    monkeypatch.setattr("segda.cli_command.imported", {"some:action": lambda: returned}.get)
    with pytest.raises(SystemExit) as ended:
        Command("some", action="some:action").main([])
    assert ended.value.code == code


@pytest.mark.parametrize("module", ["segda", "sweeps", "sweeps.main"])
def test_python_runs_the_programs_too(module, tmp_path):
    done = python("-m", module, "--help", folder=tmp_path)
    program = module.partition(".")[0]
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: {program} ")
    done = python("-m", module, "no-such-command", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"Error: No such command 'no-such-command'. See '{program} --help'.\n"


def test_every_place_tells_the_same_exit_codes():
    told = {str(code): meaning for code, meaning in sweeps_codes.MEANINGS.items()}
    failures = (REPOSITORY / "docs" / "failures.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+?) \| .+ \|$", failures, flags=re.MULTILINE)
    assert dict(rows) == told
    readme = " ".join((REPOSITORY / "README.md").read_text().split())
    assert f"Exit codes: {'; '.join(f'{code} {meaning}' for code, meaning in told.items())}." in readme
    own = segda_codes.MEANINGS
    assert set(own) <= set(sweeps_codes.MEANINGS)
    for text in (readme, " ".join(failures.split())):
        assert f"`segda` has 0, 1 ({own[segda_codes.BUG]}), 2 and 130 of them." in text


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_help_tells_every_exit_code(program):
    context = click.Context(PROGRAMS[program], info_name=program, terminal_width=200, max_content_width=200)
    _, _, table = PROGRAMS[program].get_help(context).partition("Exit codes:\n")
    codes = {"segda": segda_codes, "sweeps": sweeps_codes}[program].MEANINGS
    assert [line.split(None, 1) for line in table.splitlines()] == [[str(code), text] for code, text in codes.items()]
