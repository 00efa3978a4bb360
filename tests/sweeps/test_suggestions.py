"""Every command that the programs tell people to type next exists, with those arguments and options, and is quoted in one place."""

import ast
import itertools
import re
from pathlib import Path

import click
import pytest

from sweeps import suggestions
from sweeps.cli import sweeps as program

ROOT = Path(__file__).resolve().parents[2]
FILES = [path for package in ("segda", "sweeps") for path in sorted((ROOT / package).rglob("*.py"))]
# Those that write a command, and what they put between its name and what they are given.
MAKERS = {"suggest": (), "command": (), "_command": ("NAME",)}
FILLED = {"TRIAL": "1", "H": "1", "C": "1", "N": "20"}
HAND_WRITTEN = re.compile(rf"`sweeps [a-z]|\bsweeps ({'|'.join(program.list_commands(click.Context(program)))}) \S")


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def values_of(node, tree):
    """Return the texts that an argument may be; any other value is filled in."""
    match node:
        case ast.Constant(value=str()):
            return [node.value]
        case ast.IfExp():
            return values_of(node.body, tree) + values_of(node.orelse, tree)
        case ast.Name():
            given = [
                item.value
                for item in ast.walk(tree)
                if isinstance(item, ast.Assign)
                and any(isinstance(to, ast.Name) and to.id == node.id for to in item.targets)
            ]
            found = [text for value in given if isinstance(value, ast.IfExp) for text in values_of(value, tree)]
            return found or ["1"]
    return ["1"]


def suggested():
    """Yield (file and line, words) of every call that writes a command whose name is a literal."""
    for path in FILES:
        tree = tree_of(path)
        for node in ast.walk(tree):
            name = getattr(getattr(node, "func", None), "attr", getattr(getattr(node, "func", None), "id", None))
            if name not in MAKERS or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            if isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "").endswith(("click", "group")):
                continue
            plain = [item for item in node.args[1:] if not isinstance(item, ast.Starred)]
            for rest in itertools.product(*(values_of(item, tree) for item in plain)):
                trial = ["TRIAL"] if name == "_command" and path.name == "trial_details.py" else []
                yield f"{path.relative_to(ROOT)}:{node.lineno}", [node.args[0].value, *MAKERS[name], *trial, *rest]


SUGGESTED = [pytest.param(words, id=f"{place}-{' '.join(words)}") for place, words in suggested()]


def test_there_are_suggestions_of_all_kinds():
    verbs = {param.values[0][0] for param in SUGGESTED}
    assert {"run", "resume", "stop", "show", "deploy", "sync", "ui", "delete", "rename"} <= verbs
    assert ["resume", "1", "--gpu-hours", "H"] in [param.values[0] for param in SUGGESTED]


@pytest.mark.parametrize("words", SUGGESTED)
def test_a_suggested_command_exists_with_its_options(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("1", "FILE"):
        (tmp_path / name).touch()
    place = suggestions.Place(store=tmp_path, ledger="postgresql://host/db")
    verb, *rest = place.command(*words).split()[1:]
    command = program.get_command(click.Context(program), verb)
    assert command is not None, verb
    command.make_context(verb, [FILLED.get(word, word) for word in rest])


def docstrings(tree):
    """Return the nodes of texts that people read in the code or as help."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found.add(id(node.value))
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "examples":
            found |= {id(item) for item in node.args}
    return found


def texts(tree):
    """Yield (line, text) of what is written out, with what is filled in as `{}`."""
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    exempt = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in exempt | inner:
            yield node.lineno, node.value


@pytest.mark.parametrize("text", ["go on with `sweeps resume {name}`", "say sweeps delete NAME"])
def test_a_command_written_by_hand_is_seen(text):
    tree = ast.parse(f"tell(f'{text}')")
    assert [line for line, said in texts(tree) if HAND_WRITTEN.search(said)] == [1]
    assert not [said for _, said in texts(ast.parse(f'def f():\n    """{text}"""\n')) if HAND_WRITTEN.search(said)]


def test_no_message_has_a_command_written_by_hand():
    assert [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in FILES
        if path not in (Path(suggestions.__file__), ROOT / "sweeps" / "exit_codes.py")  # the latter is help
        for line, text in texts(tree_of(path))
        if HAND_WRITTEN.search(text)
    ] == []


def test_no_page_has_a_command_written_by_hand():
    pages = sorted((ROOT / "sweeps" / "reports" / "templates").glob("*.j2"))
    assert len(pages) > 3
    assert [page.name for page in pages if HAND_WRITTEN.search(page.read_text(encoding="utf-8"))] == []
