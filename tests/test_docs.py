"""Every command, Python snippet and YAML of docs/ is right; what takes seconds runs, on a network, data and a sweep made once.

What takes longer is checked as far as its arguments say: `sweeps run` as `sweeps check`, trainings up to their configuration, the
rest up to its options. Their own tests run them: tests/test_readme.py, tests/segda, tests/sweeps and tests/test_examples.py.
"""

import ast
import doctest
import importlib
import inspect
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
import torch
import yaml

import segda
import sweeps
from segda import guests
from segda.cli import cli as segda_cli
from segda.cli_errors import run_cli
from segda.datasets.description import Description
from segda.loading import load_config
from sweeps.checks.makers import spec_from
from sweeps.cli import sweeps as sweeps_cli
from sweeps.file.spec import SweepSpec

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
# These have tests of their own.
OTHERS = ("RESULTS.md", "automation.md")
PAGES = sorted(path.stem for path in DOCS.glob("*.md") if path.name not in OTHERS)
PROGRAMS = {"segda": segda_cli, "sweeps": sweeps_cli}
QUICK = (
    "segda datasets list",
    "segda datasets recipes",
    "segda datasets get",
    "segda datasets verify",
    "segda evaluate",
    "segda predict",
    "segda slim",
    "segda share-weights",
    "segda prune-curve",
    "segda teach",
    "segda export",
    "sweeps check",
    "sweeps status",
    "sweeps show",
    "sweeps logs",
    "sweeps report",
    "sweeps pick",
    "sweeps export",
    "sweeps clean",
    "sweeps rename",
    "sweeps delete",
)


def blocks(page, language):
    text = (DOCS / f"{page}.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(page):
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    lines = [line.split(" # ")[0].split("  #")[0].strip() for line in lines]
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder that looks like a clone after `make demo` and the first commands: scenes, a trained network, a finished sweep."""
    home = tmp_path_factory.mktemp("docs")
    sys.path.insert(0, str(REPOSITORY / "tests" / "sweeps"))
    finished_sweep = importlib.import_module("small_sweep").finished_sweep
    sys.path.pop(0)
    before = list(sys.path)
    store = finished_sweep(home, name="first")
    (home / "demo").mkdir()
    (home / "scenes").rename(home / "demo" / "scenes")
    (home / "demo" / "one").mkdir()
    checkpoint = next(store.root.glob("first/trials/*/**/checkpoint.pt"))
    shutil.copy(checkpoint, home / "demo" / "one" / "checkpoint.pt")
    yield home
    sys.path[:] = before


@pytest.fixture
def folder(home, tmp_path, monkeypatch):
    """A copy of it for one page, in which the process is."""
    folder = tmp_path / "home"
    shutil.copytree(home, folder)
    for name in ("examples", "sweeps", "benchmarks"):
        (folder / name).symlink_to(REPOSITORY / name)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SEGDA_CACHE", str(folder / "cache"))
    monkeypatch.setenv("SEGDA_SCENES_ROOT", str(folder / "demo" / "scenes"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "path", list(sys.path))
    guests.make_importable([REPOSITORY / "examples" / "own"])
    return folder


def parsed(words):
    """Return the command, its name and the values of its options as click reads them."""
    program, *rest = words
    command, name = PROGRAMS[program], program
    while isinstance(command, click.Group):
        word, *rest = rest
        name = f"{name} {word}"
        found = command.get_command(click.Context(command), word)
        assert found is not None, f"there is no command {name}"
        command = found
    return name, command.make_context(name, rest).params


def run(words, capfd):
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_cli(PROGRAMS[words[0]], words[1:])
    said = capfd.readouterr()
    assert ended.value.code == 0, f"{shlex.join(words)}\n{said.out}\n{said.err}"


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_commands(page, folder, capfd):
    for command in commands(page):
        words = [os.path.expandvars(word) for word in shlex.split(command)]
        words[0] = words[0].removeprefix(".venv/bin/")
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE), command
        elif words[0] == "python":
            assert (folder / words[1]).is_file(), command
        elif words[0] in PROGRAMS:
            name, options = parsed(words)
            if name == "sweeps run" and options["file"].is_file():
                # Words KEY=VALUE, and the options that `sweeps check` has, too.
                kept = [word for before, word in pairwise(words) if "=" in word and not before.startswith("--")]
                kept += _with_values(words, "--data-root")
                run(["sweeps", "check", str(options["file"]), *map(str, kept)], capfd)
            elif name == "segda train":
                load_config(options["config_file"], changes=options["changes"])
            elif name.startswith(QUICK) or (name == "segda datasets make scenes" and not options["root"].exists()):
                run(words, capfd)
        else:
            assert command == ". .venv/bin/activate"


def _with_values(words, option):
    return [part for word, value in pairwise(words) if word == option for part in (word, value)]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python(page, folder, monkeypatch):
    # Ray takes ten seconds: tests/test_readme.py runs these. Here they get arguments that they take, and the sweep is there.
    for name in ("run", "resume"):
        signature = inspect.signature(getattr(sweeps, name))
        monkeypatch.setattr(sweeps, name, lambda *args, _known=signature, **options: _bound(_known, args, options))
    names = {}
    for number, block in enumerate(blocks(page, "python"), 1):
        exec(compile(block, f"{page}.md, snippet {number}", "exec"), names)


def _bound(signature, args, options):
    signature.bind(*args, **options)
    return SimpleNamespace(is_done=True)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")])
def test_yaml(page, folder):
    for text in blocks(page, "yaml"):
        said = yaml.safe_load(text)
        if "classes" in said:
            Description.model_validate(said)
        elif set(said) <= set(SweepSpec.model_fields):
            spec_from(_around(said, _SWEEP), where=page)
        else:
            segda.load_config(_around(said, _TRAINING))


_TRAINING = {
    "data": {
        "source": {"dataset": "scenes", "domain": "urban"},
        "target": {"dataset": "scenes", "domain": "rural"},
        "height": 64,
        "width": 64,
    },
    "method": {"name": "adversarial"},
    "steps": 20,
}
_SWEEP = {
    "name": "page",
    "base": _TRAINING,
    "search": {"optimizer.lr": [0.01, 0.02]},
    "budget": {"trials": 2},
}


def _around(said, whole):
    """Return a whole file of which a page shows a part; what is shown stands as it is."""
    return {
        **whole,
        **{
            key: _around(value, whole[key]) if key in ("data", "base") and key in whole else value
            for key, value in said.items()
        },
    }


def texts():
    """Return all texts of the programs, those with values in them in pieces."""
    found = set()
    for program in PROGRAMS:
        for path in (REPOSITORY / program).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
    return "\0".join(found)


@pytest.mark.parametrize("page", ["failures", "own_data"])
def test_the_programs_say_the_messages_of_a_page(page):
    said = texts()
    tables = re.findall(r"^\| message \|.*\n\|.*\n((?:\|.*\n)+)", (DOCS / f"{page}.md").read_text(), flags=re.MULTILINE)
    messages = [message for table in tables for message in re.findall(r"^\| `(.+?)` \|", table, flags=re.MULTILINE)]
    assert len(messages) > 10
    strange = [message for message in messages if not all(piece.strip() in said for piece in message.split("…"))]
    assert not strange


def test_every_section_of_a_report_is_explained():
    template = (REPOSITORY / "sweeps" / "reports" / "templates" / "report.html.j2").read_text()
    sections = re.findall(r"<h[23][^>]*>([^<{]+)</h[23]>", template)
    headings = re.findall(r"^#{2,4} (.+)$", (DOCS / "report.md").read_text(), flags=re.MULTILINE)
    own = {"No pick yet", "Learning curves", "Parameters and what came of them", "Importance of the parameters"}
    inner = {
        "What each method is worth",
        "Classes of failure",
        "Architectures that were never trained",
        "Which values failed more than others",
    }
    assert not {section.strip() for section in sections} - set(headings) - own - inner


@pytest.fixture(scope="module")
def tables():
    sys.path.insert(0, str(DOCS))
    yield importlib.import_module("tables")
    sys.path.remove(str(DOCS))


def test_the_pages_ask_for_tables_that_there_are_and_for_all_of_them(tables):
    asked = [
        name
        for page in PAGES
        for name in re.findall(r"^<!-- table: (\S+) -->$", (DOCS / f"{page}.md").read_text(), flags=re.MULTILINE)
    ]
    assert set(asked) == set(tables.TABLES)


@pytest.mark.parametrize(
    ("table", "catalog"),
    [
        ("methods", segda.METHODS),
        ("networks", segda.MODELS),
        ("discriminators", segda.DISCRIMINATORS),
        ("datasets", segda.DATASETS),
        ("recipes", segda.RECIPES),
        ("losses", segda.LOSSES),
        ("validators", segda.VALIDATORS),
    ],
)
def test_a_table_has_every_name_of_its_catalog(table, catalog, tables, monkeypatch):
    # The build of the site measures; here the shapes of layers are enough.
    monkeypatch.setattr(tables, "count_macs", lambda network, *, input_shape: math.prod(input_shape))
    with torch.device("meta"):
        rows = tables.TABLES[table]().splitlines()[2:]
    assert set(catalog) <= {row.split("`")[1] for row in rows}


def test_examples_of_the_tables_hold(tables):
    assert doctest.testmod(tables) == (0, 2)


def test_a_table_says_of_a_key_what_the_class_says(tables):
    rows = {row.split("`")[1]: row for row in tables.training().splitlines() if row.startswith("| `")}
    assert rows["batch_size"].split(" | ")[1:4] == ["whole number; ≥ 2, ≤ 4,096", "`4`", "`4`, `8`, `16`"]
    assert "required" in rows["steps"]
    assert {"method.lambda_adv", "data.source.domain", "pruning.segmenter.schedule.end", "distillation.weight"} <= set(
        rows
    )
    rows = {row.split("`")[1]: row for row in tables.sweep_file().splitlines() if row.startswith("| `")}
    assert {
        "budget.trials",
        "sampler.name",
        "scheduler.reduction_factor",
        "search.PATH.when",
        "objectives[].metric",
    } <= set(rows)


def test_make_docs_fails_by_a_broken_link_and_an_unknown_table(tmp_path):
    (line,) = re.findall(r"-m mkdocs (build .*)", (REPOSITORY / "Makefile").read_text())
    whole = (REPOSITORY / "mkdocs.yml").read_text()
    (tmp_path / "mkdocs.yml").write_text(whole.partition("\nnav:")[0] + "\n")
    (tmp_path / "docs").mkdir()
    for name in ("hooks.py", "tables.py", "site.css"):
        shutil.copy(DOCS / name, tmp_path / "docs")
    shutil.copy(REPOSITORY / "LICENSE", tmp_path)
    (tmp_path / "docs" / "index.md").write_text(
        "# Page\n\n[a](missing.md) [b](../gone.md) [c](#nowhere) [d](../LICENSE) `[e](../code.md)`\n\n<!-- table: none -->\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", *line.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode != 0
    warnings = [line for line in done.stderr.splitlines() if line.startswith("WARNING")]
    assert len(warnings) == 4
    for wrong in ("missing.md", "../gone.md", "#nowhere", "'none'"):
        assert any(wrong in warning for warning in warnings)
    assert "MIT License" in (tmp_path / "site" / "repository" / "LICENSE.html").read_text()
