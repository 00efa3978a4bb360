import itertools
import math
import os
import socket
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, model_validator

from segda.catalog import Catalog, subclass_of
from segda.config import TrainConfig
from segda.config_file import read_document, validate
from segda.config_problems import LocatedError, error_of
from segda.errors import ConfigError
from segda.named import ConfigOf
from segda.plain_data import plain_copy


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Shape(Part):
    name: str


class Circle(Shape):
    radius: float = Field(1.0, gt=0)


class Round:
    Config: ClassVar[type[Circle]] = Circle


SHAPES = Catalog("shape", group="segda.tests", built_in={"circle": Round}, check=subclass_of(Round, config=Shape))


class Item(Part):
    label: Literal["day", "dusk"]
    weight: float = Field(default=1.0, le=1)


class Settings(Part):
    count: int = 1
    rate: float = 1.0
    on: bool = True
    text: str = ""
    shape: Annotated[SerializeAsAny[Shape] | None, ConfigOf(SHAPES)] = None
    items: tuple[Item, ...] = ()
    named: dict[str, Item] = {}

    @model_validator(mode="after")
    def _rate_fits(self):
        if self.rate > 100:
            raise LocatedError(("rate",), "is too much")
        return self


def read(path, model):
    return validate(read_document(path), model)


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "settings.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("-2e+5", -2e5),
        ("5e-3", 0.005),
        (".5", 0.5),
        ("1.", 1.0),
        ("1_000", 1000),
        ("-3", -3),
        ("0x10", 16),
        (".inf", math.inf),
        ("true", True),
        ("~", None),
        ("", None),
        ("off", "off"),
        ("no", "no"),
        ("12:30", "12:30"),
        ("010", "010"),
        ("2024-01-02", "2024-01-02"),
        ("none", "none"),
        ("e3", "e3"),
        ("1e", "1e"),
    ],
)
def test_plain_values_are_read_by_yaml_1_2(write, text, value):
    came = read_document(write(f"key: {text}\n")).data["key"]
    assert came == value
    assert type(came) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count: 1\nrte: 2\n", "2: rte: unknown key (did you mean 'rate'?)"),
        ("zzz: 2\n", "1: zzz: unknown key; known: count, rate, on, text, shape, items, named"),
        ("count: 1.5\n", "1: count: must be a whole number, got 1.5"),
        ("count: many\n", "1: count: must be a whole number, got 'many'"),
        ("rate:\n  - 1\n", "1: rate: must be a number, got a list"),
        ("on: maybe\n", "1: on: must be true or false, got 'maybe'"),
        ("text: 3\n", "1: text: must be text, got 3"),
        ("rate: 101\n", "1: rate: is too much"),
        ("shape: {name: circle, radius: 0}\n", "1: shape.radius: must be greater than 0, got 0"),
        ("shape:\n  name: circle\n  radios: 2\n", "3: shape.radios: unknown key (did you mean 'radius'?)"),
        ("shape: {name: circl}\n", "1: shape.name: unknown shape 'circl' (did you mean 'circle'?); known: circle"),
        (
            "items:\n  - label: day\n  - label: dsk\n",
            "3: items[1].label: must be one of 'day' or 'dusk', got 'dsk' (did you mean 'dusk'?)",
        ),
        ("items:\n  - {label: day, wight: 1}\n", "2: items[0].wight: unknown key (did you mean 'weight'?)"),
        ("items: [{}]\n", "1: items[0].label: a value is required, none came"),
        ("named:\n  a: {label: day, weight: 2}\n", "2: named.a.weight: must be at most 1, got 2"),
        ("named:\n  a.b: {lable: day}\n", "2: named.a.b.lable: unknown key (did you mean 'label'?) (and 1 more)"),
        ("items: 3\n", "1: items: must be a list, got 3"),
        ("named: [a]\n", "1: named: must be a mapping `key: value`, got a list"),
        ("count: x\nrate: y\n\non: z\n", "1: count: must be a whole number, got 'x' (and 2 more)"),
        (
            "text:\n  " + "x" * 99 + "\nrate: " + "y" * 99,
            "3: rate: must be a number, got '" + "y" * 44 + "..." + "y" * 11 + "'",
        ),
    ],
)
def test_a_wrong_value_is_told_in_one_line_with_its_line_number(write, text, message):
    path = write(text)
    with pytest.raises(ConfigError) as error:
        read(path, Settings)
    assert str(error.value) == f"{path}:{message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: expected a mapping `key: value`, the file is empty"),
        ("# only a comment\n", "1: expected a mapping `key: value`, the file is empty"),
        ("- 1\n", "1: expected a mapping `key: value`, a list came"),
        ("\nhello\n", "2: expected a mapping `key: value`, a single value came"),
        ("count: 1\nrate: [1, 2\ntext: a\n", "3: not valid YAML: expected ',' or ']', but got ':'"),
        ("count: 1\n\trate: 2\n", "2: not valid YAML: found character '\\t' that cannot start any token"),
        (
            "count: 1\ntext: &a b\nrate: 2\ncount: 3\n",
            "4: count: the key is given twice, first in line 1; keep one of them",
        ),
        ("items:\n  - label: a\n    label: b\n", "3: label: the key is given twice, first in line 2; keep one of them"),
        ("count: *missing\n", "1: not valid YAML: found undefined alias 'missing'"),
        ("a: 1\n---\nb: 2\n", "2: not valid YAML: but found another document"),
        ("a: 1\nb: '\x07'\n", "2: not valid YAML: character 7 is not allowed"),
        ('a: "\\U00110000"\n', "1: not valid YAML: chr() arg not in range(0x110000)"),
        ('a: "\\UFFFFFFFF"\n', "1: not valid YAML: Python int too large to convert to C int"),
        ('a: "\\0"\n', r"1: a text must have no control characters, got '\x00'; remove it"),
        ('a: "\\ud800"\n', r"1: a text must have no control characters, got '\ud800'; remove it"),
        ('"a\\nb": 1\n', r"1: a key must be one line of at most 300 characters, got 'a\nb'"),
        ("a:\n  1: b\n", "2: a key must be text, and '1' is none without quotes; put it in quotes"),
        ("a: {[b]: c}\n", "1: a key must be text, got a list or a mapping"),
        ("a: {<<: b}\n", "1: not valid YAML: `<<` takes a mapping, or a list of mappings"),
        ("a: !!int x\n", "1: 'x' is none of what the tag !!int stands for; leave the tag out"),
        ("a: !!float x\n", "1: 'x' is none of what the tag !!float stands for; leave the tag out"),
        ("a: !!bool 3\n", "1: '3' is none of what the tag !!bool stands for; leave the tag out"),
        ("a: !!null x\n", "1: 'x' is none of what the tag !!null stands for; leave the tag out"),
        ("a: !!timestamp 2020-01-01\n", "1: the tag !!timestamp is not known here; leave it out"),
        ("a: !!binary aGk=\n", "1: the tag !!binary is not known here; leave it out"),
        ("a: !!set {b, c}\n", "1: the tag !!set is not known here; leave it out"),
        ("a: !!omap [b: 1]\n", "1: the tag !!omap is not known here; leave it out"),
        ("a: !!python/tuple [1]\n", "1: the tag !!python/tuple is not known here; leave it out"),
        (f"a: {'9' * 5000}\n", "1: a number must have at most 100 characters, got 5,000"),
        (f"a: 0x{'f' * 5000}\n", "1: a number must have at most 100 characters, got 5,002"),
        (f"a: {'x' * 20_000}\n", "1: a text must have at most 10,000 characters, got 20,000"),
        ("a: &a [*a]\n", "1: values lie in each other more than 30 deep; does one contain itself?"),
        ("a: &a {b: *a}\n", "1: values lie in each other more than 30 deep; does one contain itself?"),
        ("a: &a {<<: *a}\n", "1: values lie in each other more than 30 deep; does one contain itself?"),
    ],
)
def test_what_is_no_mapping_is_told_in_one_line(write, text, message):
    path = write(text)
    with pytest.raises(ConfigError) as error:
        read(path, Settings)
    assert str(error.value) == f"{path}:{message}"


@pytest.mark.parametrize("part", ["[{}]", "{{<<: [{}]}}"])
def test_aliases_that_stand_for_a_billion_values_are_refused_at_once(write, part):
    names = "abcdefghij"
    lines = [f"{names[0]}: &{names[0]} " + ("[1]" if part[0] == "[" else "{k: 1}")]
    lines += [
        f"{name}: &{name} {part.format(', '.join([f'*{before}'] * 9))}" for before, name in itertools.pairwise(names)
    ]
    with pytest.raises(ConfigError, match=r":\d+: more than 20,000 values; a configuration has some dozens$"):
        read_document(write("\n".join(lines)))


def test_a_number_of_thousands_of_digits_is_refused_wherever_it_stands(write):
    with pytest.raises(ConfigError, match=r":1: not valid YAML: Exceeds the limit"):
        read_document(write(f"%YAML {'9' * 5000}.1\n---\na: 1\n"))


def test_what_an_alias_names_is_a_copy(write):
    data = read_document(write("a: &a {b: [1]}\nc: *a\n")).data
    data["c"]["b"].append(2)
    assert data == {"a": {"b": [1]}, "c": {"b": [1, 2]}}


def test_tags_that_say_what_is_there_anyway_are_fine(write):
    data = read_document(
        write('a: !!str 1\nb: !!int "2"\nc: !!float 1e3\nd: !!map {e: !!seq [!!null ~, !!bool true]}\n')
    ).data
    assert data == {"a": "1", "b": 2, "c": 1000.0, "d": {"e": [None, True]}}


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "huge").write_text("a: 1\n" * 100_000)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    answers = {
        "pipe": "cannot be read: it is a pipe or a device; name a file",
        "/dev/zero": "cannot be read: it is a pipe or a device; name a file",
        ".": "cannot be read: Is a directory",
        "socket": "cannot be read: No such device or address",
        "nowhere": "there is no such file",
        "x" * 300: "cannot be read: File name too long",
        "nul\0": "cannot be read: embedded null byte",
        "huge": "is larger than 128 KiB, so it is no configuration; name another file",
    }
    for name, answer in answers.items():
        with pytest.raises(ConfigError) as error:
            read_document(tmp_path / name)
        assert str(error.value).endswith(f": {answer}"), name
        assert len(str(error.value)) < 250


class Odd:
    pass


def _endless():
    data: dict[str, Any] = {}
    data["a"] = {"b": [data]}
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_endless(), "values lie in each other more than 30 deep; does one contain itself?"),
        ({"a": [[1] * 200] * 200}, "more than 20,000 values; a configuration has some dozens"),
        (
            {"a": {"b": Odd()}},
            "a.b: must be plain data (mappings, lists, text, numbers, true, false, null), got an object of class Odd",
        ),
        (
            {"a": [{1}]},
            "a[0]: must be plain data (mappings, lists, text, numbers, true, false, null), got an object of class set",
        ),
        (
            {"a": b"b"},
            "a: must be plain data (mappings, lists, text, numbers, true, false, null), got an object of class bytes",
        ),
        ({"a": {1: 2}}, "a: a key must be text, got one of class int"),
        ({"a": 10**5000}, "a: a number must have at most 100 digits"),
        ({"a": "b\0"}, r"a: a text must have no control characters, got '\x00'; remove it"),
        ({"a\nb": 1}, r"a key must be one line of at most 300 characters, got 'a\nb'"),
    ],
)
def test_data_from_python_are_as_plain_as_a_file(data, message):
    with pytest.raises(ConfigError) as error:
        plain_copy(data, where="sweep")
    assert str(error.value).startswith("sweep: ")
    assert str(error.value).endswith(message)


def test_numbers_and_paths_of_others_become_plain():
    data = {"a": np.float32(0.5), "b": np.int64(3), "c": Path("d"), "e": (1, True, None)}
    assert plain_copy(data, where="sweep") == {"a": 0.5, "b": 3, "c": "d", "e": [1, True, None]}


def test_a_file_cannot_run_code(write):
    path = write("text: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(
        ConfigError, match=r"settings.yaml:1: the tag !!python/object/apply:os.getcwd is not known here; leave it out$"
    ):
        read(path, Settings)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml: there is no such file$"):
        read(tmp_path / "nothing.yaml", Settings)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match=r": cannot be read: "):
        read(tmp_path, Settings)


def test_text_in_another_encoding_is_refused_with_its_line(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"count: 1\ntext: caf\xe9\n")
    with pytest.raises(ConfigError, match=r":2: not UTF-8 text"):
        read(path, Settings)


def test_endless_nesting_is_refused(write):
    with pytest.raises(ConfigError, match="nested too deeply"):
        read(write("a: " + "[" * 5000), Settings)


def test_merged_mappings_may_be_overridden_and_keep_their_lines(write):
    path = write("named:\n  a: &a {label: day, weight: 1}\n  b:\n    <<: *a\n    weight: 7\n")
    with pytest.raises(ConfigError, match=r":5: named.b.weight: must be at most 1, got 7$"):
        read(path, Settings)
    fine = read(write("named:\n  a: &a {label: day, weight: 1}\n  b:\n    <<: *a\n    weight: 0.5\n"), Settings)
    assert fine.named["b"].weight == 0.5


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "bom.yaml"
    path.write_text("count: 3\n", encoding="utf-8-sig")
    assert read(path, Settings).count == 3


def test_data_without_a_file_name_their_origin():
    with pytest.raises(ValueError) as error:
        Settings.model_validate({"rate": "fast"})
    assert str(error_of(error.value, Settings, {}, where="request")) == "request: rate: must be a number, got 'fast'"


TRAINING = """\
data:
  source: {dataset: camvid, domain: day}
  target: {dataset: camvid, domain: dusk}
  height: 96
  width: 128
method:
  name: adversarial
  lambda_adv: 1e-3
optimizer:
  lr: 5e-3
steps: 1e3
"""


def test_a_training_file_is_read(write):
    config = read(write(TRAINING), TrainConfig)
    assert config.optimizer.lr == 0.005
    assert config.steps == 1000
    assert config.method.name == "adversarial"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("5e-3", "-1", "10: optimizer.lr: must be greater than 0, got -1"),
        ("lambda_adv", "lambda_avd", "8: method.lambda_avd: unknown key (did you mean 'lambda_adv'?)"),
        ("lambda_adv: 1e-3", "lambda_adv: -1", "8: method.lambda_adv: must be at least 0, got -1"),
        ("adversarial", "adversaril", "7: method.name: unknown method 'adversaril' (did you mean 'adversarial'?)"),
        ("dusk", "dsk", "3: data.target: data set camvid has no domain 'dsk' (did you mean 'dusk'?)"),
        (
            "lr: 5e-3",
            "name: sdg",
            "10: optimizer.name: unknown optimizer 'sdg' (did you mean 'sgd'?); known: adam, adamw, rmsprop, sgd",
        ),
        ("lr: 5e-3", "momentum: 0.9\n  name: adam", "10: optimizer.momentum: unknown key"),
        ("steps: 1e3", "", "1: steps: a value is required, none came"),
        (
            "steps: 1e3",
            "steps: 9\nvalidators: [im, bnm, im]",
            "12: validators: a validator is named twice; name each once",
        ),
    ],
)
def test_a_wrong_training_file_names_line_key_and_nearest_name(write, old, new, message):
    path = write(TRAINING.replace(old, new))
    with pytest.raises(ConfigError) as error:
        read(path, TrainConfig)
    assert str(error.value).startswith(f"{path}:{message}")
    assert "\n" not in str(error.value)
