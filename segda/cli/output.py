"""What the commands share: where text goes, numbers for people, and options that several commands have."""

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from segda.errors import ConfigError
from segda.files import expanded
from segda.progress import notices

PRECISIONS = ("auto", "fp32", "bf16", "fp16")

device_option = click.option(
    "--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:<n>."
)
precision_option = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="Arithmetic of the network; auto: bf16 where the device has fast kernels for it, else fp32.",
)


json_option = click.option(
    "--json",
    "as_document",
    is_flag=True,
    help="Print one JSON document for programs and nothing else; docs/automation.md has its keys.",
)


def output() -> Console:
    """Return the console for results, standard output."""
    return Console()


def set_up_logging(*, verbose: bool) -> None:
    """Send the log to standard error.

    Args:
        verbose: also informative messages, not only warnings.
    """
    handler = RichHandler(console=notices(), show_path=False)
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s", handlers=[handler])


def percent(share: float | None) -> str:
    """Write a share for people.

    Example:
        >>> percent(0.4567), percent(None), percent(float("nan"))
        ('45.67', '-', '-')
    """
    return "-" if share is None or math.isnan(share) else f"{100 * share:.2f}"


def plain_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table whose first column is text and whose other columns are numbers.

    Args:
        title: line above the table.
        columns: headings.
        rows: one text per column.
    """
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    return table


def data_root_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add `--data-root NAME=PATH`, which arrives as `roots`, a mapping from data set to folder."""
    return click.option(
        "--data-root",
        "roots",
        multiple=True,
        metavar="NAME=PATH",
        callback=_parse_roots,
        help="Folder of a data set, e.g. camvid=data/camvid; may be repeated. "
        "Without it: `root` in the configuration, else the variable SEGDA_<NAME>_ROOT.",
    )(command)


def _parse_roots(_context: click.Context, _option: click.Parameter, values: Sequence[str]) -> dict[str, Path]:
    roots: dict[str, Path] = {}
    for value in values:
        name, separator, path = value.partition("=")
        if not (name and separator and path):
            raise click.BadParameter(f"expected NAME=PATH, e.g. camvid=data/camvid, got {value!r}")
        roots[name] = expanded(path)
    return roots


def parse_size(text: str, *, option: str, smallest: int) -> tuple[int, int]:
    """Read a size.

    Args:
        text: HEIGHTxWIDTH in pixels.
        option: name of the option, for the message.
        smallest: smallest side in pixels.

    Returns:
        Height and width.

    Raises:
        ConfigError: if the text is not such a size.

    Example:
        >>> parse_size("176x240", option="--size", smallest=32)
        (176, 240)
    """
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()) or min(int(height), int(width)) < smallest:
        raise ConfigError(
            f"{option} expects HEIGHTxWIDTH with sides of {smallest} pixels or more, e.g. 256x512, got {text!r}"
        )
    return int(height), int(width)
