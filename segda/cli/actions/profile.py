"""What `segda profile` does."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segda.cli.output import output, plain_table
from segda.cli.overrides import changes_of
from segda.cost_comparison import Compared, CostComparison, NetworkCost, compare_costs
from segda.cost_picture import draw_costs
from segda.deployment.artefact import is_artefact
from segda.efficiency import Latency
from segda.errors import ConfigError
from segda.files import write_json
from segda.loading import network_config

_ABSENT = "-"
_WIDEST = 10_000  # columns
_PERCENTILES = ("median_ms", "p90_ms", "p99_ms")


def profile_action(
    words: tuple[Path | str, ...],
    models: tuple[str, ...],
    num_classes: int | None,
    height: int | None,
    width: int | None,
    device: str,
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"],
    runtime: str,
    runs: int | None,
    json_file: Path | None,
    picture: Path | None,
) -> None:
    """Do `segda profile`; the arguments are the command's."""
    files = [word for word in words if isinstance(word, Path)]
    networks, changes = _networks(files, models, [word for word in words if isinstance(word, str)])
    found = compare_costs(
        networks,
        changes=changes,
        num_classes=num_classes,
        height=height,
        width=width,
        device=device,
        precision=precision,
        runtime=runtime,
        runs=runs,
    )
    if json_file == Path("-"):
        click.echo(json.dumps(found.plain(), indent=2))
    else:
        _show(found)
    if json_file not in (None, Path("-")):
        write_json(json_file, found.plain())
    if picture is not None:
        draw_costs(found, picture)


def _networks(
    files: Sequence[Path], models: Sequence[str], assignments: Sequence[str]
) -> tuple[list[Compared], Mapping[str, object]]:
    """Return what is to be measured, and what of configurations is changed."""
    changes = changes_of(assignments)
    networks: list[Compared] = [
        *files,
        *(network_config(changes_of([f"model={{name: {model}}}", *assignments])) for model in models),
    ]
    if not networks:
        networks.append(network_config(changes))
    if changes and not models and files and all(is_artefact(file) or file.suffix.lower() == ".pt" for file in files):
        raise ConfigError(
            "KEY=VALUE changes configurations and --model, and there is neither; networks in files are as they are"
        )
    return networks, changes


def _show(found: CostComparison) -> None:
    console = output()

    def say(text: str) -> None:
        console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)

    several = len(found.costs) > 1
    table = _table_of_all(found.costs) if several else _table_of_one(found.costs[0])
    # Figures that are cut off are no figures: a line that is too long is the reader's to scroll or to wrap.
    needed = console.measure(table, options=console.options.update(width=_WIDEST)).maximum
    Console(width=max(console.width, needed)).print(table)
    for doubt, names in _doubts(found.costs).items():
        say(f"~ latency is not reliable{names}: {doubt}")
    for line in dict.fromkeys(line for cost in found.costs for line in cost.whole.unchecked):
        say(f"not checked: {line}")
    if len({cost.input_shape for cost in found.costs}) > 1:
        say(
            "images of different sizes were shown, so latencies do not compare; --height and --width set one size for all"
        )
    for cost in found.costs:
        for what, note in cost.notes.items():
            say(f"{cost.name}, {what}: {note}" if several else f"{what}: {note}")
    for condition, value in found.conditions.items():
        say(f"{condition}: {value}")


def _table_of_one(cost: NetworkCost) -> Table:
    """Return what one network costs, one line for each cost."""
    both = (cost.whole, cost.alone)
    rows = [
        ["parameters", _figure(cost.num_parameters, 1e6, 3, " M"), ""],
        ["multiply-accumulates", _figure(cost.macs, 1e9, 3, " G"), ""],
        ["latency, median", *(_times(each, "median_ms", unit=" ms") for each in both)],
        ["latency, 90th percentile", *(_times(each, "p90_ms", unit=" ms") for each in both)],
        ["latency, 95th percentile", *(_times(each, "p95_ms", unit=" ms") for each in both)],
        ["latency, 99th percentile", *(_times(each, "p99_ms", unit=" ms") for each in both)],
        ["latency, between the quartiles", *(_times(each, "iqr_ms", unit=" ms") for each in both)],
        ["latency, between blocks of runs", *(_ABSENT if each is None else f"{each.spread:.1%}" for each in both)],
        ["images per second", _fps(cost), ""],
        ["timed runs", *(_ABSENT if each is None else str(each.runs) for each in both)],
        ["peak memory", _figure(cost.peak_memory_bytes, 2**20, 1, " MiB"), ""],
        ["file", _figure(cost.file_bytes, 1e6, 1, " MB"), ""],
        ["input_shape", _shape(cost), ""],
        ["computed by", _computed_by(cost), ""],
    ]
    shown = cost.name if cost.name == cost.network else f"{cost.name}: {cost.network}"
    return plain_table(escape(f"{shown}, {cost.num_classes} classes"), ["cost", "whole", "network alone"], rows)


def _table_of_all(costs: Sequence[NetworkCost]) -> Table:
    """Return what several networks cost, one line for each of them."""
    columns: dict[str, Callable[[NetworkCost], str]] = {
        "network": lambda cost: escape(cost.name),
        "parameters\n(M)": lambda cost: _figure(cost.num_parameters, 1e6, 2),
        "MACs\n(G)": lambda cost: _figure(cost.macs, 1e9, 2),
        "whole (ms)\np50 / p90 / p99": lambda cost: _times(cost.whole, *_PERCENTILES),
        "network alone (ms)\np50 / p90 / p99": lambda cost: _times(cost.alone, *_PERCENTILES),
        "FPS": _fps,
        "memory\n(MiB)": lambda cost: _figure(cost.peak_memory_bytes, 2**20, 1),
        "file\n(MB)": lambda cost: _figure(cost.file_bytes, 1e6, 1),
        "computed by": _computed_by,
    }
    shapes = {_shape(cost) for cost in costs}
    if len(shapes) > 1:
        columns["input"] = _shape
    title = "measured in turn" if len(shapes) > 1 else f"{shapes.pop()}, measured in turn"
    return plain_table(title, list(columns), [[column(cost) for column in columns.values()] for cost in costs])


def _doubts(costs: Sequence[NetworkCost]) -> dict[str, str]:
    """Return what speaks against latencies, and of which; nothing where it speaks against all."""
    latencies = {
        f"{cost.name}{part}": latency
        for cost in costs
        for part, latency in (("", cost.whole), (", network alone", cost.alone))
        if latency is not None
    }
    found: dict[str, list[str]] = {}
    for name, latency in latencies.items():
        for line in latency.doubts:
            found.setdefault(line, []).append(name)
    return {line: "" if len(names) == len(latencies) else f" of {' and '.join(names)}" for line, names in found.items()}


def _times(latency: Latency | None, *fields: str, unit: str = "") -> str:
    if latency is None:
        return _ABSENT
    return _mark(latency) + " / ".join(f"{getattr(latency, field):.2f}{unit}" for field in fields)


def _fps(cost: NetworkCost) -> str:
    return f"{_mark(cost.whole)}{cost.fps:.1f}"


def _mark(latency: Latency) -> str:
    return "" if latency.is_reliable else "~"


def _figure(value: int | None, unit: float, digits: int, name: str = "") -> str:
    return _ABSENT if value is None else f"{value / unit:.{digits}f}{name}"


def _shape(cost: NetworkCost) -> str:
    return "x".join(map(str, cost.input_shape))


def _computed_by(cost: NetworkCost) -> str:
    return f"{cost.device}, {cost.runtime}, {cost.precision}"
