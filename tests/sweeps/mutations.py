"""Damaged configuration files: what editors, templates, careless hands and bad intentions make of good ones."""

import copy
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = (*sorted((ROOT / "sweeps" / "configs").glob("*.yaml")), ROOT / "examples" / "own" / "sweep.yaml")
TRAININGS = (ROOT / "segda" / "configs" / "scenes.yaml", ROOT / "examples" / "own" / "train.yaml")


class Raw(str):
    """Text that YAML is to read by itself."""


# Values that are wrong nearly everywhere.
# fmt: off
NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 2**31, 2**32, 2**63, 2**64, 10**9, 10**12, 10**18, 10**99, -(10**18),
    0.0, -0.0, 0.5, 1e-300, 5e-324, 1e9, 1e300, -1e300, math.inf, -math.inf, math.nan,
    "", " ", ".", "..", "-", "-x", "--help", "a/b", "../..", "/", "/dev/zero", "~", "~nobody-here/x", "default", "auto",
    "x" * 300, "x" * 9000, "é\u2028\u202eü", "a\nb", "1", "1e3", "nan", "null", "ledger.db", "mlartifacts", "cuda:99999999999",
    "cuda:x", "http://[", "sqlite:///", "s3://", "nothing:Here", "os:path", "sys:exit", "a:b:c", "fps >= nan", "macs <= 1e999",
    [], {}, [[]], [{}], [[1]], [None], [1, 1], [1, 1.0, True], ["a", ["b"]], {"a": {"b": {"c": 1}}}, {"": ""},
    {"choices": []}, {"choices": 3}, {"choices": [[1], {}]}, {"low": 0, "high": 1e18}, {"low": 1, "high": 1e308, "log": True},
    {"low": 0, "high": 1, "step": 1e-320}, {"low": 0, "high": 1e12, "step": 1, "int": True}, {"low": -1e308, "high": 1e308},
    {"low": 5e-324, "high": 1e308, "log": True}, {"when": {"method.name": []}}, {"when": {"a": 1}}, {"name": None}, {"name": []},
    {"name": {"name": "x"}}, list(range(3000)), {f"k{index}": index for index in range(300)},
    Raw("9" * 5000), Raw("0x" + "f" * 5000), Raw("1e999"), Raw("!!int x"), Raw("!!float x"), Raw("!!bool 3"), Raw("!!null x"),
    Raw("!!timestamp x"), Raw("!!timestamp 2020-01-01"), Raw("!!binary ====="), Raw("!!binary aGk="), Raw("!!set {a, b}"),
    Raw("!!omap [a: 1]"), Raw("!!pairs [a: 1]"), Raw("!!python/name:os.system"), Raw("!!python/object/apply:os._exit [3]"),
    Raw("&self [*self]"), Raw("&self {a: *self}"), Raw("{<<: [1]}"), Raw("{<<: {a: 1}}"), Raw("!!str 3"), Raw("{? [a] : 1}"),
    Raw('"\\0"'), Raw('"\\ud800"'), Raw('"\\U00110000"'), Raw('"\\e[31m"'), Raw("{1: 2}"), Raw("{~: 2, true: 3}"), Raw("[" * 400),
    Raw("[&a [x,x,x,x,x,x,x,x], &b [*a,*a,*a,*a,*a,*a,*a,*a], &c [*b,*b,*b,*b,*b,*b,*b,*b], &d [*c,*c,*c,*c,*c,*c], [*d,*d]]"),
)
_SNIPPETS = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\t", b"\r", b"\n---\n", b"\n...\n", b"%YAML 9.9\n", b"&a ", b"*a",
    b"<<: *a", b"!!int ", b"? ", b": ", b"- ", b"{", b"}", b"[", b"]", b"'", b'"', b"#", b"|\n", b">-\n", b"%", b"`",
    b"\xe2\x80\xa8", b"!!python/tuple ", b"!x ", b"@", b"9" * 5000, b" " * 3000, b"  ", b"\n", b",", b"\\x",
)
# fmt: on


def mutations(files: tuple[Path, ...], *, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield (what was done, content) of damaged files, the same ones for the same seed."""
    draw = random.Random(seed)
    for number in range(count):
        file = files[number % len(files)]
        done, content = (_text_damage if draw.random() < 0.4 else _tree_damage)(file.read_bytes(), draw)
        yield f"{number} {file.name}: {done}", content


def _text_damage(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    done = []
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        start = draw.randrange(len(content) + 1)
        end = min(len(content), start + draw.choice((1, 1, 3, 20, 200)))
        kind = draw.choice(("flip", "cut", "twice", "truncate", "insert", "insert", "indent", "swap"))
        if kind == "flip" and start < len(content):
            content = content[:start] + bytes([content[start] ^ (1 << draw.randrange(8))]) + content[start + 1 :]
        elif kind == "cut":
            content = content[:start] + content[end:]
        elif kind == "twice":
            content = content[:end] + content[start:end] + content[end:]
        elif kind == "truncate":
            content = content[:start]
        elif kind == "insert":
            content = content[:start] + draw.choice(_SNIPPETS) + content[start:]
        elif kind in ("indent", "swap"):
            lines = content.split(b"\n")
            first, second = draw.randrange(len(lines)), draw.randrange(len(lines))
            if kind == "indent":
                lines[first] = b" " * draw.randrange(1, 4) + lines[first]
            else:
                lines[first], lines[second] = lines[second], lines[first]
            content = b"\n".join(lines)
        done.append(f"{kind} at {start}")
    return ", ".join(done), content


def _tree_damage(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    tree = yaml.safe_load(content)
    done = []
    for _ in range(draw.choice((1, 1, 1, 2))):
        places = list(_places(tree))
        holder, key = draw.choice(places)
        kind = draw.choice(("replace", "replace", "replace", "delete", "rename", "wrap", "twice", "swap", "add"))
        done.append(f"{kind} {key}")
        if kind == "replace":
            holder[key] = draw.choice(NASTY)
        elif kind == "delete":
            del holder[key]
        elif kind == "rename" and isinstance(holder, dict):
            other = draw.choice([draw.choice([name for _, name in places]), draw.choice(NASTY)])
            holder[Raw(other) if isinstance(other, Raw) else str(other)] = holder.pop(key)
        elif kind == "wrap":
            holder[key] = draw.choice(([holder[key]], {"choices": [holder[key]]}, {key: holder[key]}))
        elif kind == "swap":
            other, name = draw.choice(places)
            holder[key], other[name] = copy.deepcopy(other[name]), copy.deepcopy(holder[key])
        elif kind == "add":
            other, name = draw.choice(places)
            if isinstance(holder, dict):
                holder[name if isinstance(name, str) else "new"] = copy.deepcopy(other[name])
            else:
                holder.append(copy.deepcopy(other[name]))
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
    return ", ".join(done), _written(tree).encode("utf-8", errors="surrogatepass")


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (mapping or list, key or position) of every value."""
    if isinstance(tree, dict | list):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key])


def _written(tree: Any) -> str:
    """Write a tree as YAML in flow style."""
    if isinstance(tree, Raw):
        return str(tree)
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{_written(key)}: {_written(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(_written, tree)) + "]"
    if isinstance(tree, str):
        return json.dumps(tree, ensure_ascii=False)
    return yaml.safe_dump(tree).split("\n")[0]
