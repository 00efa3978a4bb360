"""YAML files into checked configurations; everything wrong with one is told in one line with file and line number.

Files are read by YAML 1.2's rules for plain values, which hold fewer surprises than those of version 1.1: `1e-3` is a number,
`on`, `off`, `yes` and `no` are text, `12:30` is text, and so is a date.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from segda.config_problems import Location, Problem, problems_of
from segda.errors import ConfigError

_Model = TypeVar("_Model", bound=BaseModel)
_MERGE = "tag:yaml.org,2002:merge"
_KINDS = {yaml.SequenceNode: "list", yaml.ScalarNode: "single value"}


@dataclass(frozen=True)
class Document:
    """A YAML file whose values remember their lines.

    Attributes:
        path: the file.
        data: its content.
        root: the parsed file.
    """

    path: Path
    data: dict[str, Any]
    root: yaml.Node

    def line(self, location: Location) -> int:
        """Return the line, from 1, of a value; of the closest thing around it where it is absent."""
        node, line = self.root, self.root.start_mark.line
        for key in location:
            if isinstance(node, yaml.MappingNode):
                found = [(name, value) for name, value in node.value if getattr(name, "value", None) == key]
                if not found:
                    break
                name, node = found[-1]
                line = name.start_mark.line
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
                line = node.start_mark.line
        return line + 1

    def error(self, problems: Sequence[Problem]) -> ConfigError:
        """Return the error that tells the first problem and how many more there are."""
        # A misspelled key is also a missing key: the former is the one to tell.
        ordered = sorted(problems, key=lambda problem: (problem.is_missing, self.line(problem.location)))
        first, more = ordered[0], len(ordered) - 1
        rest = f" (and {more} more)" if more else ""
        return ConfigError(f"{self.path}:{self.line(first.location)}: {first}{rest}")


def validate(document: Document, model: type[_Model]) -> _Model:
    """Check the content of a file.

    Args:
        document: the file; its `data` may have been completed since it was read.
        model: class of the configuration.

    Raises:
        ConfigError: one line: `FILE:LINE: key.path: what was expected, what came`.
    """
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise document.error(problems_of(error, model, document.data)) from error


def read_document(path: Path) -> Document:
    """Read a YAML file with the safe loader.

    Args:
        path: the file, UTF-8; it holds one mapping.

    Raises:
        ConfigError: the file is missing or unreadable, is not YAML, is not a mapping, or names a key twice; one line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from error
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if not isinstance(root, yaml.MappingNode):
                came = "the file is empty" if root is None else f"a {_KINDS[type(root)]} came"
                line = 1 if root is None else root.start_mark.line + 1
                raise ConfigError(f"{path}:{line}: expected a mapping `key: value`, {came}")
            for name, first in _duplicates(root):
                raise ConfigError(
                    f"{path}:{name.start_mark.line + 1}: {name.value}: the key is given twice, first in line "
                    f"{first.start_mark.line + 1}; keep one of them"
                )
            return Document(path, loader.construct_document(root), root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        raise ConfigError(f"{path}:{line}: not valid YAML: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{path}:{line}: not valid YAML: character {error.character!r} is not allowed") from error
    except RecursionError as error:
        raise ConfigError(f"{path}:1: not usable: the values are nested too deeply") from error


class _Loader(yaml.SafeLoader):
    """The safe loader with YAML 1.2's plain values."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as in the base class


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+0123456789."),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def _duplicates(root: yaml.Node) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """Yield (key, earlier key of the same name), in the order of the file; each node is visited once."""
    pending, visited = [root], set()
    while pending:
        node = pending.pop()
        if id(node) in visited or not isinstance(node, yaml.CollectionNode):
            continue
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            pending += reversed(node.value)
            continue
        first: dict[Any, yaml.Node] = {}
        for name, _ in node.value:
            key = name.value if isinstance(name, yaml.ScalarNode) and name.tag != _MERGE else id(name)
            if key in first:
                yield name, first[key]
            first[key] = name
        pending += [value for _, value in reversed(node.value)]
