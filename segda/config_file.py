"""YAML files into checked configurations; everything wrong with one is told in one line with file and line number.

Files are read by YAML 1.2's rules for plain values, which hold fewer surprises than those of version 1.1: `1e-3` is a number,
`on`, `off`, `yes` and `no` are text, `12:30` is text, and so is a date.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from segda.config_problems import Location, Problem, problems_of, shortened
from segda.errors import ConfigError
from segda.files import expanded
from segda.plain_data import MOST_DIGITS, Budget, check_key, check_text

_Model = TypeVar("_Model", bound=BaseModel)
_LARGEST_FILE = 128 * 1024  # bytes; reading as much takes seconds
_LONGEST_PATH = 200  # characters of a path that is none
_TAG = "tag:yaml.org,2002:"
_TEXT, _MAP, _SEQUENCE, _MERGE = f"{_TAG}str", f"{_TAG}map", f"{_TAG}seq", f"{_TAG}merge"
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


def configuration_path(source: Path | str, *, shipped: Path) -> Path:
    """Return the file that is meant: as it is named, or else, of a name without a folder, one that comes with the installation.

    Args:
        source: path, or the name of a shipped file with or without `.yaml`.
        shipped: folder of these.

    Example:
        >>> configuration_path("scenes", shipped=Path(__file__).parent / "configs").name
        'scenes.yaml'
    """
    path = expanded(source)
    if path.name == str(path) and not path.exists():
        found = shipped / (path if path.suffix == ".yaml" else f"{path}.yaml")
        if found.is_file():
            return found
    return path


def read_document(path: Path) -> Document:
    """Read a YAML file; it can hold what `segda.plain_data` says, and tags name nothing else.

    Args:
        path: the file, UTF-8; it holds one mapping.

    Raises:
        ConfigError: the file is missing or unreadable, is not YAML, is not a mapping, names a key twice, or holds something else
            than plain data; one line.
    """
    text = _text_of(path)
    try:
        root = _composed(text)
        if not isinstance(root, yaml.MappingNode):
            came = "the file is empty" if root is None else f"a {_KINDS[type(root)]} came"
            raise _NotUsable(root, f"expected a mapping `key: value`, {came}")
        for name, first in _duplicates(root):
            raise _NotUsable(
                name,
                f"{shortened(name.value)}: the key is given twice, first in line {first.start_mark.line + 1}; keep one of them",
            )
        return Document(path, _Values().value(root), root)
    except _NotUsable as error:
        raise ConfigError(f"{path}:{error.line}: {error}") from error


def parse_value(text: str) -> Any:
    """Read one value as it would stand in a file.

    Args:
        text: a number, a text, `{key: value}`, ...

    Raises:
        ConfigError: it is no YAML, or something else than plain data.

    Example:
        >>> parse_value("1e-3"), parse_value("{name: bisenet_v1}"), parse_value("")
        (0.001, {'name': 'bisenet_v1'}, None)
    """
    try:
        root = _composed(text)
        if root is None:
            return None
        for name, _ in _duplicates(root):
            raise _NotUsable(name, f"the key {shortened(name.value)} is given twice; keep one of them")
        return _Values().value(root)
    except _NotUsable as error:
        raise ConfigError(str(error)) from error


class _NotUsable(ValueError):
    """What is wrong, and the line."""

    def __init__(self, at: yaml.Node | int | None, text: str) -> None:
        super().__init__(text)
        self.line = at.start_mark.line + 1 if isinstance(at, yaml.Node) else at or 1


def _text_of(path: Path) -> str:
    """Return what a file says, without waiting for anybody: a pipe may never end, and a device neither."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"{path}: cannot be read: it is a pipe or a device; name a file")
            content = file.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise ConfigError(
                f"{path}: is larger than {_LARGEST_FILE // 1024} KiB, so it is no configuration; name another file"
            )
        return content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file") from error
    except OSError as error:
        raise ConfigError(f"{_named(path)}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from error
    except ValueError as error:  # a path with a character that no file name has
        raise ConfigError(f"{_named(path)}: cannot be read: {error}") from error


def _named(path: Path) -> str:
    return shortened(str(path).replace("\0", "?"), longest=_LONGEST_PATH)


def _composed(text: str) -> yaml.Node | None:
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _NotUsable(line, f"not valid YAML: character {error.character!r} is not allowed") from error
    try:
        root: yaml.Node | None = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        raise _NotUsable(line, f"not valid YAML: {error.problem or error.context}") from error
    except (ValueError, OverflowError) as error:  # escapes that stand for no character, versions of thousands of digits
        raise _NotUsable(loader.line + 1, f"not valid YAML: {error}") from error
    except RecursionError as error:
        raise _NotUsable(1, "not usable: the values are nested too deeply") from error
    finally:
        loader.dispose()
    return root


class _Values:
    """Turns the nodes of one file into plain data; what an alias names is copied."""

    def __init__(self) -> None:
        self._budget = Budget()

    def value(self, node: yaml.Node, depth: int = 0) -> Any:
        try:
            self._budget.spend(depth)
            if isinstance(node, yaml.ScalarNode):
                return _scalar(node)
        except ValueError as error:
            raise _NotUsable(node, str(error)) from error
        if node.tag not in (_MAP, _SEQUENCE):
            raise _NotUsable(node, _unknown_tag(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        return [self.value(item, depth + 1) for item in node.value]

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for name, below in node.value:
            if name.tag == _MERGE:
                # Of several, an earlier one counts more.
                for item in below.value if isinstance(below, yaml.SequenceNode) else [below]:
                    found = self.value(item, depth + 1)
                    if not isinstance(found, dict):
                        raise _NotUsable(item, "not valid YAML: `<<` takes a mapping, or a list of mappings")
                    merged = found | merged
            else:
                own[_key(name)] = self.value(below, depth + 1)
        return merged | own


def _key(name: yaml.Node) -> str:
    if not isinstance(name, yaml.ScalarNode):
        raise _NotUsable(name, "a key must be text, got a list or a mapping")
    if name.tag != _TEXT:
        raise _NotUsable(
            name, f"a key must be text, and {shortened(name.value)!r} is none without quotes; put it in quotes"
        )
    try:
        return check_key(name.value)
    except ValueError as error:
        raise _NotUsable(name, str(error)) from error


def _unknown_tag(node: yaml.Node) -> str:
    return f"the tag {shortened(node.tag.replace(_TAG, '!!'))} is not known here; leave it out"


def _scalar(node: yaml.ScalarNode) -> Any:
    """Return a single value; a tag counts only if the value is written as the tag says."""
    kind, text = node.tag.removeprefix(_TAG), node.value
    if node.tag == _TEXT:
        return check_text(text)
    if kind not in _PATTERNS:
        raise ValueError(_unknown_tag(node))
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number must have at most {MOST_DIGITS} characters, got {len(text):,}")
    if _PATTERNS[kind].fullmatch(text) is None:
        raise ValueError(f"{text!r} is none of what the tag !!{kind} stands for; leave the tag out")
    return _READERS[kind](text.replace("_", "").lower())


class _Loader(yaml.SafeLoader):
    """The safe loader with YAML 1.2's plain values."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as in the base class


_PATTERNS = {
    "null": re.compile(r"~|null|Null|NULL|"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "int": re.compile(r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+"),
    "float": re.compile(
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    ),
}
_READERS: dict[str, Callable[[str], Any]] = {
    "null": lambda _: None,
    "bool": lambda text: text == "true",
    "int": lambda text: int(text, 16 if text.startswith("0x") else 10),
    "float": lambda text: float(re.sub(r"\.(?=inf|nan)", "", text)),
}
for _kind, _first in (
    ("null", ["~", "n", "N", ""]),
    ("bool", list("tTfF")),
    ("int", list("-+0123456789")),
    ("float", list("-+0123456789.")),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(f"^(?:{_PATTERNS[_kind].pattern})$"), _first)
_Loader.add_implicit_resolver(_MERGE, re.compile(r"^<<$"), ["<"])


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
