"""Imports point upwards only in the table of CONTRIBUTING.md, and in no circle; those in functions and for types count too."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("segda", "sweeps")

Graph = Mapping[str, set[str]]


def files(root: Path) -> dict[str, Path]:
    """Return module name -> file of both packages."""
    found = {}
    for path in (path for package in PACKAGES for path in (root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root: Path) -> Graph:
    """Return module -> modules of both packages that it imports anywhere in its text."""
    known = files(root)
    return {name: {item for item in _imported(path, known) if item != name} for name, path in known.items()}


def _imported(path: Path, known: Iterable[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: name the package in full"
            for alias in node.names:
                # `from package import name`: a module of that name, else something that the package itself has.
                module = f"{node.module}.{alias.name}"
                yield from {module if module in known else str(node.module)} & set(known)
        elif isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & set(known)


def table(text: str) -> list[list[str]]:
    """Return the rows of the map: paths of files and folders, relative to the repository."""
    rows = []
    for line in text.splitlines():
        names = re.findall(r"`([^`]+)`", line.split("|")[1]) if line.startswith("| `") else []
        if names and names[0].startswith(tuple(f"{package}/" for package in PACKAGES)):
            package = names[0].partition("/")[0]
            rows.append([name if name.startswith(f"{package}/") else f"{package}/{name}" for name in names])
    return rows


def levels(root: Path, rows: list[list[str]]) -> dict[str, int]:
    """Return module -> number of its row; a file that is named itself is not counted with its folder."""
    row_of = {name.rstrip("/"): number for number, row in enumerate(rows) for name in row}
    found = {}
    for module, path in files(root).items():
        place = path.relative_to(root)
        names = [str(item) for item in (place, *place.parents) if str(item) in row_of]
        if names:
            found[module] = row_of[names[0]]
    return found


def running_back(graph: Graph, level: Mapping[str, int]) -> list[str]:
    """Return the imports of what stands further down in the table."""
    return sorted(
        f"{module} imports {imported}"
        for module, found in graph.items()
        for imported in found
        if level[imported] > level[module]
    )


def circle(graph: Graph) -> list[str]:
    """Return modules that import each other in turn; empty if there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.fixture(scope="module")
def rows():
    return table((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))


def test_every_file_has_one_row_and_every_name_in_the_table_is_there(rows):
    names = [name for row in rows for name in row]
    assert len(names) == len(set(names))
    assert [name for name in names if not (ROOT / name).exists()] == []
    assert sorted(files(ROOT).keys() - levels(ROOT, rows).keys()) == []


def test_no_import_runs_back(rows):
    graph = imports(ROOT)
    assert running_back(graph, dict.fromkeys(graph, 0) | levels(ROOT, rows)) == []


def test_there_is_no_circle():
    assert circle(imports(ROOT)) == []


def test_segda_stands_above_sweeps(rows):
    packages = [row[0].partition("/")[0] for row in rows]
    assert packages == sorted(packages)


def test_imports_inside_functions_and_for_types_are_seen(tmp_path):
    for name, text in {
        "segda/parts.py": "import os\n",
        "segda/whole.py": "def build():\n    from segda import parts\n    return parts\n",
        "sweeps/low/first.py": "if TYPE_CHECKING:\n    from sweeps.high import Thing\n",
        "sweeps/high/__init__.py": "import sweeps.low.second\n\nclass Thing: ...\n",
        "sweeps/low/second.py": "def late():\n    from sweeps.low.first import anything\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    rows = table(
        "| | |\n| --- | --- |\n| `segda/parts.py` | a |\n| `segda/whole.py` | b |\n| `sweeps/low` | c |\n| `sweeps/high` | d |\n"
    )
    graph = imports(tmp_path)
    level = levels(tmp_path, rows)
    assert level == {
        "segda.parts": 0,
        "segda.whole": 1,
        "sweeps.low.first": 2,
        "sweeps.low.second": 2,
        "sweeps.high": 3,
    }
    assert graph["segda.whole"] == {"segda.parts"}
    assert running_back(graph, level) == ["sweeps.low.first imports sweeps.high"]
    assert set(circle(graph)) == {"sweeps.high", "sweeps.low.first", "sweeps.low.second"}
