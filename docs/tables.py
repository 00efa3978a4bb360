"""Tables of the documentation that are made from the code, so that what is added there stands here by itself.

`TABLES` has them by name; `hooks.py` puts them into the pages. Each is a function without arguments that returns Markdown.
"""

import functools
import inspect
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from segda.catalog import Catalog
from segda.cli import cli as segda_cli
from segda.compression.schedules import PRUNING_SCHEDULES
from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.discriminators import DISCRIMINATORS, build_discriminator
from segda.efficiency import count_macs, count_parameters
from segda.field_docs import (
    catalog_of,
    doc_of,
    first_paragraph,
    group_of,
    meaning_of,
    module_doc_of,
    searched_at,
    variants_of,
    written_as,
)
from segda.losses import LOSSES
from segda.methods import METHODS
from segda.methods.hosts import HOSTS
from segda.models import MODELS, ModelConfig, build_segmenter
from segda.optim import OPTIMIZERS
from segda.transforms import RECIPES
from segda.transforms.styles import STYLES
from segda.tunable import Choice, Scalar
from segda.validators import VALIDATORS
from sweeps.cli import sweeps as sweeps_cli
from sweeps.failures import POLICIES
from sweeps.file.spec import SweepSpec
from sweeps.metrics import EFFICIENCY
from sweeps.schedulers import SCHEDULERS

# What networks and discriminators are measured with; a larger image costs a convolutional network in proportion.
CLASSES, HEIGHT, WIDTH = 19, 256, 512
# Only these settings make another network of the same name; the others scale it, or say where its weights come from.
_SHAPES = ("form", "variant", "backbone")


# Markdown


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    """Return text for a cell: what Markdown or HTML would take for markup stands for itself, but in code."""
    parts = " ".join(text.split()).split("`")
    for index in range(0, len(parts), 2):
        parts[index] = parts[index].replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*")
    return "`".join(parts)


def _code(value: Any) -> str:
    return f"`{value}`"


# Docstrings


# How docstrings name what something comes from, the surest first.
_SOURCES = (
    r"Source[^:\n]*: (.+?)(?=\.\s+[A-Z]|\.?\n\n|\.?$)",
    r'([A-Z]\w+ et al\.,\s+"[^"]+"\s+\([^()]*\d{4}\))',
    r"\(([^()]*\b(?:19|20)\d\d\b[^()]*)\)",
    r"(?:After|of) ([A-Z]\w+ (?:et al\.|and \w+),[^()]*?(?:19|20)\d\d)",
)


def _sources(doc: str) -> str:
    r"""Return what a docstring names as its sources.

    Example:
        >>> _sources("Adapts.\n\nSource: Yang and Soatto, FDA, CVPR 2020, and its code. Deviations: none.")
        'Yang and Soatto, FDA, CVPR 2020, and its code'
        >>> _sources("BiSeNet (Yu et al., ECCV 2018): two paths.")
        'Yu et al., ECCV 2018'
    """
    for pattern in _SOURCES:
        found = re.findall(pattern, doc, flags=re.DOTALL)
        if found and pattern == _SOURCES[0]:
            return "; ".join(" ".join(text.split()) for text in found)
        if found:
            return " ".join(found[0].split())
    return ""


def _cited(doc: str) -> str:
    """Return what the first line of a docstring cites, else its sources."""
    return _sources(first_paragraph(doc)) or _sources(doc)


# Settings


def _type(annotation: Any) -> str:
    """Return what a value of a field has to be, for people."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation == Scalar:
        return "value"
    if hasattr(annotation, "__metadata__"):
        written = written_as(annotation.__metadata__)
        return f"text such as {_code(written)}" if written else _type(annotation.__origin__)
    if origin is Literal:
        return ", ".join(_code(part) for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(part) for part in parts if part is not type(None))
    if origin in (tuple, list):
        return f"list of {_plural(_type(parts[0]))}"
    if origin in (dict, Mapping):
        return "mapping"
    if isinstance(annotation, type):
        if issubclass(annotation, BaseModel):
            return "settings"
        if issubclass(annotation, Enum):
            return ", ".join(_code(item.value) for item in annotation)
        names = {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path"}
        return names.get(annotation, annotation.__name__)
    return "any of several forms"


def _plural(noun: str) -> str:
    return f"{noun}s" if noun in ("text", "value", "number", "whole number") else noun


def _bounds(field: FieldInfo) -> str:
    said = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = []
    for item in field.metadata:
        for name, sign in said.items():
            value = getattr(item, name, None)
            if value is not None:
                found.append(f"{sign} {value:,.10g}")
        if getattr(item, "min_length", None):
            found.append(f"at least {item.min_length}")
        if getattr(item, "max_length", None):
            found.append(f"at most {item.max_length:,}")
        if getattr(item, "pattern", None):
            found.append(f"pattern `{item.pattern}`")
    return ", ".join(found)


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.is_required():
        return "required"
    if value is None:
        return "unset"
    if isinstance(value, BaseModel):
        name = getattr(value, "name", None)
        return _code(name) if isinstance(name, str) else ""
    if isinstance(value, bool):
        return _code(str(value).lower())
    if isinstance(value, tuple | list):
        if any(isinstance(item, BaseModel) for item in value):
            return _code(
                yaml.safe_dump([item.model_dump() for item in value], default_flow_style=True, sort_keys=False).strip()
            )
        return _code(f"[{', '.join(map(str, value))}]")
    if isinstance(value, dict):
        return _code("{}")
    return _code(value) if value != "" else ""


def _searched(field: FieldInfo) -> str:
    values = searched_at(field)
    is_choice = any(isinstance(item, Choice) for item in field.metadata)
    return ", ".join(_code(value) if is_choice else value for value in values)


def _names(field: FieldInfo) -> str:
    """Return the names that a field takes, from its catalog."""
    catalog = catalog_of(field)
    return "" if catalog is None else ", ".join(_code(name) for name in catalog)


def _rows(model: type[BaseModel], path: str) -> list[list[str]]:
    rows = []
    for name, field in model.model_fields.items():
        kind, bounds = _names(field) or _type(field.annotation), _bounds(field)
        rows.append(
            [
                _code(f"{path}{field.alias or name}"),
                f"{kind}; {bounds}" if bounds else kind,
                _default(field),
                _searched(field),
                meaning_of(field),
            ]
        )
    return rows


def _keys(rows: Sequence[Sequence[str]]) -> str:
    """Return the table of settings; the column of search ranges is there if one of them has any."""
    columns = [0, 1, 2, 3, 4] if any(row[3] for row in rows) else [0, 1, 2, 4]
    head = ["key", "value", "default", "searched at `default`", "meaning"]
    return _table([head[column] for column in columns], [[row[column] for column in columns] for row in rows])


def settings(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Yield the tables of a configuration: its own keys, then those of each group in it.

    Args:
        model: class of the settings.
        path: dotted path that they stand at, with a dot at its end; without one, they are the file.
    """
    if path:
        yield f"## {_code(path.rstrip('.'))}"
        yield first_paragraph(doc_of(model))
    yield _keys(_rows(model, path))
    yield from _groups(model, path)


def _groups(model: type[BaseModel], path: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        variants, group = variants_of(field), group_of(field)
        inner = f"{path}{field.alias or name}"
        if get_origin(field.annotation) is dict:
            inner += ".PATH"
        elif get_origin(field.annotation) is tuple:
            inner += "[]"
        if variants is not None and variants.catalog is HOSTS:
            continue  # methods, which have been told
        if variants is not None:
            yield from _variants(variants.catalog, f"{inner}.")
        elif group is not None:
            yield from settings(group, f"{inner}.")


def _variants(catalog: Catalog[Any], path: str) -> Iterator[str]:
    """Yield the tables of settings that a name calls for: first those that all of them have, then each one's own."""
    yield f"## {_code(path.rstrip('.'))}"
    if path == "pruning.discriminator.schedule.":
        yield "As `pruning.segmenter.schedule`."
        return
    tables = {name: _rows(catalog[name].Config, path) for name in _ours(catalog)}
    name_key = _code(f"{path}name")
    shared = [row for row in next(iter(tables.values())) if all(row in rows for rows in tables.values())]
    names = ", ".join(map(_code, tables))
    yield f"{name_key} is one of {names}, and says which other keys there are."
    if shared:
        yield "Whatever the name:"
        yield _keys(shared)
    for name, rows in tables.items():
        yield f"### {_code(f'{path}name: {name}')}"
        own = [row for row in rows if row not in shared and row[0] != name_key]
        yield _keys(own) if own else "No keys of its own."


def _ours(catalog: Catalog[Any]) -> list[str]:
    """Return our names: what else happens to be installed where the site is built is not told."""
    return [name for name in catalog if catalog.is_ours(name)]


def sweep_file() -> str:
    """Return the keys of a sweep file."""
    return "\n\n".join(settings(SweepSpec))


def training() -> str:
    """Return the keys of a training configuration."""
    return "\n\n".join(settings(TrainConfig))


# Catalogs


def methods() -> str:
    """Return all methods."""

    def row(name: str) -> list[str]:
        method = METHODS[name]
        doc = doc_of(method)
        needs = [
            *(["a few labeled target images"] if method.needs_few_shot else []),
            *(["external labels"] if method.needs_external_labels else []),
            *(["target labels; never picked"] if method.supervision == "target" else []),
        ]
        mark = " ‖" if method.reconstruction else ""
        return [_code(name) + mark, first_paragraph(doc), "; ".join(needs), _sources(doc)]

    return _table(["name", "what it does", "needs besides the source", "source"], map(row, _ours(METHODS)))


@functools.cache
def _network_rows() -> list[list[str]]:
    rows = []
    for name in _ours(MODELS):
        kind = MODELS[name]
        doc = module_doc_of(kind)
        said = [first_paragraph(doc), _cited(doc)]
        for words, config in _shapes(kind.Config, name):
            network = build_segmenter(config, num_classes=CLASSES, pretrained=False)
            macs = count_macs(network, input_shape=(1, 3, HEIGHT, WIDTH))
            label = _code(name) + (f" {words}" if words else "")
            rows.append([label, f"{count_parameters(network) / 1e6:.2f}", f"{macs / 1e9:.2f}", *said])
            said = ["", ""]
    return rows


def _shapes(config: type[ModelConfig], name: str) -> Iterator[tuple[str, ModelConfig]]:
    """Yield the network as it is by default, then with each other value of what makes another network of it."""
    usual = config(name=name)
    own = [field for field in _SHAPES if field in config.model_fields]
    yield ", ".join(_code(getattr(usual, field)) for field in own), usual
    for field in own:
        declared = next(item for item in config.model_fields[field].metadata if isinstance(item, Choice))
        for value in declared.values:
            if value != getattr(usual, field):
                yield f"`{field}: {value}`", config.model_validate({"name": name, field: value})


def networks() -> str:
    """Return all networks with what they cost."""
    head = ["name", "parameters, M", f"MACs at {HEIGHT} x {WIDTH}, G", "what it is", "source"]
    return _table(head, _network_rows())


def discriminators() -> str:
    """Return all discriminators with what they cost."""

    def row(name: str) -> list[str]:
        kind = DISCRIMINATORS[name]
        network = build_discriminator(name, num_classes=CLASSES)
        macs = count_macs(network, input_shape=(1, CLASSES, HEIGHT, WIDTH))
        rank = "0.5" if kind.has_rank else ""
        doc = doc_of(kind)
        parameters = f"{sum(weight.numel() for weight in network.parameters()):,}"
        return [
            _code(name),
            first_paragraph(doc),
            parameters,
            f"{macs / 1e9:.2f}",
            rank,
            str(kind.stride),
            _sources(doc),
        ]

    head = ["name", "what it is", "parameters", f"MACs at {HEIGHT} x {WIDTH}, G", "at rank", "stride", "source"]
    return _table(head, map(row, _ours(DISCRIMINATORS)))


def datasets() -> str:
    """Return all data sets."""

    def row(name: str) -> list[str]:
        dataset = DATASETS[name]
        scored = len(dataset.classes) - len(dataset.unscored)
        classes = str(len(dataset.classes)) if not dataset.unscored else f"{len(dataset.classes)}, {scored} scored"
        return [
            _code(name),
            first_paragraph(module_doc_of(dataset)),
            ", ".join(dataset.domains),
            classes,
            dataset.layout,
            dataset.terms,
        ]

    return _table(
        ["name", "what it is", "domains", "classes", "what its folder holds", "terms"], map(row, _ours(DATASETS))
    )


def recipes() -> str:
    """Return all augmentation recipes."""
    rows = [
        [_code(name), RECIPES[name].purpose, ", then ".join(step.text for step in RECIPES[name].steps)]
        for name in _ours(RECIPES)
    ]
    return _table(["name", "what it is for", "steps"], rows)


def _plain(catalog: Catalog[Any]) -> str:
    rows = []
    for name in _ours(catalog):
        doc = doc_of(catalog[name])
        what = first_paragraph(doc).removeprefix("Return ")
        rows.append(
            [
                _code(name),
                what[0].upper() + what[1:],
                _sources(doc) or _sources(first_paragraph(module_doc_of(catalog[name]))),
            ]
        )
    if not any(row[-1] for row in rows):
        return _table(["name", "what it does"], [row[:-1] for row in rows])
    return _table(["name", "what it does", "source"], rows)


# Commands


def commands() -> str:
    """Return all commands with their options."""
    parts = []
    for name, command in _commands():
        with click.Context(command, info_name=name) as context:
            parts += _command(command, context)
    return "\n\n".join(parts)


def _commands() -> Iterator[tuple[str, click.Command]]:
    """Yield the commands of both programs with their whole names."""
    for program in (segda_cli, sweeps_cli):
        with click.Context(program, info_name=program.name) as context:
            for name in program.list_commands(context):
                yield f"{program.name} {name}", program.get_command(context, name)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            part = command.get_command(context, name)
            with click.Context(part, info_name=f"{context.info_name} {name}") as inner:
                yield from _command(part, inner)
        return
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"## `{context.info_name}`"
    yield first_paragraph(inspect.cleandoc(command.help or ""))
    yield f"```text\n{context.info_name} {usage}\n```"
    records = [option.get_help_record(context) for option in command.params if isinstance(option, click.Option)]
    rows = [[_code(record[0]), record[1]] for record in records if record is not None]
    if rows:
        yield _table(["option", "meaning"], rows)


def command_list() -> str:
    """Return all commands, one line each."""
    rows = [[_code(name), command.get_short_help_str(200)] for name, command in _commands()]
    return _table(["command", "what it is for"], rows)


# Failures


def failures() -> str:
    """Return the classes of failures with what is done about each."""

    def row(kind: Any) -> list[str]:
        policy = POLICIES[kind]
        tries = "without end" if policy.retries is None else str(policy.retries) if policy.retries else "none"
        budget = "yes" if policy.blames_configuration else "no"
        return [
            _code(kind.value),
            tries,
            budget,
            policy.remedy or "change the configuration, or mend the code that it names",
        ]

    return _table(
        ["class", "further attempts", "spends budget and teaches the sampler", "what you can do"], map(row, POLICIES)
    )


def efficiency() -> str:
    """Return the names of efficiency metrics."""
    return ", ".join(_code(name) for name in EFFICIENCY)


TABLES: Mapping[str, Callable[[], str]] = {
    "methods": methods,
    "networks": networks,
    "discriminators": discriminators,
    "datasets": datasets,
    "recipes": recipes,
    "styles": functools.partial(_plain, STYLES),
    "losses": functools.partial(_plain, LOSSES),
    "optimizers": functools.partial(_plain, OPTIMIZERS),
    "validators": functools.partial(_plain, VALIDATORS),
    "schedulers": functools.partial(_plain, SCHEDULERS),
    "pruning_schedules": functools.partial(_plain, PRUNING_SCHEDULES),
    "sweep_file": sweep_file,
    "training": training,
    "commands": commands,
    "command_list": command_list,
    "failures": failures,
    "efficiency": efficiency,
}
